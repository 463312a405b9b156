"""Sample quality against network evaluations: ``python -m benchmarks.samplers --workdir runs/ddpm-digits``.

Draws from one diffusion model by every sampler with few and many steps, judges the images as ``train.judge`` does, and
writes ``results/samplers-NAME.json``, a figure and the table in ``README.md`` of this folder. If an existing result has
the same features and number of images, its rows for other samplers and steps are kept.
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import quality
from train import sample
from train.run import features, load, logging, plots, process
from train.run.recipe import named

EVALUATIONS = {"heun": lambda steps: 2 * steps - 1, "pndm": lambda steps: steps + 9}
"""Number of network evaluations by number of steps, where the two differ."""
Name = Literal["ancestral", "ddim", "heun", "dpm_solver", "dpm_solver_sde", "pndm"]


@dataclasses.dataclass(frozen=True)
class Samplers:
    """Draw, judge, and write the table."""

    workdir: str = "runs/ddpm-digits"
    """Folder of a run of train.ddpm."""
    classifier: str = "runs/classifier-digits"
    """Folder of a run of train.classifier on the same data."""
    samplers: tuple[Name, ...] = ("ancestral", "ddim", "heun", "dpm_solver", "dpm_solver_sde", "pndm")
    """Samplers to measure."""
    steps: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    """Numbers of steps; those above the run's T are left out."""
    num: int = 0
    """Number of images; 0 for as many as are held out."""
    name: str = "digits"
    """Name of the table."""
    data_dir: str = ""
    """Folder of the data sets."""
    traceback: bool = False
    """Show where in the code an error arose."""


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Samplers, prog="python -m benchmarks.samplers", args=argv)
    run = load.record(pathlib.Path(settings.workdir).absolute(), named("ddpm"))
    extractor, classifier = features.from_classifier(settings.classifier, settings.data_dir)
    metrics = features.metrics(extractor, classifier, k=5)
    num = settings.num or len(metrics.real.heldout["image"])
    path = quality.HERE / "results" / f"samplers-{settings.name}.json"
    result = {"features": metrics.title, "num": num, "floor": metrics.reference(num)}
    rows: list[dict[str, Any]] = []
    for sampler, steps in itertools.product(settings.samplers, settings.steps):
        if steps > run.settings.timesteps:
            continue
        drawn = sample.draw(
            sample.Sample(settings.workdir, num=num, sampler=sampler, steps=steps, batch_size=min(num, 1000))
        )
        cost = EVALUATIONS.get(sampler, lambda steps: steps)(steps)
        rows.append({"sampler": sampler, "steps": steps, "evaluations": cost, **metrics.numbers(drawn)})
        logging.log(f"{sampler:15} {steps:5} steps  {cost:5} evaluations  Fréchet {rows[-1]['frechet']:.2f}")
        kept = _kept(path, result, rows)  # what is measured is kept, whatever comes after
        path.write_text(json.dumps({**result, "rows": [*kept, *rows]}, indent=1) + "\n", encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    _figure(path.with_suffix(".png"), settings, result)
    quality.write_table(f"samplers {settings.name}", table(result))


def _kept(path: pathlib.Path, result: dict[str, Any], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a comparable earlier result that were not measured again."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if {name: old.get(name) for name in result} != json.loads(json.dumps(result)):
        return []
    again = {(row["sampler"], row["steps"]) for row in rows}
    return [row for row in old["rows"] if (row["sampler"], row["steps"]) not in again]


def _samplers(result: dict[str, Any]) -> list[str]:
    """Samplers that have rows, in the default order."""
    return sorted({row["sampler"] for row in result["rows"]}, key=Samplers.samplers.index)


def table(result: dict[str, Any]) -> str:
    """Format the Fréchet distances as a Markdown table, a row for each sampler."""
    steps = sorted({row["steps"] for row in result["rows"]})
    lines = [f"| sampler | {' | '.join(f'{n} steps' for n in steps)} |", "|---" * (1 + len(steps)) + "|"]
    for name in _samplers(result):
        by_steps = {row["steps"]: row["frechet"] for row in result["rows"] if row["sampler"] == name}
        cells = [f"{by_steps[n]:.2f}" if n in by_steps else "" for n in steps]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    floor = " | ".join([f"{result['floor']['frechet']:.2f}"] * len(steps))
    return "\n".join([*lines, f"| real, held out | {floor} |"])


def _figure(path: pathlib.Path, settings: Samplers, result: dict[str, Any]) -> None:
    series = {}
    for name in _samplers(result):
        rows = sorted((row for row in result["rows"] if row["sampler"] == name), key=lambda row: row["steps"])
        series[name] = tuple(np.array([row[key] for row in rows]) for key in ("evaluations", "frechet"))
    title = f"{settings.name}, {result['num']} images; dashes: real, held out"
    labels = "network evaluations an image", "Fréchet distance of classifier features"
    plots.against(path, series, labels, title, result["floor"]["frechet"])


if __name__ == "__main__":
    process.main(main)
