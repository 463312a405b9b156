"""Image editing by a diffusion model: ``python -m benchmarks.editing --workdir runs/ddpm-digits``.

Inpainting of the lower halves of held-out digits (RePaint); redrawing of digits in blocks of four pixels (SDEdit);
interpolation between digits through their noise (DDIM inversion, spherical interpolation). Writes
``results/editing.json``, three pictures, and the table in ``README.md``.
"""

import dataclasses
import functools
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
from train import ddpm
from train.run import load, process, sheets
from train.run.recipe import named

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Editing:
    """Inpaint, redraw, interpolate, and write the table."""

    workdir: str = "runs/ddpm-digits"
    """Folder of a run of train.ddpm on digits."""
    num: int = 12
    """Number of digits in a row of the pictures; the numbers are over all held-out digits."""
    steps: int = 50
    """Number of steps of the chains."""
    resample: tuple[int, ...] = (1, 5, 20)
    """Numbers of resampling passes of RePaint."""
    strengths: tuple[float, ...] = (0.2, 0.35, 0.5)
    """Strengths of SDEdit."""
    iterations: int = 10
    """Number of fixed-point iterations of each step of the inversion."""
    traceback: bool = False
    """Show where in the code an error arose."""


Band = tuple[dict[str, Any], list[jax.Array]]
"""Numbers, and rows of images."""


def fill_in(denoise: diffusion.Denoise, grid: diffusion.Grid, originals: jax.Array, settings: Editing) -> Band:
    """Inpaint the lower halves; squared errors by the number of passes, and of the mean image."""
    half = jnp.arange(originals.shape[1])[:, None, None] < originals.shape[1] // 2
    hidden = lambda images: float(jnp.mean((images - originals)[:, originals.shape[1] // 2 :] ** 2))
    rows, errors = [originals, jnp.where(half, originals, 0.0)], {}
    start = jax.random.normal(jax.random.key(1), originals.shape)
    for times in settings.resample:
        sample = jax.jit(diffusion.repaint(denoise, grid, originals, half, resample=times))
        rows.append(sample(KEY, start))
        errors[f"walked {times} times"] = hidden(rows[-1])
    return {**errors, "mean image": hidden(jnp.broadcast_to(originals.mean(0), originals.shape))}, rows


def redraw(denoise: diffusion.Denoise, grid: diffusion.Grid, originals: jax.Array, settings: Editing) -> Band:
    """Redraw digits given in blocks of 2x2 pixels; squared distances to the digits, before and after."""
    b, h, w, c = originals.shape
    blocks = originals.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4), keepdims=True)
    coarse = jnp.broadcast_to(blocks, (b, h // 2, 2, w // 2, 2, c)).reshape(originals.shape)
    rows, errors = [originals, coarse], {"before": float(jnp.mean((coarse - originals) ** 2))}
    sampler = functools.partial(diffusion.ddim_on_grid, denoise, eta=1.0)
    for strength in settings.strengths:
        rows.append(jax.jit(diffusion.sdedit(sampler, grid, strength))(KEY, coarse))
        errors[f"strength {strength:g}"] = float(jnp.mean((rows[-1] - originals) ** 2))
    return errors, rows


def mix(denoise: diffusion.Denoise, grid: diffusion.Grid, originals: jax.Array, settings: Editing) -> Band:
    """Interpolate between pairs of digits; squared error of the ends."""
    there = jax.jit(diffusion.invert(denoise, grid, iterations=settings.iterations))
    back = jax.jit(diffusion.ddim_on_grid(denoise, grid, clip=False))
    noise = there(KEY, originals)
    pairs = settings.num // 3
    shares = np.linspace(0, 1, settings.num)
    rows = [
        back(
            KEY,
            jnp.concatenate([diffusion.slerp(noise[i : i + 1], noise[pairs + i : pairs + i + 1], s) for s in shares]),
        )
        for i in range(pairs)
    ]
    ends = {"on the same grid": float(jnp.mean((back(KEY, noise) - originals) ** 2))}
    return ends, rows


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Editing, prog="python -m benchmarks.editing", args=argv)
    run = load.record(pathlib.Path(settings.workdir).absolute(), named("ddpm"))
    model, schedule = ddpm.model(run.settings, run.shape), ddpm.schedule(run.settings)
    denoise = model.denoise(load.params(run, model.init))
    on = lambda spacing: diffusion.on_times(schedule, diffusion.timesteps(schedule.num_steps, settings.steps, spacing))
    grid, gentle = on("trailing"), on("leading")  # an inversion wants σ̄ to fall by no more than a few times a step
    originals = data.scale(jnp.asarray(data.digits().heldout["image"]))
    folder, result = quality.HERE / "results", {}
    for name, band, where in (("fill in", fill_in, grid), ("redraw", redraw, grid), ("mix", mix, gentle)):
        result[name], rows = band(denoise, where, originals, settings)
        images = np.concatenate([np.asarray(data.to_uint8(row))[: settings.num] for row in rows])
        sheets.save(folder / f"editing-{name.replace(' ', '-')}.png", sheets.tile(images, settings.num))
    (folder / "editing.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    quality.write_table("editing", table(result))


def table(result: dict[str, dict[str, float]]) -> str:
    """Format the numbers as a Markdown table."""
    lines = ["| what | how | squared error |", "|---|---|---|"]
    titles = {
        "fill in": "hidden halves, filled in",
        "redraw": "digits in blocks of 2x2, redrawn",
        "mix": "digits, to noise and back",
    }
    for name, numbers in result.items():
        lines += [f"| {titles[name]} | {how} | {value:.2g} |" for how, value in numbers.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    process.main(main)
