"""Pixels at evenly spaced levels in [-1, 1], and the logistic distribution over the bins of the levels."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks


def to_level(images: Any, num_levels: int) -> Int[Array, "*shape"]:
    """Index of the nearest level, 0, ..., num_levels - 1; the levels are evenly spaced in [-1, 1].

    Raises:
      ValueError: ``num_levels`` is below 2; or the images are no floating-point numbers, or not finite.
    """
    check_num_levels(num_levels)
    checks.floats("images", images)
    return jnp.round((images + 1) / 2 * (num_levels - 1)).astype(jnp.int32)


def from_level(level: Any, num_levels: int) -> Float[Array, "*shape"]:
    """Pixel value of a level, in [-1, 1].

    Raises:
      ValueError: ``num_levels`` is below 2, or a level is outside [0, num_levels).
    """
    check_num_levels(num_levels)
    checks.integers("level", level, 0, num_levels)
    return jnp.asarray(level, jnp.float32) / (num_levels - 1) * 2 - 1


def check_levels(images: Any, num_levels: int) -> None:
    """Refuse images whose pixels are not at the levels, to the rounding of bytes; outside ``jit`` only.

    Raises:
      ValueError: some pixels are elsewhere; the message has their number.
    """
    if not num_levels or not checks.is_concrete(images):
        return
    exact = (np.asarray(images, np.float64) + 1) / 2 * (num_levels - 1)
    tolerance = min(0.5 * (num_levels - 1) / 255, 0.25) + 1e-3
    near = np.abs(exact - np.clip(np.rint(exact), 0, num_levels - 1)) <= tolerance
    if wrong := int(np.sum(~near)):
        raise ValueError(
            f"images: expected pixels at {num_levels} levels between -1 and 1, evenly spaced; {wrong} of {exact.size} "
            "are elsewhere: round them to the levels, or use a likelihood with the levels of the images"
        )


def logistic_bin(
    x: Float[Array, "..."], mean: Float[Array, "..."], log_scale: Float[Array, "..."], half: float
) -> Float[Array, "..."]:
    """log of the logistic probability of (x - half, x + half); the outer side is open where x is -1 or 1.

    Raises:
      ValueError: ``half`` is not positive, or ``mean`` or ``log_scale`` is no floating-point array.
    """
    checks.positive("half", half)
    checks.floating("mean", mean)
    checks.floating("log_scale", log_scale)
    inverse = exp(-log_scale)
    upper, lower = (x + half - mean) * inverse, (x - half - mean) * inverse
    log_width = math.log(2 * half) - log_scale
    inner = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + _log_one_minus_exp(log_width)
    outer = jnp.where(x < 0, jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower))
    return jnp.where(jnp.abs(x) > 1 - half, outer, inner)


def _log_one_minus_exp(log_x: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 - e^{-x}) from log x, to full precision at both ends (Mächler 2012): for small x it is log x."""
    is_small = log_x < math.log(math.log(2))
    small, large = jnp.exp(jnp.where(is_small, jnp.maximum(log_x, -30), -1)), exp(jnp.where(is_small, 0, log_x))
    return jnp.where(is_small, log_x + jnp.log(-jnp.expm1(-small) / small), jnp.log1p(-jnp.exp(-large)))


def exp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """eˣ with x clipped to [-60, 60]: never 0 and never infinite."""
    return jnp.exp(jnp.clip(x, -60, 60))


def mean_level(mean: Float[Array, "..."], log_scale: Float[Array, "..."], num_levels: int) -> Float[Array, "..."]:
    """Mean of a discretised logistic over the levels."""
    inverse, unit = exp(-log_scale) / 2, 2 / (num_levels - 1)
    add = lambda i, total: total + jnp.tanh((mean - (i + 0.5) * unit + 1) * inverse)
    return jax.lax.fori_loop(0, num_levels - 1, add, jnp.zeros_like(mean)) / (num_levels - 1)


def nearest(x: Float[Array, "*shape"], num_levels: int) -> Float[Array, "*shape"]:
    """Round pixels to the nearest level."""
    unit = 2 / (num_levels - 1)
    return jnp.clip(jnp.round((x + 1) / unit) * unit - 1, -1, 1)


def check_num_levels(num_levels: int) -> None:
    """Refuse numbers of levels below 2."""
    if num_levels < 2:
        raise ValueError(f"num_levels: expected at least 2, got {num_levels}")
