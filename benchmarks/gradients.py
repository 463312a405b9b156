"""Gradients through the reverse chain: ``python -m benchmarks.gradients --workdir runs/ddpm-digits``.

Memory of reverse mode through T steps, with and without checkpointed segments, as XLA reports it; a noise grid tuned by
gradient for an exactly known denoiser; and an inverse problem solved through the sampler of a trained run: digits whose
upper half is observed. Writes ``results/gradients.json`` and pictures, and the tables in ``README.md``.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from benchmarks import quality
from genjax import data, diffusion, random
from train import ddpm
from train.run import load, process, sheets
from train.run.recipe import named


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Measure, tune, solve, and write the tables."""

    workdir: str = "runs/ddpm-digits"
    """Folder of a run of train.ddpm on digits."""
    lengths: tuple[int, ...] = (10, 100, 1000)
    """Values of T in the table of memory."""
    places: int = 8
    """Number of points K of the tuned grid."""
    tuning: int = 300
    """Number of steps of Adam on the grid."""
    solving: int = 200
    """Number of steps of Adam on the noise of the inverse problem."""
    chain: int = 20
    """Number of steps of the chain of the inverse problem."""
    seed: int = 0
    """Seed of the noise."""
    traceback: bool = False
    """Show where in the code an error arose."""


def memory(run: load.Record, params: Any, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Measure the memory that XLA allocates for the gradient of 8 images with respect to x_T, in bytes."""
    rows = []
    for length in lengths:
        config = dataclasses.replace(run.settings, timesteps=length)
        model = ddpm.model(config, run.shape)
        sample = diffusion.ancestral(model.denoise(params), ddpm.schedule(config))
        segment = round(math.sqrt(length))
        row: dict[str, Any] = {"T": length, "segment": segment}
        for name, cut in (("whole", None), ("segments", segment)):
            loss = lambda x, sample=sample, cut=cut: (sample(jax.random.key(0), x, segment=cut) ** 2).sum()
            compiled = jax.jit(jax.grad(loss)).lower(jnp.zeros((8, *run.shape))).compile()
            row[name] = compiled.memory_analysis().temp_size_in_bytes
        rows.append(row)
    return rows


def tune(images: jax.Array, settings: Gradients) -> dict[str, Any]:
    """Tune a grid of K points, so that the end of its Euler chain is near the end of the exact flow.

    The data distribution is a mixture of narrow Gaussians at the training images, for which E[x_0|x] is known. The
    parameters are the gaps of log σ between fixed ends; the start is Karras' spacing.
    """
    flat, blur = images.reshape(len(images), -1), 0.05

    def denoise(x: jax.Array, time: jax.Array) -> jax.Array:
        noise = time[:, None]
        total = noise**2 + blur**2
        share = jax.nn.softmax(-0.5 * jnp.sum((x[:, None] - flat) ** 2, -1) / total, -1)
        x0 = x + noise**2 / total * (share @ flat - x)
        return (x - x0) / noise

    def grid(gaps: jax.Array) -> diffusion.Grid:
        low, high = math.log(0.02), math.log(20.0)
        inner = high - (high - low) * jnp.cumsum(jax.nn.softmax(gaps))
        noise = jnp.concatenate([jnp.array([20.0]), jnp.exp(inner), jnp.zeros(1)])
        return diffusion.Grid(noise, jnp.ones_like(noise), noise)

    start = 20 * random.normal(random.example_keys(jax.random.key(settings.seed), 128), flat.shape[1:])
    train, test = start[:64], start[64:]
    end = jax.jit(
        lambda x: diffusion.heun(denoise, diffusion.karras(120, 0.02, 20.0), clip=False)(jax.random.key(0), x)
    )
    train_end, test_end = end(train), end(test)

    def error(gaps: jax.Array, x: jax.Array, target: jax.Array) -> jax.Array:
        return jnp.mean((diffusion.ddim_on_grid(denoise, grid(gaps), clip=False)(jax.random.key(0), x) - target) ** 2)

    noise = diffusion.karras(settings.places, 0.02, 20.0).sigma[:-1]
    gaps = jnp.log(jnp.asarray(-np.diff(np.log(noise)), jnp.float32))
    adam = optax.adam(0.03)

    def step(state: Any, _: None) -> tuple[Any, Any]:
        gaps, opt_state = state
        value, gradient = jax.value_and_grad(error)(gaps, train, train_end)
        updates, opt_state = adam.update(gradient, opt_state)
        return (gaps + updates, opt_state), value

    run = jax.jit(lambda state: jax.lax.scan(step, state, length=settings.tuning))
    tuned = run((gaps, adam.init(gaps)))[0][0]
    return {
        "places": settings.places,
        "karras": float(error(gaps, test, test_end)),
        "tuned": float(error(tuned, test, test_end)),
        "karras_noise": noise.tolist(),
        "tuned_noise": np.asarray(grid(tuned).sigma)[:-1].tolist(),
    }


def solve(run: load.Record, params: Any, images: np.ndarray, settings: Gradients) -> tuple[dict[str, Any], np.ndarray]:
    """Reconstruct digits from their upper halves, by gradient through the chain; return errors and pictures."""
    model = ddpm.model(run.settings, run.shape)
    schedule = ddpm.schedule(run.settings)
    grid = diffusion.on_times(schedule, diffusion.timesteps(schedule.num_steps, settings.chain, "trailing"))
    draw = lambda x: diffusion.ddim_on_grid(model.denoise(params), grid)(jax.random.key(0), x, segment=5)
    originals = data.scale(jnp.asarray(images))
    known = jnp.zeros(run.shape).at[: run.shape[0] // 2].set(1)

    def loss(x: jax.Array) -> jax.Array:
        """Sum of the misfit of the observed half and the negative log prior of x_T."""
        misfit = jnp.sum(known * (draw(x) - originals) ** 2, (1, 2, 3))
        return jnp.sum(misfit / 0.1 + 0.5 * jnp.sum(x**2, (1, 2, 3)))

    adam = optax.adam(optax.cosine_decay_schedule(0.1, settings.solving))

    def step(state: Any, _: None) -> tuple[Any, Any]:
        x, opt_state = state
        updates, opt_state = adam.update(jax.grad(loss)(x), opt_state)
        return (x + updates, opt_state), None

    x = random.normal(random.example_keys(jax.random.key(settings.seed), len(images)), run.shape)
    run_all = jax.jit(lambda x: jax.lax.scan(step, (x, adam.init(x)), length=settings.solving))
    result = draw(run_all(x)[0][0])
    half = lambda image, mask: float(jnp.sum(mask * (image - originals) ** 2) / jnp.sum(mask) / len(images))
    masked = jnp.where(known > 0, originals, 0.0)
    rows = np.concatenate([np.asarray(data.to_uint8(part)) for part in (originals, masked, result)])
    numbers = {"images": len(images), "seen": half(result, known), "hidden": half(result, 1 - known)}
    return numbers | {"mean_image": half(jnp.broadcast_to(originals.mean(0), originals.shape), 1 - known)}, rows


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Gradients, prog="python -m benchmarks.gradients", args=argv)
    run = load.record(pathlib.Path(settings.workdir).absolute(), named("ddpm"))
    params = load.params(run, ddpm.model(run.settings, run.shape).init)
    digits = data.digits()
    result: dict[str, Any] = {"memory": memory(run, params, settings.lengths)}
    result["grid"] = tune(data.scale(jnp.asarray(digits.train["image"][:500])), settings)
    result["inverse"], rows = solve(run, params, digits.heldout["image"][:12], settings)
    folder = quality.HERE / "results"
    (folder / "gradients.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sheets.save(folder / "inverse-problem.png", sheets.tile(rows, 12))
    quality.write_table("gradients", table(result))


def table(result: dict[str, Any]) -> str:
    """Format the numbers as Markdown tables."""
    lines = ["| T | memory of the gradient, MiB | in segments of √T |", "|---|---|---|"]
    for row in result["memory"]:
        lines.append(f"| {row['T']} | {row['whole'] / 2**20:.1f} | {row['segments'] / 2**20:.1f} |")
    grid, inverse = result["grid"], result["inverse"]
    lines += ["", f"| Euler, {grid['places']} steps | squared error of the end, other noise |", "|---|---|"]
    lines += [f"| Karras' spacing | {grid['karras']:.5f} |", f"| tuned by gradient | {grid['tuned']:.5f} |", ""]
    lines += ["| half of the digit | squared error |", "|---|---|", f"| seen | {inverse['seen']:.4f} |"]
    lines += [f"| hidden | {inverse['hidden']:.4f} |", f"| hidden, by the mean image | {inverse['mean_image']:.4f} |"]
    return "\n".join(lines)


if __name__ == "__main__":
    process.main(main)
