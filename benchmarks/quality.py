"""Likelihoods beside published numbers: ``python -m benchmarks.quality --models vae --data-dir FOLDER``.

Trains several seeds of each row in one program, scores each seed, and writes ``results/quality-MODEL.json`` and the
table in ``README.md`` of this folder. Existing runs are continued, or only scored.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from train import evaluate
from train.run import config, process, registry, sweep

RESULTS = "GENJAX_RESULTS"
"""Environment variable that names another folder for the results and the page of the tables."""
HERE = pathlib.Path(os.environ.get(RESULTS) or pathlib.Path(__file__).parent)
BEGIN, END = "<!-- quality {} -->", "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Row:
    """Model to train and score.

    Attributes:
      name: name in the table.
      script: script of ``train``.
      flags: flags of the script, beside steps, seeds and folders.
      steps: number of training steps.
      samples: number of draws of the importance-weighted bound, or of times of the variational bound.
      images: number of images for the bound; 0 for no bound.
      published: published numbers, with their source.
    """

    name: str
    script: str
    flags: tuple[str, ...]
    steps: int
    samples: int
    images: int
    published: str


NOTES, BINARIZED = ("--config", "notes"), ("--config", "mnist_binarized")
SMALL = ("--batch-size", "32", "--lr", "2e-3", "--head", "32", "--stacks", "gated")
GREY = "1.288 bits per dim for a table of three neighbours"
ROWS = {
    "vae": (
        Row(
            "notes' 784-256-2, grey cross-entropy, 30 epochs", "vae", NOTES, 14_070, 0, 0,
            "about 147 on training images (Keras' convolutional example)",
        ),
        Row("notes' 784-256-2, grey cross-entropy, 100 epochs", "vae", NOTES, 46_900, 0, 0, ""),
        Row(
            "784-400-20, binarised dynamically, 30 epochs", "vae", ("--config", "mnist"), 14_070, 500, 2000,
            "ELBO about 104 after 10 epochs (Flax's example)",
        ),
        Row(
            "convolutional, 32 latents, binarised statically", "vae", ("--config", "binarized"), 78_200, 5000, 1000,
            "VAE 89.8, IWAE with K = 50 86.8 (pythae); one layer 84.8 (Burda et al. 2016)",
        ),
    ),
    "pixelcnn": (
        Row(
            "plain, 15 blocks of 2h = 32, binarised statically", "pixelcnn", BINARIZED, 89_400, 0, 0,
            "81.30 (van den Oord et al. 2016a)",
        ),
        Row(
            "small: gated, 5 layers of 24, binarised statically", "pixelcnn",
            (*BINARIZED, *SMALL, "--features", "24", "--layers", "5"), 8_000, 0, 0,
            "81.30 (van den Oord et al. 2016a), plain and larger",
        ),
        Row(
            "gated, 7 layers of 32, softmax over 256 levels", "pixelcnn", ("--config", "mnist"), 46_900, 0, 0,
            GREY,
        ),
        Row(
            "small: gated, 7 layers of 16 with kernels of 5, softmax over 256 levels", "pixelcnn",
            ("--config", "mnist", *SMALL, "--features", "16", "--layers", "7", "--kernel-size", "5"), 2_000, 0, 0,
            GREY,
        ),
    ),
    "vdm": (
        Row("small: a U-Net of 16 channels, 256 levels", "vdm", ("--config", "mnist"), 6_500, 20, 10_000, GREY),
    ),
    "pixelrnn": (
        Row(
            "Diagonal BiLSTM, 7 layers of 16, binarised statically", "pixelrnn", BINARIZED, 78_200, 0, 0,
            "79.20 (van den Oord et al. 2016a)",
        ),
        Row(
            "Row LSTM, 7 layers of 16, binarised statically", "pixelrnn", (*BINARIZED, "--kind", "row"), 78_200, 0, 0,
            "80.54 (van den Oord et al. 2016a), size not told",
        ),
        Row(
            "small: Diagonal BiLSTM, 2 layers of 16, binarised statically", "pixelrnn",
            (*BINARIZED, "--layers", "2", "--batch-size", "32", "--lr", "3e-3", "--ema-decay", "0.99"), 1_500, 0, 0,
            "79.20 (van den Oord et al. 2016a) with 7 layers",
        ),
        Row(
            "small: Row LSTM, 2 layers of 16, binarised statically", "pixelrnn",
            (*BINARIZED, "--kind", "row", "--layers", "2", "--batch-size", "32", "--lr", "3e-3"), 8_000, 0, 0,
            "80.54 (van den Oord et al. 2016a), larger",
        ),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Quality:
    """Train, score, and write the table."""

    models: tuple[str, ...] = ("vae",)
    """Families: vae, vdm, pixelcnn, pixelrnn; or drawn, for the samples of DDPM, VAE, PixelCNN and GAN."""
    rows: tuple[int, ...] = ()
    """Rows of each family, counted from 0; all by default."""
    num_seeds: int = 3
    """Number of seeds of each row."""
    steps: int = 0
    """Smaller number of training steps, for a slow machine; recorded in the result."""
    images: int = 0
    """Smaller number of images for the bound; recorded in the result."""
    data_dir: str = ""
    """Folder of the data sets."""
    workdir: str = "runs/quality"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def workdir(folder: str, script: str, argv: Sequence[str]) -> pathlib.Path:
    """Path of a run in a folder of runs, with the name that its own command would choose.

    Args:
      folder: folder of the runs.
      script: name of a recipe of train, or the file of one from outside.
      argv: command line of the run.
    """
    recipe = registry.from_module(script) if script.endswith(".py") else registry.get(script)
    settings = config.parse(recipe.config, recipe.name, argv, recipe.configs)
    return pathlib.Path(folder) / pathlib.Path(settings.workdir).name


def train(script: str, argv: Sequence[str]) -> None:
    """Train a recipe by its own command, in a process of its own, which finds the library where this file lies."""
    command = [script] if script.endswith(".py") else ["-m", f"train.{script}"]
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[1])}
    subprocess.run([sys.executable, *command, *argv], check=True, env=env)


def score(row: Row, settings: Quality) -> dict[str, Any]:
    """Train the seeds of a row, and score them."""
    num_steps = settings.steps or row.steps
    flags = (*row.flags, "--steps", str(num_steps))
    common = ("--data-dir", settings.data_dir) if settings.data_dir else ()
    command = (*flags, "--num-seeds", str(settings.num_seeds), *common)
    run = workdir(settings.workdir, row.script, command)
    train(row.script, [*command, "--workdir", str(run)])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    about = json.loads((run / "config.json").read_text(encoding="utf-8"))
    last = next(line for line in lines if line["step"] == num_steps)
    losses = last.get("heldout_members", {}).get("loss", [last["heldout_loss"]])
    shown = f"python -m train.{row.script} {' '.join(flags)} --num-seeds {settings.num_seeds}"
    result: dict[str, Any] = {
        "name": row.name, "command": shown, "steps": num_steps,
        "published": row.published,
        "devices": about["devices"], "versions": about["versions"],
    }  # fmt: skip
    if row.script != "vdm":  # whose loss is in bits, and at a single time of each image
        result["log_prob" if row.script.startswith("pixel") else "elbo"] = _mean(np.negative(losses))
    if "heldout_bits_per_dim" in last:
        result["bits_per_dim"] = last["heldout_bits_per_dim"]
    if num := row.images and (settings.images or row.images):
        count: dict[str, Any] = {"times" if row.script == "vdm" else "samples": row.samples}
        options = evaluate.Evaluate(str(run), num=num, data_dir=settings.data_dir, **count)
        rows = [evaluate.scores(dataclasses.replace(options, member=i)) for i in range(settings.num_seeds)]
        result |= {"samples": row.samples, "split": rows[0]["split"], "pixels": rows[0]["pixels"]}
        bound = "vlb" if row.script == "vdm" else "bound"
        result[bound] = _mean(np.array([scores[bound]["nats"] for scores in rows]))
        result[f"{bound}_over_images"] = [scores[bound]["standard_error"] for scores in rows]
        if bound == "vlb":
            parts = ("vlb", "prior", "steps", "decoder")
            bits = {name: float(np.mean([scores[name]["bits_per_dim"] for scores in rows])) for name in parts}
            result |= {"bits_per_dim": bits.pop("vlb"), "parts": bits}
    return result


def _mean(values: np.ndarray) -> dict[str, Any]:
    return {
        "nats": float(np.mean(values)),
        "standard_error_over_seeds": sweep.standard_error(values) if len(values) > 1 else None,
        "seeds": np.asarray(values).tolist(),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows as a Markdown table."""
    names = {"log_prob": "-log p(x), nats", "vlb": "variational bound, nats", "elbo": "-ELBO, nats"}
    kind = next(name for name in names if name in rows[0])
    score, more = names[kind], "bound with K draws, nats" if kind == "elbo" else "bits per dim"
    lines = [f"| model | steps | {score} | {more} | elsewhere |", "|---|---|---|---|---|"]
    for row in rows:
        if kind != "elbo":
            parts = (f"{name} {bits:.4f}" for name, bits in row.get("parts", {}).items())
            second = f"{row['bits_per_dim']:.4f}" + (f" ({', '.join(parts)})" if "parts" in row else "")
        else:
            second = f"{_show(row['bound'])} (K = {row['samples']})" if "bound" in row else ""
        first = _show(row[kind])
        lines.append(f"| {row['name']} | {row['steps']} | {first} | {second} | {row['published']} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Quality, prog="python -m benchmarks.quality", args=argv)
    for family in settings.models:
        if family == "drawn":
            _drawn(settings)
            continue
        path = HERE / "results" / f"quality-{family}.json"
        old = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}
        for i in settings.rows or range(len(ROWS[family])):
            old[ROWS[family][i].name] = score(ROWS[family][i], settings)
            ordered = [old[row.name] for row in ROWS[family] if row.name in old]
            path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
            write_table(family, table(ordered))


def _drawn(settings: Quality) -> None:
    """Run ``benchmarks.drawn`` on the digits."""
    command = ["--config", "digits", "--num-seeds", str(settings.num_seeds), "--workdir", settings.workdir]
    subprocess.run([sys.executable, "-m", "benchmarks.drawn", *command], check=True)


def _show(value: dict[str, Any]) -> str:
    spread = value["standard_error_over_seeds"]
    return f"{-value['nats']:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def write_table(family: str, text: str) -> None:
    """Write a table between its marks in the README of this folder."""
    path = HERE / "README.md"
    page = path.read_text(encoding="utf-8")
    start = page.index(BEGIN.format(family)) + len(BEGIN.format(family))
    path.write_text(page[:start] + "\n" + text + "\n" + page[page.index(END, start) :], encoding="utf-8")


if __name__ == "__main__":
    process.main(main)
