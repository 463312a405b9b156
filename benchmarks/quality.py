"""How good the models are, beside published numbers: ``python -m benchmarks.quality --models vae --data-dir FOLDER``.

Trains several seeds of each row in one program, scores each seed, and writes ``results/quality-MODEL.json`` and the
table in ``README.md`` of this folder. Runs that are there already go on or are only scored.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tyro

from train import evaluate, members, runtime

HERE = pathlib.Path(__file__).parent
BEGIN, END = "<!-- quality {} -->", "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Row:
    """A model to train and score.

    Fields:
      name: what to call it.
      script: of ``train``.
      flags: of the script, beside steps, seeds and folders.
      steps: of training.
      samples, images: of the importance-weighted bound; 0 images for none.
      published: numbers to stand beside it, with their source.
    """

    name: str
    script: str
    flags: tuple[str, ...]
    steps: int
    samples: int
    images: int
    published: str


NOTES = ("--config", "notes")
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
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Quality:
    """Train, score, and write the table."""

    models: tuple[str, ...] = ("vae",)
    """Which families."""
    rows: tuple[int, ...] = ()
    """Which rows of each, counted from 0; all by default."""
    num_seeds: int = 3
    """Seeds of each row."""
    steps: int = 0
    """Fewer training steps than the row says, for a machine that is slow; named in the result."""
    data_dir: str = ""
    """Where data sets lie."""
    workdir: str = "runs/quality"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


def score(row: Row, settings: Quality) -> dict[str, Any]:
    """Train the seeds of a row, and score them."""
    wanted = settings.steps or row.steps
    flags = (*row.flags, "--steps", str(wanted))
    config = flags[flags.index("--config") + 1]
    workdir = pathlib.Path(settings.workdir) / f"{row.script}-{config}"
    common = ("--data-dir", settings.data_dir) if settings.data_dir else ()
    command = (*flags, "--num-seeds", str(settings.num_seeds), "--workdir", str(workdir), *common)
    subprocess.run([sys.executable, "-m", f"train.{row.script}", *command], check=True)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    told = json.loads((workdir / "config.json").read_text(encoding="utf-8"))
    last = next(line for line in lines if line["step"] == wanted)
    losses = last.get("heldout_members", {}).get("loss", [last["heldout_loss"]])
    shown = f"python -m train.{row.script} {' '.join(flags)} --num-seeds {settings.num_seeds}"
    found: dict[str, Any] = {
        "name": row.name, "command": shown, "steps": wanted,
        "elbo": _mean(np.negative(losses)), "published": row.published,
        "devices": told["devices"], "versions": told["versions"],
    }  # fmt: skip
    if row.images:
        rows = [
            evaluate.scores(
                evaluate.Evaluate(
                    str(workdir), samples=row.samples, num=row.images, member=i, data_dir=settings.data_dir
                )
            )
            for i in range(settings.num_seeds)
        ]
        found |= {"samples": row.samples, "split": rows[0]["split"], "pixels": rows[0]["pixels"]}
        found["bound"] = _mean(np.array([one["bound"]["nats"] for one in rows]))
        found["bound_over_images"] = [one["bound"]["standard_error"] for one in rows]
    return found


def _mean(values: np.ndarray) -> dict[str, Any]:
    return {
        "nats": float(np.mean(values)),
        "standard_error_over_seeds": members.standard_error(values),
        "seeds": np.asarray(values).tolist(),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [
        "| model | steps | -ELBO, nats | bound with K draws, nats | elsewhere |",
        "|---|---|---|---|---|",
    ]
    show = lambda value: f"{-value['nats']:.2f} ± {value['standard_error_over_seeds']:.2f}"
    for row in rows:
        bound = f"{show(row['bound'])} (K = {row['samples']})" if "bound" in row else ""
        lines.append(f"| {row['name']} | {row['steps']} | {show(row['elbo'])} | {bound} | {row['published']} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Score what the command line says."""
    settings = tyro.cli(Quality, prog="python -m benchmarks.quality", args=argv)
    for family in settings.models:
        path = HERE / "results" / f"quality-{family}.json"
        old = {row["name"]: row for row in json.loads(path.read_text(encoding="utf-8"))} if path.exists() else {}
        for i in settings.rows or range(len(ROWS[family])):
            old[ROWS[family][i].name] = score(ROWS[family][i], settings)
            ordered = [old[row.name] for row in ROWS[family] if row.name in old]
            path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
            _write_table(family, table(ordered))


def _write_table(family: str, text: str) -> None:
    path = HERE / "README.md"
    page = path.read_text(encoding="utf-8")
    start = page.index(BEGIN.format(family)) + len(BEGIN.format(family))
    path.write_text(page[:start] + "\n" + text + "\n" + page[page.index(END, start) :], encoding="utf-8")


if __name__ == "__main__":
    runtime.main(main)
