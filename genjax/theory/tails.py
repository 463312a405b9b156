"""Hazard, mean excess and variance of the standard normal above a threshold z, exact however large z is.

With the hazard λ(z) = φ(z) / Φ(-z), a normal above z exceeds z by λ - z on average, with variance 1 - λ (λ - z). Both
differences cancel from a few standard deviations on. There all three come from Laplace's continued fraction
λ = z + 1/(z + 2/(z + 3/...)) (Abramowitz & Stegun 1964, eq. 26.2.14), whose parts are the differences themselves.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

LOG_TAU = math.log(2 * math.pi)

FAR = 2.5
"""Threshold from which the continued fraction is used; its 32 terms leave errors below 2e-11."""


@jax.custom_jvp
def hazard(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """φ(z) / Φ(-z): the density at z of a normal conditioned to lie above z.

    >>> float(hazard(jnp.array(1e4))) - 1e4  # exactly 1e-4, which float32 cannot hold beside 1e4
    0.0
    """
    in_tail, tail, body = _split(z)
    density = jnp.exp(-0.5 * (body**2 + LOG_TAU))
    return jnp.where(in_tail, tail + 1 / _fraction(tail)[0], density / jax.scipy.special.ndtr(-body))


@jax.custom_jvp
def mean_excess(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """λ(z) - z = E[x - z | x > z], without cancellation.

    >>> round(1e4 * float(mean_excess(jnp.array(1e4))), 6)
    1.0
    """
    in_tail, tail, body = _split(z)
    return jnp.where(in_tail, 1 / _fraction(tail)[0], hazard(body) - body)


hazard.defjvps(lambda tangent, value, z: value * mean_excess(z) * tangent)
mean_excess.defjvps(lambda tangent, _, z: -variance(z) * tangent)


def variance(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """1 - λ(z) (λ(z) - z) = Var[x | x > z], without cancellation.

    With λ = z + 1/c, c = z + 2/e, e = z + 3/f, f = z + 4/..., it is (z + 4/e - 3/f) / (e c²), all terms of one size.

    >>> round(1e8 * float(variance(jnp.array(1e4))), 6)
    1.0
    """
    in_tail, tail, body = _split(z)
    c, e, f = _fraction(tail)
    rate = hazard(body)
    return jnp.where(in_tail, (tail / c + (4 / e - 3 / f) / c) / e / c, 1 - rate * (rate - jnp.maximum(body, -50)))


def _fraction(z: Float[Array, "..."]) -> tuple[Float[Array, "..."], ...]:
    """c, e and f of the continued fraction; the last term is its limit (z + √(z² + 4n)) / 2."""
    fraction = (z + jnp.hypot(z, math.sqrt(4 * 33))) / 2
    for n in range(32, 3, -1):
        fraction = z + n / fraction
    e = z + 3 / fraction
    return z + 2 / e, e, fraction


def _split(z: Float[Array, "..."]) -> tuple[Array, Float[Array, "..."], Float[Array, "..."]]:
    """Mask of the tail, and z in the tail and in the body, each with a harmless number on the other side."""
    in_tail = z > FAR
    return in_tail, jnp.where(in_tail, z, FAR), jnp.where(in_tail, 0, z)
