"""Differences that cancel, written so that they do not: each is 0 or more, and right to rounding however small.

Where the arguments lie close, the leading terms are taken off by hand and the rest is a power series; elsewhere the
plain formula loses nothing.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Values = Float[Array, "..."]

SURE = 0.75
"""At most one outcome is so likely, and its log is that of 1 less the others."""

NEAR = 0.1
"""The series in z² are used up to here: eight of their terms are exact in float64."""


@jax.jit
def kl_div(p: Values, q: Values) -> Values:
    """p log(p / q) - p + q ≥ 0, of numbers p, q ≥ 0: ∞ where only q is 0. As ``bd0`` of Loader 2000.

    With z = (p - q) / (p + q), log(p / q) = 2 (z + z³/3 + z⁵/5 + ...), and 2 p z - p + q = (p - q) z.

    >>> float(kl_div(jnp.float32(0.5), jnp.float32(0.5005)))  # (0.0005)² / (2 · 0.5) in the main
    2.498...e-07
    """
    z = _contrast(p, q)
    near = jnp.abs(z) < NEAR
    inner = jnp.where(near, z, 0)
    series = (p - q) * inner + 2 * p * inner**3 * _polynomial(inner**2, [1 / (2 * k + 3) for k in range(8)])
    larger, smaller = jnp.maximum(p, q), jnp.minimum(p, q)
    apart = (smaller > 0) & ~near
    log_ratio = jnp.sign(p - q) * jnp.log(jnp.where(apart, larger, 1) / jnp.where(apart, smaller, 1))
    plain = jnp.where(smaller > 0, p * log_ratio - p + q, jnp.where(p > 0, jnp.inf, q))
    return jnp.where(near, series, plain)


@jax.jit
def jensen_shannon(p: Values, q: Values) -> Values:
    """p log(p / m) + q log(q / m) with m = (p + q) / 2, from 0 to (p + q) log 2.

    It is m ((1 + z) log(1 + z) + (1 - z) log(1 - z)), z = (p - q) / (p + q), of which z² + z⁴/6 + z⁶/15 + ... is left.
    """
    z = _contrast(p, q)
    near = jnp.abs(z) < NEAR
    inner, outer = jnp.where(near, z, 0), jnp.minimum(jnp.abs(jnp.where(near, 0, z)), 1)
    series = inner**2 * _polynomial(inner**2, [1 / ((k + 1) * (2 * k + 1)) for k in range(8)])
    only = outer == 1
    plain = (1 + outer) * jnp.log1p(outer) + (1 - outer) * jnp.log1p(jnp.where(only, 0, -outer))
    return (p / 2 + q / 2) * jnp.where(near, series, plain)


@jax.jit
def expm1_minus_x(u: Values) -> Values:
    """e^u - 1 - u ≥ 0."""
    inner = jnp.where(jnp.abs(u) < 0.5, u, 0)
    series = inner**2 * _polynomial(inner, [1 / math.factorial(k + 2) for k in range(13)])
    return jnp.where(jnp.abs(u) < 0.5, series, jnp.expm1(u) - u)


def surprisal(q: Values, axis: int | tuple[int, ...]) -> Values:
    """-log q ≥ 0, +∞ at 0; of what is nearly sure from the probability of all else."""
    sure = q > SURE
    others = jnp.sum(jnp.where(sure, 0, q), axis, keepdims=True)
    plain = jnp.where(q > 0, 0 - jnp.log(jnp.where(q > 0, q, 1)), jnp.inf)
    return jnp.where(sure, 0 - jnp.log1p(-jnp.where(sure, others, 0)), plain)


def weighted(p: Values, surprisal: Values) -> Values:
    """p · surprisal, 0 where p is, also of +∞."""
    return jnp.where(p > 0, p * jnp.where(p > 0, surprisal, 0), 0)


def safe_divide(a: Values, b: Values) -> Values:
    """a / b, 0 where b is."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def with_gradient_of(value: Values, like: Values) -> Values:
    """``value``, whose derivative is that of ``like``, a plain formula for the same number."""
    return jax.lax.stop_gradient(value) + jnp.where(jnp.isfinite(like), like - jax.lax.stop_gradient(like), 0)


def _contrast(p: Values, q: Values) -> Values:
    """(p - q) / (p + q), 0 where both are 0."""
    total = p + q
    return jnp.where(total > 0, (p - q) / jnp.where(total > 0, total, 1), 0)


def _polynomial(x: Values, coefficients: list[float]) -> Values:
    return jnp.polyval(jnp.asarray(coefficients[::-1], x.dtype), x)
