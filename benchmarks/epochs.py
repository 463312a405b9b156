"""Seconds per epoch of the notes' VAE: a Python loop over steps, one scan, and eight seeds in one scan.

``python -m benchmarks.epochs --out benchmarks/results/epochs.json``. The three are timed in turns, so that a busy
machine slows all of them, and the medians are reported. Before that their parameters are compared.
"""

import dataclasses
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from genjax.training import state, steps
from train import record, vae

SHAPE, STEPS, SEEDS = (28, 28, 1), 469, 8


@dataclasses.dataclass(frozen=True)
class Epochs:
    """Time epochs of 469 steps of 128 images, on random bytes: the speed does not depend on what they show."""

    repeats: int = 5
    """Epochs of each kind."""
    out: str = ""
    """Where to write the JSON."""


def kinds() -> dict[str, Callable[[], object]]:
    """The programs: each trains one epoch from the same start when called."""
    task = vae.build(vae.Config(batch_size=128), SHAPE)
    draw = steps.rows(128)
    step = steps.gradient_step(task.loss, task.optimizer[0])
    images = np.random.default_rng(0).integers(0, 256, (60_000, *SHAPE), dtype=np.uint8)
    rows = {"image": jnp.asarray(images)}
    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    start = jax.jit(jax.vmap(lambda key: state.create(task.init(key), task.optimizer[0])))(keys)
    first = jax.tree.map(lambda array: array[0], start)
    one = jax.jit(lambda key, carry, rows: step(jax.random.fold_in(key, carry.step), carry, draw(key, carry, rows)))
    epoch = steps.repeat(step, draw, STEPS)
    scan, many = jax.jit(epoch), jax.jit(jax.vmap(epoch, (0, 0, None)))

    def loop():
        carry = first
        for _ in range(STEPS):
            carry, metrics = one(keys[0], carry, rows)
            metrics["loss"].item()  # as a trainer that shows its loss does
        return carry

    return {
        "python loop": loop,
        "one scan": lambda: scan(keys[0], first, rows)[0],
        f"{SEEDS} seeds in one scan": lambda: jax.tree.map(lambda a: a[0], many(keys, start, rows)[0]),
    }


def measure(repeats: int) -> dict[str, object]:
    """Median seconds of each kind, in turns, after a first call that compiles."""
    programs = kinds()
    ends = {name: jax.block_until_ready(program()) for name, program in programs.items()}
    leaves = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(end.params)]) for end in ends.values()]
    spread = max(float(np.abs(leaf - leaves[0]).max()) for leaf in leaves)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            before = time.perf_counter()
            jax.block_until_ready(program())
            seconds[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds_per_epoch": medians,
        "seconds_per_epoch_and_seed": medians[f"{SEEDS} seeds in one scan"] / SEEDS,
        "all": seconds,
        "largest_difference_of_parameters": spread,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def main(argv: Sequence[str]) -> None:
    """Measure, print, and write where asked."""
    settings = tyro.cli(Epochs, prog="python -m benchmarks.epochs", args=argv)
    found = measure(settings.repeats)
    text = json.dumps(found, indent=1)
    record.say(text)
    if settings.out:
        pathlib.Path(settings.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
