"""Sinusoidal embeddings of time: a number becomes a vector of sines and cosines of many frequencies.

Two variants are in use. They differ in order and in the lowest frequency; weights trained with one do not work with the
other.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genjax import checks

Times = Int[Array, " b"] | Float[Array, " b"]
"""Times of the examples, in steps and not as fractions of the chain."""


def sinusoidal(t: Times, features: int) -> Float[Array, "b features"]:
    """Compute [sin(ω_i t), cos(ω_i t)] with ω_i = 10000^(-i / (n - 1)), i = 0, ..., n - 1, n = features / 2.

    This is the embedding of the code of Ho et al. 2020 and of the lecture notes. In Vaswani et al. 2017, §3.5, the
    exponent is -i / n, and sines and cosines alternate.

    Args:
      t: times [b].
      features: 2n, even and at least 4.

    Raises:
      ValueError: ``features`` is odd or below 4.
    """
    angles = _angles(t, features, features // 2 - 1)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sinusoidal_cosine_first(t: Times, features: int) -> Float[Array, "b features"]:
    """Compute [cos(ω_i t), sin(ω_i t)] with ω_i = 10000^(-i / n), i = 0, ..., n - 1, n = features / 2.

    This is the embedding of the code of Nichol & Dhariwal 2021 and of most later codes, with the frequencies of Vaswani
    et al. 2017, §3.5.

    Args:
      t: times [b].
      features: 2n, even and at least 4.

    Raises:
      ValueError: ``features`` is odd or below 4.
    """
    angles = _angles(t, features, features // 2)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def _angles(t: Times, features: int, span: int) -> Float[Array, "b half"]:
    if features < 4 or features % 2:
        raise ValueError(f"features: expected an even number from 4 up, got {features}; use {max(4, features + 1)}")
    checks.finite("t", t)
    dtype = jnp.promote_types(t.dtype, jnp.float32)
    return t.astype(dtype)[:, None] * jnp.exp(-math.log(10000) / span * jnp.arange(features // 2, dtype=dtype))
