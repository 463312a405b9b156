"""How good the models are, beside published numbers: ``python -m benchmarks.quality --models vae --data-dir FOLDER``.

Trains several seeds of each row in one program, scores each seed, and writes ``results/quality-MODEL.json`` and the
table in ``README.md`` of this folder. Runs that are there already go on or are only scored.
"""

import dataclasses
import importlib
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
from train.run import config, process, sweep

RESULTS = "GENJAX_RESULTS"
"""The variable that names another folder for the results and the page with the tables than this one."""
HERE = pathlib.Path(os.environ.get(RESULTS) or pathlib.Path(__file__).parent)
BEGIN, END = "<!-- quality {} -->", "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Row:
    """A model to train and score.

    Fields:
      name: what to call it.
      script: of ``train``.
      flags: of the script, beside steps, seeds and folders.
      steps: of training.
      samples, images: of the importance-weighted bound, or times and images of the variational one; 0 images for none.
      published: numbers to stand beside it, with their source.
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
    """Which families: vae, vdm, pixelcnn, pixelrnn; or drawn: what DDPM, VAE, PixelCNN and GAN draw, judged alike."""
    rows: tuple[int, ...] = ()
    """Which rows of each, counted from 0; all by default."""
    num_seeds: int = 3
    """Seeds of each row."""
    steps: int = 0
    """Fewer training steps than the row says, for a machine that is slow; named in the result."""
    images: int = 0
    """Fewer images for the bound than the row says; named in the result."""
    data_dir: str = ""
    """Where data sets lie."""
    workdir: str = "runs/quality"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def workdir(folder: str, script: str, argv: Sequence[str]) -> pathlib.Path:
    """Where a run is in a folder of runs: named as its script would name it."""
    schema = importlib.import_module(f"train.{script}").Config
    return pathlib.Path(folder) / pathlib.Path(config.parse(schema, script, argv).workdir).name


def score(row: Row, settings: Quality) -> dict[str, Any]:
    """Train the seeds of a row, and score them."""
    wanted = settings.steps or row.steps
    flags = (*row.flags, "--steps", str(wanted))
    common = ("--data-dir", settings.data_dir) if settings.data_dir else ()
    command = (*flags, "--num-seeds", str(settings.num_seeds), *common)
    run = workdir(settings.workdir, row.script, command)
    subprocess.run([sys.executable, "-m", f"train.{row.script}", *command, "--workdir", str(run)], check=True)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    told = json.loads((run / "config.json").read_text(encoding="utf-8"))
    last = next(line for line in lines if line["step"] == wanted)
    losses = last.get("heldout_members", {}).get("loss", [last["heldout_loss"]])
    shown = f"python -m train.{row.script} {' '.join(flags)} --num-seeds {settings.num_seeds}"
    found: dict[str, Any] = {
        "name": row.name, "command": shown, "steps": wanted,
        "published": row.published,
        "devices": told["devices"], "versions": told["versions"],
    }  # fmt: skip
    if row.script != "vdm":  # whose loss is in bits, and at a single time of each image
        found["log_prob" if row.script.startswith("pixel") else "elbo"] = _mean(np.negative(losses))
    if "heldout_bits_per_dim" in last:
        found["bits_per_dim"] = last["heldout_bits_per_dim"]
    if num := row.images and (settings.images or row.images):
        rows = [
            evaluate.scores(
                evaluate.Evaluate(
                    str(run),
                    num=num,
                    member=i,
                    data_dir=settings.data_dir,
                    **{"times" if row.script == "vdm" else "samples": row.samples},
                )
            )
            for i in range(settings.num_seeds)
        ]
        found |= {"samples": row.samples, "split": rows[0]["split"], "pixels": rows[0]["pixels"]}
        bound = "vlb" if row.script == "vdm" else "bound"
        found[bound] = _mean(np.array([one[bound]["nats"] for one in rows]))
        found[f"{bound}_over_images"] = [one[bound]["standard_error"] for one in rows]
        if bound == "vlb":
            parts = ("vlb", "prior", "steps", "decoder")
            bits = {name: float(np.mean([one[name]["bits_per_dim"] for one in rows])) for name in parts}
            found |= {"bits_per_dim": bits.pop("vlb"), "parts": bits}
    return found


def _mean(values: np.ndarray) -> dict[str, Any]:
    return {
        "nats": float(np.mean(values)),
        "standard_error_over_seeds": sweep.standard_error(values) if len(values) > 1 else None,
        "seeds": np.asarray(values).tolist(),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
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
    """Score what the command line says."""
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
    """What the models draw of the digits, judged alike: a program of its own, with its own flags."""
    command = ["--config", "digits", "--num-seeds", str(settings.num_seeds), "--workdir", settings.workdir]
    subprocess.run([sys.executable, "-m", "benchmarks.drawn", *command], check=True)


def _show(value: dict[str, Any]) -> str:
    spread = value["standard_error_over_seeds"]
    return f"{-value['nats']:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def write_table(family: str, text: str) -> None:
    """Put a table between its marks in the README of this folder."""
    path = HERE / "README.md"
    page = path.read_text(encoding="utf-8")
    start = page.index(BEGIN.format(family)) + len(BEGIN.format(family))
    path.write_text(page[:start] + "\n" + text + "\n" + page[page.index(END, start) :], encoding="utf-8")


if __name__ == "__main__":
    process.main(main)
