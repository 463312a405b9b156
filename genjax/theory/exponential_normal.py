"""A latent-variable model with a closed-form posterior: z ~ Exp(1), x|z ~ N(z, 1).

The example of variational inference in the lecture notes. Completing the square in z gives

    p(x, z) = e^{-z} N(x; z, 1) = e^{1/2 - x} N(z; x - 1, 1)  for z ≥ 0,

so the posterior is N(x - 1, 1) truncated below at 0, and p(x) = e^{1/2 - x} Φ(x - 1).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as Numbers

from genjax.theory import gaussian, simplex
from genjax.theory.families import TruncatedNormal


def log_joint(z: Numbers, x: Numbers) -> Float[Array, "..."]:
    """log p(x, z) = -z - ½ (x - z)² - ½ log 2π, nats; -∞ for z < 0."""
    z, x = simplex.as_floating(z), simplex.as_floating(x)
    return jnp.where(z >= 0, -z - 0.5 * ((x - z) ** 2 + gaussian.LOG_TAU), -jnp.inf)


def log_evidence(x: Numbers) -> Float[Array, "..."]:
    """log p(x) = ½ - x + log Φ(x - 1), nats.

    >>> [round(float(log_evidence(x)), 4) for x in (-3.0, 0.0, 1.0, 4.0)]
    [-6.8601, -1.341, -1.1931, -3.5014]
    """
    x = simplex.as_floating(x)
    return 0.5 - x + gaussian.log_cdf(x - 1.0)


def posterior(x: Numbers) -> TruncatedNormal:
    """p(z|x): N(x - 1, 1) truncated below at 0.

    >>> [round(float(p), 4) for p in (posterior(jnp.zeros(1)).mean[0], posterior(jnp.zeros(1)).variance[0])]
    [0.5251, 0.1991]
    """
    location = simplex.as_floating(x) - 1.0
    return TruncatedNormal(location, jnp.ones_like(location))
