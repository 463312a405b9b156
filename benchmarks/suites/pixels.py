"""Drawing an image pixel by pixel: our cached scan, the network anew for every pixel, and a cached PyTorch loop.

All have the same weights (black and white pixels, a masked 7×7 and residual blocks) and the same random numbers, and
must draw the same images.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness, peers
from genjax import random
from genjax.models import autoregressive
from genjax.nn.pixelcnn import PixelCNN
from genjax.theory import pixels
from genjax.types import Key, Params

Variant = harness.Variant
OURS = "genjax: one scan, every number once"
ANEW = "JAX: the whole network for every pixel, jitted"
THEIRS = "PyTorch: a loop that computes every number once"


class Size(NamedTuple):
    """Height and width, numbers of images at once, and features and blocks of the network."""

    side: int
    batches: tuple[int, ...]
    features: int
    blocks: int


SIZES = {
    "toy": Size(8, (2,), 4, 1),
    "cpu": Size(28, (1, 16), 16, 5),
    "gpu": Size(28, (1, 16, 64), 16, 5),
}


def cases(size: Size, device: str) -> Iterator[harness.Case]:
    """Yield the cases."""
    network = PixelCNN(1, features=size.features, num_blocks=size.blocks)
    for num in size.batches:
        yield _drawing(network, size.side, num, device)


def uniforms(key: Key, num: int, side: int) -> jax.Array:
    """Uniform numbers [num side·side] that decide the pixels, as our sampler draws them."""
    draw = lambda key, i: jax.random.uniform(jax.random.fold_in(key, i), (1, 1, 1))[0, 0, 0]
    keys = random.example_keys(key, num)
    return jax.vmap(lambda key: jax.vmap(lambda i: draw(key, i))(jnp.arange(side * side)))(keys)


def naive(network: PixelCNN, side: int, params: Params, noise: jax.Array) -> jax.Array:
    """Sample by evaluating the whole network for every pixel."""
    num = len(noise)

    def pixel(i: jax.Array, images: jax.Array) -> jax.Array:
        logits = jnp.asarray(network.apply({"params": params}, images.reshape(num, side, side, 1)))
        white = noise[:, i] < jax.nn.sigmoid(logits.reshape(num, -1)[:, i])
        return images.at[:, i].set(jnp.where(white, 1.0, -1.0))

    return jax.lax.fori_loop(0, side * side, pixel, jnp.zeros((num, side * side)))


def _drawing(network: PixelCNN, side: int, num: int, device: str) -> harness.Case:
    model, key = autoregressive.build(network, pixels.bernoulli(), (side, side, 1)), jax.random.key(num)
    params = jax.tree.map(lambda p: 2 * p, jax.jit(model.init)(key))  # so that pixels depend on each other
    noise = jax.jit(uniforms, static_argnums=(1, 2))(key, num, side)
    sample = jax.jit(lambda params: model.sample(key, params, num).reshape(num, -1))
    anew = jax.jit(lambda params, noise: naive(network, side, params, noise))

    def theirs() -> harness.Run:
        loop, notes = peers.adapter("pixelwise"), peers.adapter("notes")
        return lambda: loop.sample(network, side, params, np.asarray(noise), notes.device(device))

    def check(outputs: Any) -> dict[str, float]:
        different = {
            name: float((np.asarray(out) != np.asarray(outputs[OURS])).mean()) for name, out in outputs.items()
        }
        assert max(different.values()) < 1e-3, f"the samplers draw different images: {different}"
        return {f"share of other pixels, {name}": share for name, share in different.items() if name != OURS}

    variants = [
        Variant(OURS, lambda: lambda: sample(params).block_until_ready()),
        Variant(ANEW, lambda: lambda: anew(params, noise).block_until_ready()),
    ]
    variants += [Variant(THEIRS, theirs)] if peers.adapter("pixelwise") else []
    return harness.Case(f"{side}x{side}, batch {num}", "draw", 1, variants, check)
