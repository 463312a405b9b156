"""Drawing an image pixel by pixel: our cached scan, the network anew for every pixel, and a cached PyTorch loop.

``python -m benchmarks.pixels --out benchmarks/results/pixels.json``. All three have the same weights (28×28 black and
white pixels, a masked 7×7 and residual blocks) and the same random numbers, and must draw the same images before they
are timed, in turns, so that a busy machine slows all of them. Without torch that part is left out.
"""

import dataclasses
import importlib
import importlib.util
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from genjax import random
from genjax.models import autoregressive
from genjax.nn.pixelcnn import PixelCNN
from genjax.theory import pixels
from genjax.types import Key, Params

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None

SIDE = 28
NETWORK = PixelCNN(1, features=16, blocks=5)


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Time samplers of the same images."""

    batches: tuple[int, ...] = (1, 16)
    """Images at a time."""
    repeats: int = 5
    """Of each sampler."""
    out: str = ""
    """Where to write the JSON."""


def uniforms(key: Key, num: int) -> jax.Array:
    """The numbers in [0, 1) that decide the pixels, [num 784]: those that our sampler draws."""
    draw = lambda key, place: jax.random.uniform(jax.random.fold_in(key, place), (1, 1, 1))[0, 0, 0]
    keys = random.per_example(key, num)
    return jax.vmap(lambda key: jax.vmap(lambda place: draw(key, place))(jnp.arange(SIDE * SIDE)))(keys)


def naive(params: Params, noise: jax.Array) -> jax.Array:
    """The whole network for every pixel."""
    num = len(noise)

    def pixel(i, images):
        logits = jnp.asarray(NETWORK.apply({"params": params}, images.reshape(num, SIDE, SIDE, 1)))
        white = noise[:, i] < jax.nn.sigmoid(logits.reshape(num, -1)[:, i])
        return images.at[:, i].set(jnp.where(white, 1.0, -1.0))

    return jax.lax.fori_loop(0, SIDE * SIDE, pixel, jnp.zeros((num, SIDE * SIDE)))


def pytorch(params: Params, noise: np.ndarray) -> np.ndarray:
    """A loop over pixels that computes each number once, in windows, as our sampler does."""
    num, tensor = len(noise), lambda array: torch.from_numpy(np.array(array))
    masked = lambda name, kind: _masked(np.asarray(params[name]["kernel"]), kind)
    spatial = {"first": (masked("first", "A"), params["first"]["bias"])}
    spatial |= {f"convs_{i}": (masked(f"convs_{i}", "B"), params[f"convs_{i}"]["bias"]) for i in range(NETWORK.blocks)}
    kernels = {name: tensor(kernel.reshape(-1, kernel.shape[-1])) for name, (kernel, _) in spatial.items()}
    sizes = {name: kernel.shape for name, (kernel, _) in spatial.items()}
    points = [*(f"{part}_{i}" for part in ("narrow", "wide") for i in range(NETWORK.blocks)), "head_in", "head_out"]
    dense = {name: tensor(params[name]["kernel"][0, 0]) for name in points}
    bias = {name: tensor(params[name]["bias"]) for name in (*points, *spatial)}
    windows = {name: torch.zeros(num, s[0], SIDE + s[1] - 1, s[2]) for name, s in sizes.items()}
    images, given = torch.zeros(num, SIDE, SIDE), tensor(noise)

    def convolve(name: str, x: Any, column: int) -> Any:
        rows, size = sizes[name][:2]
        windows[name][:, -1, column + size // 2] = x
        patch = windows[name][:, :, column : column + size].reshape(num, -1)
        return torch.addmm(bias[name], patch, kernels[name])

    def point(name: str, x: Any) -> Any:
        return torch.addmm(bias[name], x, dense[name])

    blank = torch.zeros(num, 1)
    with torch.inference_mode():
        for row in range(SIDE):
            for name, window in windows.items():
                if row and name == "first":
                    window[:, -1, 3 : 3 + SIDE, 0] = images[:, row - 1]
                windows[name] = torch.cat([window[:, 1:], torch.zeros_like(window[:, :1])], 1)
            for column in range(SIDE):
                if column:
                    windows["first"][:, -1, column + 2, 0] = images[:, row, column - 1]
                x = convolve("first", blank, column)
                for i in range(NETWORK.blocks):
                    y = convolve(f"convs_{i}", torch.relu(point(f"narrow_{i}", torch.relu(x))), column)
                    x = x + point(f"wide_{i}", torch.relu(y))
                logit = point("head_out", torch.relu(point("head_in", torch.relu(x))))[:, 0]
                drawn = given[:, row * SIDE + column] < torch.sigmoid(logit)
                images[:, row, column] = torch.where(drawn, 1.0, -1.0)
    return images.numpy().reshape(num, -1)


def _masked(kernel: np.ndarray, kind: str) -> np.ndarray:
    kernel = kernel.copy()
    kernel[-1, kernel.shape[1] // 2 + (kind == "B") :] = 0
    return kernel


def measure(num: int, repeats: int) -> dict[str, Any]:
    """Seconds of each sampler for ``num`` images at once, medians of some in turns."""
    model = autoregressive.build(NETWORK, pixels.bernoulli(), (SIDE, SIDE, 1))
    key = jax.random.key(num)
    params = jax.tree.map(lambda p: 2 * p, jax.jit(model.init)(key))  # so that pixels depend on each other
    sample, anew = jax.jit(lambda key: model.sample(key, params, num)), jax.jit(lambda noise: naive(params, noise))
    noise = jax.jit(uniforms, static_argnums=1)(key, num)
    samplers: dict[str, Callable[[], Any]] = {"cached scan": lambda: sample(key).reshape(num, -1)}
    samplers["network for every pixel, jitted"] = lambda: anew(noise)
    if torch:
        samplers["cached PyTorch loop"] = lambda: pytorch(params, np.asarray(noise))
    drawn = {name: np.asarray(sampler()) for name, sampler in samplers.items()}
    ours = drawn.pop("cached scan")
    agreement = {name: float((images == ours).mean()) for name, images in drawn.items()}
    assert min(agreement.values()) > 0.999, f"the samplers draw different images: {agreement}"
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(repeats):
        for name, sampler in samplers.items():
            before = time.perf_counter()
            jax.block_until_ready(sampler())
            seconds[name].append(time.perf_counter() - before)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "batch": num,
        "milliseconds": {name: 1e3 * value for name, value in medians.items()},
        "times_faster": {name: value / medians["cached scan"] for name, value in medians.items()},
        "agreement_of_pixels": agreement,
        "all": seconds,
    }


def main(argv: Sequence[str]) -> None:
    """Measure, print, and write where asked."""
    settings = tyro.cli(Pixels, prog="python -m benchmarks.pixels", args=argv)
    found = {
        "rows": [measure(num, settings.repeats) for num in settings.batches],
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "torch": torch.__version__ if torch else "absent: its loop is left out",
    }
    text = json.dumps(found, indent=1)
    print(text)
    if settings.out:
        pathlib.Path(settings.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
