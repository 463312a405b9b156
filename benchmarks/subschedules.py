"""Variational bounds with few steps: ``python -m benchmarks.subschedules --workdir runs/ddpm-digits``.

The bound of a trained DDPM at K of its T times: evenly spaced times, and the times that dynamic programming finds from
the squared errors of the whole chain (Watson et al. 2021). The errors are measured on training images, and the bound on
held-out images. Writes ``results/subschedules.json`` and the table in ``README.md``.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import quality
from genjax import data, diffusion
from genjax.diffusion import likelihood
from genjax.theory import information, pixels
from train import ddpm
from train.run import load, logging, process
from train.run.recipe import named

LEVELS = 17
"""Number of levels of a pixel of the digits."""


@dataclasses.dataclass(frozen=True)
class Subschedules:
    """Measure, and write the table."""

    workdir: str = "runs/ddpm-digits"
    """Folder of a run of train.ddpm on digits."""
    steps: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    """Values of K, at most the run's T."""
    seed: int = 0
    """Seed of the noise."""
    traceback: bool = False
    """Show where in the code an error arose."""


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Subschedules, prog="python -m benchmarks.subschedules", args=argv)
    run = load.record(pathlib.Path(settings.workdir).absolute(), named("ddpm"))
    model, schedule = ddpm.model(run.settings, run.shape), ddpm.schedule(run.settings)
    denoise = model.denoise(load.params(run, model.init))
    digits = data.digits()
    images = lambda rows: pixels.from_level(pixels.to_level(data.scale(jnp.asarray(rows["image"])), LEVELS), LEVELS)
    key = jax.random.key(settings.seed)

    def bound(times: np.ndarray, x: jax.Array) -> likelihood.VLB:
        few = diffusion.respace(denoise, schedule, times)
        return jax.jit(lambda x: likelihood.vlb(*few, key, x, num_levels=LEVELS))(x)

    errors = bound(np.arange(schedule.num_steps)[::-1], images(digits.train)[:500]).squared_error.mean(0)
    rows: list[dict[str, Any]] = []
    for count in settings.steps:
        even = diffusion.timesteps(schedule.num_steps, count, "linspace")
        best = likelihood.optimal_timesteps(schedule, np.asarray(errors), count)
        row: dict[str, Any] = {"steps": count, "times": best.tolist()}
        for name, times in (("even", even), ("best", best)):
            total = bound(times, images(digits.heldout)).total
            row[name] = float(information.bits_per_dim(total.mean(), int(np.prod(run.shape))))
        rows.append(row)
        logging.log(f"{count:4} steps: {row['even']:.3f} bits per dim at even times, {row['best']:.3f} at the best")
    path = quality.HERE / "results" / "subschedules.json"
    path.write_text(json.dumps(rows) + "\n", encoding="utf-8")
    quality.write_table("subschedules", table(rows))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the bounds as a Markdown table."""
    lines = ["| steps | at even times | at the best |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {row['steps']} | {row['even']:.3f} | {row['best']:.3f} |" for row in rows)])


if __name__ == "__main__":
    process.main(main)
