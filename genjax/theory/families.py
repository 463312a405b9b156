"""Families of distributions to fit: Gaussians, and distributions of positive numbers.

A family knows how unconstrained parameters, which an optimizer may move anywhere, make a distribution; how to draw from
it so that the draw is differentiable in the parameters; and its density. A draw is a vector [d].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from genjax.theory import gaussian
from genjax.theory.gaussian import DiagGaussian, FullGaussian
from genjax.types import Key, Params, Scalar

Distribution = Any
"""A ``NamedTuple`` of arrays."""


class Family(NamedTuple):
    """Distributions of vectors [d].

    Fields:
      init: unconstrained parameters to start from.
      distribution: ``(params) -> distribution``.
      sample: ``(key, distribution) -> z``, one draw [d], differentiable in the distribution.
      log_prob: ``(distribution, z) -> scalar``, nats.
    """

    init: Params
    distribution: Callable[[Params], Distribution]
    sample: Callable[[Key, Distribution], Float[Array, " d"]]
    log_prob: Callable[[Distribution, Float[Array, " d"]], Scalar]


class Gamma(NamedTuple):
    """Independent gamma distributions, with density r^a z^(a-1) e^(-rz) / Γ(a).

    Fields:
      concentration: a > 0 [d]; the mean is a / r.
      rate: r > 0 [d].
    """

    concentration: Float[Array, " d"]
    rate: Float[Array, " d"]


class TruncatedNormal(NamedTuple):
    """Independent N(μ, σ²), each cut off below at zero.

    Fields:
      location: μ [... d], the mean before the cut.
      scale: σ > 0 [... d], the standard deviation before the cut.
    """

    location: Float[Array, "... d"]
    scale: Float[Array, "... d"]

    @property
    def mean(self) -> Float[Array, "... d"]:
        """μ + σ φ(μ/σ) / Φ(μ/σ)."""
        return self.location + self.scale * gaussian.inverse_mills_ratio(self.location / self.scale)

    @property
    def variance(self) -> Float[Array, "... d"]:
        """σ² (1 - λ (μ/σ + λ)), λ = φ(μ/σ) / Φ(μ/σ)."""
        bound = self.location / self.scale
        ratio = gaussian.inverse_mills_ratio(bound)
        return self.scale**2 * (1 - ratio * (bound + ratio))


def mean_field(num_dims: int) -> Family:
    """N(μ, diag σ²)."""
    zeros = jnp.zeros(num_dims)
    return Family(DiagGaussian(zeros, zeros), lambda p: p, gaussian.sample, gaussian.log_prob)


def full_rank(num_dims: int) -> Family:
    """N(μ, L Lᵀ), where the parameters hold the logarithm of L's diagonal."""

    def distribution(params: FullGaussian) -> FullGaussian:
        diagonal = jnp.exp(jnp.diagonal(params.scale_tril))
        return FullGaussian(params.mean, jnp.tril(params.scale_tril, -1) + jnp.diag(diagonal))

    init = FullGaussian(jnp.zeros(num_dims), jnp.zeros((num_dims, num_dims)))
    return Family(init, distribution, gaussian.sample, gaussian.log_prob)


def log_normal(num_dims: int) -> Family:
    """z = e^y with y ~ N(μ, diag σ²); the distribution is that of y."""
    zeros = jnp.zeros(num_dims)
    return Family(
        DiagGaussian(zeros, zeros),
        lambda p: p,
        lambda key, p: jnp.exp(gaussian.sample(key, p)),
        lambda p, z: gaussian.log_prob(p, jnp.log(z)) - jnp.sum(jnp.log(z)),
    )


def gamma(num_dims: int) -> Family:
    """Independent gammas; draws are differentiable implicitly (Figurnov et al. 2018)."""
    zeros = jnp.zeros(num_dims)

    def sample(key: Key, p: Gamma) -> Float[Array, " d"]:
        return jnp.exp(jax.random.loggamma(key, p.concentration)) / p.rate

    def log_prob(p: Gamma, z: Float[Array, " d"]) -> Scalar:
        a, r = p
        return jnp.sum(a * jnp.log(r) - gammaln(a) + (a - 1) * jnp.log(z) - r * z)

    return Family(Gamma(zeros, zeros), lambda p: Gamma(*map(jnp.exp, p)), sample, log_prob)


def truncated_normal(num_dims: int) -> Family:
    """Independent normals cut off below at zero; draws by inversion in log space, so the cut may be far in the tail."""
    zeros = jnp.zeros(num_dims)

    def sample(key: Key, p: TruncatedNormal) -> Float[Array, " d"]:
        log_u = -jax.random.exponential(key, p.location.shape, p.location.dtype)
        bound = p.location / p.scale
        return p.scale * (bound - gaussian.inverse_log_cdf(log_u + gaussian.log_cdf(bound)))

    def log_prob(p: TruncatedNormal, z: Float[Array, " d"]) -> Scalar:
        whole = gaussian.log_prob(DiagGaussian(p.location, jnp.log(p.scale)), z)
        return whole - jnp.sum(gaussian.log_cdf(p.location / p.scale))

    unconstrained = TruncatedNormal(zeros, zeros)
    return Family(unconstrained, lambda p: TruncatedNormal(p.location, jnp.exp(p.scale)), sample, log_prob)
