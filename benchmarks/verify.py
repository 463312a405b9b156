"""Reproduction of quoted numbers that two cores can compute in ten minutes: ``python -m benchmarks.verify``.

Runs each benchmark and each shipped config again, in a folder of its own, and compares every number with the quoted
one: within its error bar, if it has one; within one hundredth, if it is from a single run. Writes
``results/verify.json`` and ``docs/verified.md``, which list the numbers that held and those that did not, and the
results that cannot be reproduced here, with the reason.
"""

import dataclasses
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tyro

from benchmarks import provenance, quality, returns
from train.run import logging, process

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "verified.md"


class Number(NamedTuple):
    """Number with its error bar.

    Attributes:
      value: value of the number.
      error: standard error; None for a number of a single run.
      over: source of the variation that the error bar describes.
    """

    value: float
    error: float | None = None
    over: str = "one run"


Numbers = dict[str, Number]


class Experiment(NamedTuple):
    """Benchmark with a file of results.

    Attributes:
      result: name of the file in ``results``, without its suffix.
      command: command line of the program in ``benchmarks``; ``{}`` is the folder of the runs.
      numbers: function that reads the numbers of the file.
    """

    result: str
    command: str
    numbers: Callable[[Any], Numbers]


def ledger(rows: list[dict[str, Any]]) -> Numbers:
    """Read the results of ``benchmarks.ledger``: bits per dimension."""
    found = {}
    for row in rows:
        for kind in {"vlb", "flow", "log_prob", "elbo", "bound", "both"} & row.keys():
            error = row[kind]["standard_error"] / (math.log(2) * row["dimensions"])
            script, config = pathlib.Path(row["workdir"]).name.split("-")[:2]
            name = script if config == "digits" else f"{script} on codes"
            found[f"{name}, {kind}, bits per dim"] = Number(row[kind]["bits_per_dim"], error, "held-out images")
    return found


SCORES = ("frechet", "precision", "recall", "density", "coverage", "classes", "copies_ratio")


def drawn(found: dict[str, Any]) -> Numbers:
    """Read the results of ``benchmarks.drawn``."""
    return {
        f"{row['model']}, {name}": _over_seeds([seed[name] for seed in row["seeds"]])
        for row in found["rows"]
        for name in SCORES
    }


def _over_seeds(values: Sequence[float]) -> Number:
    if len(values) == 1:
        return Number(float(values[0]))
    return Number(float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5), f"{len(values)} seeds")


def actor_critic(rows: list[dict[str, Any]]) -> Numbers:
    """Read the results of ``benchmarks.returns``."""
    found = {}
    for row in rows:
        found[f"{row['config']}, mean return"] = _over_seeds(row["returns"])
        if row["config"].startswith("cartpole"):
            share = returns.solved(row["returns"])
            error = (share.high - share.low) / 2 / 1.96
            found[f"{row['config']}, share of seeds at 475"] = Number(
                share.share, error, f"{len(row['returns'])} seeds"
            )
    return found


def samplers(found: dict[str, Any]) -> Numbers:
    """Read the results of ``benchmarks.samplers``."""
    return {f"{row['sampler']}, {row['steps']} steps, Fréchet": Number(row["frechet"]) for row in found["rows"]}


def calibration(found: dict[str, Any]) -> Numbers:
    """Read the results of ``benchmarks.calibration``."""
    numbers: Numbers = {}
    for name, row in found["sets"].items():
        numbers |= {f"{name}, {score}": Number(row[score]) for score in SCORES}
        numbers[f"{name}, kernel"] = Number(row["kernel"][0], row["kernel"][1], "fresh sets of images")
    return numbers


def subschedules(rows: list[dict[str, Any]]) -> Numbers:
    """Read the results of ``benchmarks.subschedules``."""
    return {
        f"{row['steps']} steps, {which}, bits per dim": Number(row[which]) for row in rows for which in ("even", "best")
    }


def editing(found: dict[str, dict[str, float]]) -> Numbers:
    """Read the results of ``benchmarks.editing``; numbers that are 0 up to rounding are left out."""
    return {f"{name}, {how}": Number(v) for name, row in found.items() for how, v in row.items() if v > 1e-5}


def gradients(found: dict[str, Any]) -> Numbers:
    """Read the results of ``benchmarks.gradients``."""
    numbers: Numbers = {f"memory at T = {row['T']}, MiB": Number(row["whole"] / 2**20) for row in found["memory"]}
    numbers |= {
        f"memory at T = {row['T']} in segments, MiB": Number(row["segments"] / 2**20) for row in found["memory"]
    }
    numbers |= {f"grid, {name}": Number(found["grid"][name]) for name in ("karras", "tuned")}
    return numbers | {f"half a digit, {name}": Number(value) for name, value in found["inverse"].items()}


def two_sample(found: dict[str, Any]) -> Numbers:
    """Read the results of ``benchmarks.two_sample``."""
    names = ("drawn_against_heldout", "rounded_against_heldout", "train_against_heldout")
    return {name.replace("_", " "): Number(found[name][0], found[name][1], "splits of the images") for name in names}


EXPERIMENTS = (
    Experiment("ledger-digits", "ledger --workdir {}", ledger),
    Experiment("drawn-digits", "drawn --config digits --workdir {}", drawn),
    Experiment(
        "drawn-steady",
        "drawn --config digits --name steady --models gan --variants '' r1_weight=0 ema_decay=0 loss=minimax "
        "loss=hinge 'r1_weight=0 spectral_norm' --workdir {}",
        drawn,
    ),
    Experiment("returns", "returns --workdir {}", actor_critic),
    Experiment("subschedules", "subschedules --workdir {}/ddpm-digits", subschedules),
    Experiment("samplers-digits", "samplers --workdir {}/ddpm-digits --classifier {}/classifier-digits", samplers),
    Experiment("calibration-digits", "calibration --config digits --workdir {}", calibration),
    Experiment("editing", "editing --workdir {}/ddpm-digits", editing),
    Experiment("gradients", "gradients --workdir {}/ddpm-digits", gradients),
    Experiment("two-sample-digits", "two_sample --workdir {}/ddpm-digits --out {}/two-sample-digits.json", two_sample),
)  # fmt: skip


class Quote(NamedTuple):
    """Number quoted in a text.

    Attributes:
      file: file that quotes the number.
      pattern: regular expression of the text; its single group is the number.
      script: script whose run reports the number at its end.
      config: config of the run.
      metric: name of the metric; a leading % converts a share to percent.
    """

    file: str
    pattern: str
    script: str
    config: str
    metric: str


def _config(script: str, name: str, pattern: str, metric: str) -> Quote:
    return Quote(f"train/configs/{script}/{name}.toml", pattern, script, name, metric)


QUOTES = (
    _config("ae", "digits", r"held-out squared error (\d+(?:\.\d+)?)", "heldout_loss"),
    _config("vae", "digits", r"held out -ELBO (\d+(?:\.\d+)?) nats", "heldout_loss"),
    _config("vqvae", "digits", r"held-out perplexity (\d+) of", "heldout_perplexity"),
    _config("ddpm", "digits", r"held-out loss (\d+(?:\.\d+)?);", "heldout_loss"),
    _config("pixelcnn", "digits", r"held out (\d+(?:\.\d+)?) nats", "heldout_loss"),
    _config("pixelrnn", "digits", r"held out (\d+(?:\.\d+)?) nats", "heldout_loss"),
    _config("gan", "digits", r"loss ends at (\d+(?:\.\d+)?) held out", "heldout_discriminator"),
    _config("classifier", "digits", r"Result: (\d+(?:\.\d+)?) %", "%heldout_accuracy"),
)

NOT_AGAIN = {
    "calibration-mnist": "wants the MNIST files: python -m benchmarks.calibration --config mnist --data-dir FOLDER",
    "ddpm-cifar10": "wants a GPU",
    "drawn-mnist": "wants three quarters of an hour and the MNIST files",
    "ledger-cifar10": "wants a GPU; typed from what a run printed",
    "quality-pixelcnn": "wants hours and the MNIST files: python -m benchmarks.quality --models pixelcnn",
    "quality-pixelrnn": "wants hours and the MNIST files: python -m benchmarks.quality --models pixelrnn",
    "quality-vae": "wants hours and the MNIST files: python -m benchmarks.quality --models vae",
    "quality-vdm": "wants 70 minutes and the MNIST files: python -m benchmarks.quality --models vdm",
    "samplers-mnist": "wants an hour and a half of training and the MNIST files",
    "speed-*": "ratios of times belong to one machine: python -m benchmarks.speed measures this one",
}
"""Results that are not reproduced here, and the reason."""


ELSEWHERE = {
    "train/configs/actor_critic/acrobot.toml": "returns",
    "train/configs/actor_critic/cartpole.toml": "returns",
    "train/configs/actor_critic/cartpole_ppo.toml": "returns",
    "train/configs/actor_critic/chain.toml": "right actions: see its picture",
    "train/configs/classifier/mnist.toml": "wants the MNIST files",
    "train/configs/ddpm/cifar10.toml": "wants a GPU",
    "train/configs/ddpm/mnist_small.toml": "wants an hour and a half and the MNIST files",
    "train/configs/gan/mnist.toml": "wants three quarters of an hour and the MNIST files",
    "train/configs/gan/ring.toml": "counts modes: see its picture",
    "train/configs/pixelcnn/codes.toml": "ledger-digits",
    "train/configs/vae/mnist.toml": "wants a quarter of an hour and the MNIST files",
    "train/configs/vdm/mnist.toml": "wants 70 minutes and the MNIST files",
}
"""Configs whose numbers a benchmark reproduces, or the reason that none does."""


@dataclasses.dataclass(frozen=True)
class Verify:
    """Reproduce quoted numbers, and compare them within their error bars."""

    only: tuple[str, ...] = ()
    """Names of results; all by default. Earlier results stay in the table."""
    workdir: str = "runs/verify"
    """Folder of the runs and of the new results; existing runs are only read."""
    errors: float = 3.0
    """Maximum deviation of a number, in standard errors of the difference."""
    traceback: bool = False
    """Show where in the code an error arose."""


def compare(quoted: Numbers, again: Numbers, errors: float) -> Iterator[dict[str, Any]]:
    """Compare the reproduced with the quoted numbers; yield a row for each.

    >>> rows = compare({"x": Number(1.0, 0.1, "seeds")}, {"x": Number(1.2, 0.1, "seeds")}, 3.0)
    >>> [(row["held"], round(row["off"], 2)) for row in rows]
    [(True, 1.41)]
    """
    for name, old in quoted.items():
        new = again.get(name)
        row: dict[str, Any] = {"number": name, "quoted": old.value, "error": old.error, "over": old.over}
        if new is None:
            yield {**row, "again": None, "off": None, "held": False}
            continue
        bar = math.hypot(old.error or 0, new.error or 0)
        difference = abs(new.value - old.value)
        if bar > 0:
            off, held = difference / bar, difference <= errors * bar
        else:  # a single run has no error bar
            off, held = None, difference <= 0.01 * abs(old.value)
        yield {**row, "again": new.value, "off": off, "held": bool(held)}


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Verify, prog="python -m benchmarks.verify", args=argv)
    known = [experiment.result for experiment in EXPERIMENTS] + ["configs"]
    if unknown := set(settings.only) - set(known):
        raise ValueError(f"only: expected some of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    path = quality.HERE / "results" / "verify.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in settings.only or known:
        started = time.monotonic()
        rows = list(_configs(settings) if name == "configs" else _experiment(settings, name))
        found[name] = {"rows": rows, "minutes": round((time.monotonic() - started) / 60, 1), "with": _machine()}
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(found), encoding="utf-8")
        held = sum(row["held"] for row in rows)
        logging.log(f"{name}: {held} of {len(rows)} held, {found[name]['minutes']} minutes")


def _machine() -> dict[str, Any]:
    record = provenance.record([], 0)
    return {"processor": record["processor"], "cores": record["cores"], "versions": record["versions"]}


def _experiment(settings: Verify, name: str) -> Iterator[dict[str, Any]]:
    experiment = next(experiment for experiment in EXPERIMENTS if experiment.result == name)
    folder = pathlib.Path(settings.workdir).absolute() / "made"
    (folder / "results").mkdir(parents=True, exist_ok=True)
    shutil.copy(quality.HERE / "README.md", folder / "README.md")
    old = json.loads((quality.HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))
    script, *flags = _words(experiment.command.replace("{}", settings.workdir))
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", *flags],
        check=True,
        env={**os.environ, quality.RESULTS: str(folder)},
    )
    out = flags[flags.index("--out") + 1] if "--out" in flags else folder / "results" / f"{name}.json"
    new = json.loads(pathlib.Path(out).read_text(encoding="utf-8"))
    yield from compare(experiment.numbers(old), experiment.numbers(new), settings.errors)


def _words(command: str) -> list[str]:
    return [word.strip("'") for word in re.findall(r"'[^']*'|\S+", command)]


def _configs(settings: Verify) -> Iterator[dict[str, Any]]:
    for quote in QUOTES:
        workdir = pathlib.Path(settings.workdir) / f"{quote.script}-{quote.config}"
        argv = ["--config", quote.config, "--workdir", str(workdir)]
        subprocess.run([sys.executable, "-m", f"train.{quote.script}", *argv], check=True)
        last = json.loads((workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        value = last[quote.metric.lstrip("%")] * (100 if quote.metric.startswith("%") else 1)
        text = quoted_text(quote)
        digits = len(text.partition(".")[2])
        rounded = {quote.file: Number(round(value, digits))}  # as it is printed
        yield from compare({quote.file: Number(float(text))}, rounded, settings.errors)


def quoted_text(quote: Quote) -> str:
    """Find the quoted number in its file.

    Raises:
      ValueError: the file does not quote it.
    """
    match = re.search(quote.pattern, (ROOT / quote.file).read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f"{quote.file}: expected {quote.pattern!r} in it")
    return match[1]


def page(found: dict[str, Any]) -> str:
    """Format the page of all comparisons in Markdown."""
    rows = [row for result in found.values() for row in result["rows"]]
    held = sum(row["held"] for row in rows)
    lines = [
        "# Numbers, made again",
        "",
        "    python -m benchmarks.verify",
        "",
        f"Of {len(rows)} quoted numbers that were made again {held} held: within three standard errors of the",
        "difference where there is an error bar, which varies what its column says; within a hundredth where",
        "a number is that of one run, of which nothing says how it varies.",
    ]
    for name, result in found.items():
        machine = result["with"]
        versions = ", ".join(
            f"{package} {machine['versions'][package]}" for package in ("python", "jax", "flax", "optax")
        )
        lines += ["", f"## {name}", ""]
        lines += [f"{machine['processor']}, {machine['cores']} cores; {versions}; {result['minutes']} minutes.", ""]
        if result.get("remade"):
            lines += [
                "What did not hold was made anew from this run: quoted stands what was so before.",
                "",
            ]
        lines += ["| number | quoted | varies over | again | standard errors off | held |", "|---|---|---|---|---|---|"]
        for row in result["rows"]:
            bar = "" if row["error"] is None else f" ± {row['error']:.2g}"
            again = "not made" if row["again"] is None else f"{row['again']:.5g}"
            off = "" if row["off"] is None else f"{row['off']:.1f}"
            held = "yes" if row["held"] else "**no**"
            lines.append(f"| {row['number']} | {row['quoted']:.5g}{bar} | {row['over']} | {again} | {off} | {held} |")
    lines += ["", "## Not made again, or elsewhere", "", "| result | why, or where |", "|---|---|"]
    apart = {f"benchmarks/results/{name}.json": why for name, why in NOT_AGAIN.items()} | ELSEWHERE
    return "\n".join([*lines, *(f"| {name} | {why} |" for name, why in apart.items())]) + "\n"


if __name__ == "__main__":
    process.main(main)
