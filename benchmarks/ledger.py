"""Likelihoods of all model families on one data set: ``python -m benchmarks.ledger``.

Trains each model that has a likelihood on the digits, scores it on the held-out digits, and writes
``results/ledger-NAME.json`` and the table in ``README.md`` of this folder. Existing runs are only scored. With
``--rows`` the rows are read from files that ``train.evaluate --out`` wrote.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import tyro

from benchmarks import drawn, quality
from train import evaluate
from train.run import config, documents, logging, process


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Train, score, and write the table."""

    rows: tuple[str, ...] = ()
    """Files written by train.evaluate; without, the models of digits are trained and scored."""
    name: str = "digits"
    """Name of the table."""
    workdir: str = "runs"
    """Folder of the runs."""
    traceback: bool = False
    """Show where in the code an error arose."""


RUNS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("ddpm", "digits", "", {"flow": True}),
    ("vdm", "digits", "", {}),
    ("edm", "digits", "", {"times": 500, "flow": True}),
    ("pixelcnn", "digits", "", {}),
    ("pixelrnn", "digits", "", {}),
    ("vae", "digits", "likelihood=logistic levels=17 latent_dim=8", {"samples": 500}),
    ("vqvae", "digits", "likelihood=logistic levels=17", {}),
    ("pixelcnn", "codes", "", {}),
    ("examples/realnvp/realnvp.py", "digits", "", {"recipe": "examples/realnvp/realnvp.py"}),
)
"""Recipe, or the file of one from outside of train; config, other settings, and settings of the score. The row after a
VQ-VAE is the prior of its codes."""


def digits(settings: Ledger) -> list[dict[str, Any]]:
    """Train the models that have no run yet, and score all."""
    rows, source = [], ""
    for script, name, variant, flags in RUNS:
        codes = f" data=codes:{source}" if name == "codes" else ""
        workdir = drawn.train(script, drawn.Drawn(config=name, workdir=settings.workdir), variant=variant + codes)
        if script == "vqvae":
            source = str(workdir)
            continue
        rows.append(evaluate.scores(evaluate.Evaluate(str(workdir), num=0, **flags)))
    return rows


def _row(path: pathlib.Path) -> dict[str, Any]:
    """Read a row that train.evaluate wrote.

    Raises:
      UsageError: the file has another content.
    """
    try:
        row = documents.json_object(path)
        evaluate.ledger([row])
    except (ValueError, LookupError, TypeError) as error:
        raise config.UsageError(f"rows: {path} is not what train.evaluate --out writes: {error!r}") from error
    process.check_finite(str(path), row)
    return row


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Ledger, prog="python -m benchmarks.ledger", args=argv)
    rows = [_row(pathlib.Path(path)) for path in settings.rows] or digits(settings)
    for row in rows:
        row.pop("by_time", None)
    path = quality.HERE / "results" / f"ledger-{settings.name}.json"
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    logging.log(table := evaluate.ledger(rows))
    quality.write_table(f"ledger {settings.name}", table)


if __name__ == "__main__":
    process.main(main)
