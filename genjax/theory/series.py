"""Divergence terms without cancellation: each is ≥ 0 and exact to rounding, however small.

For close arguments the leading terms are subtracted by hand and the rest is a power series. For all others the plain
formula is exact.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Values = Float[Array, "..."]

LIKELY = 0.75
"""Probability from which log q is computed from the sum of all other probabilities."""

NEAR = 0.1
"""Largest |z| of the series in z²: eight of their terms are exact in float64."""


@jax.jit
def kl_div(p: Values, q: Values) -> Values:
    """p log(p / q) - p + q ≥ 0 of numbers p, q ≥ 0: ∞ where only q is 0. As ``scipy.special.kl_div``; Loader 2000.

    With z = (p - q) / (p + q), log(p / q) = 2 (z + z³/3 + z⁵/5 + ...), and 2 p z - p + q = (p - q) z.

    >>> float(kl_div(jnp.float32(0.5), jnp.float32(0.5005)))  # ≈ (0.0005)² / (2 · 0.5)
    2.498...e-07
    """
    z = _contrast(p, q)
    is_near = jnp.abs(z) < NEAR
    near = jnp.where(is_near, z, 0)
    series = (p - q) * near + 2 * p * near**3 * _polynomial(near**2, [1 / (2 * k + 3) for k in range(8)])
    larger, smaller = jnp.maximum(p, q), jnp.minimum(p, q)
    is_far = (smaller > 0) & ~is_near
    log_ratio = jnp.sign(p - q) * jnp.log(jnp.where(is_far, larger, 1) / jnp.where(is_far, smaller, 1))
    formula = jnp.where(smaller > 0, p * log_ratio - p + q, jnp.where(p > 0, jnp.inf, q))
    return jnp.where(is_near, series, formula)


@jax.jit
def jensen_shannon(p: Values, q: Values) -> Values:
    """p log(p / m) + q log(q / m) with m = (p + q) / 2, from 0 to (p + q) log 2.

    This is m ((1 + z) log(1 + z) + (1 - z) log(1 - z)), z = (p - q) / (p + q), or m (z² + z⁴/6 + z⁶/15 + ...).
    """
    z = _contrast(p, q)
    is_near = jnp.abs(z) < NEAR
    near, far = jnp.where(is_near, z, 0), jnp.minimum(jnp.abs(jnp.where(is_near, 0, z)), 1)
    series = near**2 * _polynomial(near**2, [1 / ((k + 1) * (2 * k + 1)) for k in range(8)])
    is_disjoint = far == 1
    formula = (1 + far) * jnp.log1p(far) + (1 - far) * jnp.log1p(jnp.where(is_disjoint, 0, -far))
    return (p / 2 + q / 2) * jnp.where(is_near, series, formula)


@jax.jit
def expm1_minus_x(u: Values) -> Values:
    """e^u - 1 - u ≥ 0."""
    near = jnp.where(jnp.abs(u) < 0.5, u, 0)
    series = near**2 * _polynomial(near, [1 / math.factorial(k + 2) for k in range(13)])
    return jnp.where(jnp.abs(u) < 0.5, series, jnp.expm1(u) - u)


def surprisal(q: Values, axis: int | tuple[int, ...]) -> Values:
    """-log q ≥ 0, +∞ at 0; for an almost certain outcome computed from the probability of all others."""
    likely = q > LIKELY
    others = jnp.sum(jnp.where(likely, 0, q), axis, keepdims=True)
    formula = jnp.where(q > 0, 0 - jnp.log(jnp.where(q > 0, q, 1)), jnp.inf)
    return jnp.where(likely, 0 - jnp.log1p(-jnp.where(likely, others, 0)), formula)


def weighted(p: Values, surprisal: Values) -> Values:
    """p · surprisal; 0 where p is 0, even if the surprisal is +∞."""
    return jnp.where(p > 0, p * jnp.where(p > 0, surprisal, 0), 0)


def safe_divide(a: Values, b: Values) -> Values:
    """a / b; 0 where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def with_gradient_of(value: Values, like: Values) -> Values:
    """``value`` with the gradient of ``like``, a plain formula for the same number."""
    return jax.lax.stop_gradient(value) + jnp.where(jnp.isfinite(like), like - jax.lax.stop_gradient(like), 0)


def _contrast(p: Values, q: Values) -> Values:
    """(p - q) / (p + q), 0 where both are 0."""
    total = p + q
    return jnp.where(total > 0, (p - q) / jnp.where(total > 0, total, 1), 0)


def _polynomial(x: Values, coefficients: list[float]) -> Values:
    return jnp.polyval(jnp.asarray(coefficients[::-1], x.dtype), x)
