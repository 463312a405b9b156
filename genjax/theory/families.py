"""Families of distributions to fit: Gaussians, and distributions of positive numbers.

A family knows how unconstrained parameters, which an optimizer may move anywhere, make a distribution; how to draw from
it so that the draw is differentiable in the parameters; and its density. A draw is a vector [d]. Draws of positive
numbers are positive: those too small or too large for a float are the smallest and the largest there is.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from genjax.theory import gaussian, tails
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
      log_prob: ``(distribution, z) -> scalar``, nats; -∞ outside the support.
      sample_and_log_prob: ``(key, p, q) -> (z, log q(z))`` for the draw z ~ p that ``sample`` makes of the key. For
        families that compute log q on the way to z (from log z, when z leaves the range of floats). None: from z.
    """

    init: Params
    distribution: Callable[[Params], Distribution]
    sample: Callable[[Key, Distribution], Float[Array, " d"]]
    log_prob: Callable[[Distribution, Float[Array, " d"]], Scalar]
    sample_and_log_prob: Callable[[Key, Distribution, Distribution], tuple[Float[Array, " d"], Scalar]] | None = None


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
        """μ + σ φ(μ/σ) / Φ(μ/σ), to a few units in the last place however far out the cut is."""
        cut = -self.location / self.scale
        inner = self.location + self.scale * tails.hazard(jnp.minimum(cut, 0))
        return jnp.where(cut < 0, inner, self.scale * tails.mean_excess(jnp.maximum(cut, 0)))

    @property
    def variance(self) -> Float[Array, "... d"]:
        """σ² (1 - λ (μ/σ + λ)), λ = φ(μ/σ) / Φ(μ/σ), likewise."""
        return self.scale * tails.variance(-self.location / self.scale) * self.scale


def mean_field(num_dims: int) -> Family:
    """N(μ, diag σ²)."""
    zeros = _zeros(num_dims)
    return Family(DiagGaussian(zeros, zeros), lambda p: p, gaussian.sample, gaussian.log_prob)


def full_rank(num_dims: int) -> Family:
    """N(μ, L Lᵀ), where the parameters hold the logarithm of L's diagonal."""

    def distribution(params: FullGaussian) -> FullGaussian:
        diagonal = jnp.exp(jnp.diagonal(params.scale_tril))
        return FullGaussian(params.mean, jnp.tril(params.scale_tril, -1) + jnp.diag(diagonal))

    init = FullGaussian(_zeros(num_dims), jnp.zeros((num_dims, num_dims)))
    return Family(init, distribution, gaussian.sample, gaussian.log_prob)


def log_normal(num_dims: int) -> Family:
    """z = e^y with y ~ N(μ, diag σ²); the distribution is that of y."""
    zeros = _zeros(num_dims)
    log_prob = lambda p, y: gaussian.log_prob(p, y) - jnp.sum(y)
    return _exponential(DiagGaussian(zeros, zeros), lambda p: p, gaussian.sample, log_prob)


def gamma(num_dims: int) -> Family:
    """Independent gammas; draws are differentiable implicitly (Figurnov et al. 2018).

    A draw is that of concentration a + 1 times u^(1/a), u uniform (Marsaglia & Tsang 2000, §6), in log space: for small
    a most draws are below any float. The density is Loader's (2000), which does not cancel for large a: with
    s = log(r z / a), log p(z) = -a (e^s - 1 - s) - log z + ½ log(a / 2π) - δ(a), δ the error of Stirling's formula.
    """
    zeros = _zeros(num_dims)

    def sample(key: Key, p: Gamma) -> Float[Array, " d"]:
        a, r = p
        more, power = jax.random.split(key)
        slow = jnp.where(a > LEAST, a, jax.lax.stop_gradient(a))  # below, slopes in a leave the range of float32
        return _log_gamma(more, a + 1) - jnp.minimum(_energy(power, a) / slow, 1e30) - jnp.log(r)

    def log_prob(p: Gamma, y: Float[Array, " d"]) -> Scalar:
        a, r = p
        s = y - (jnp.log(a) - jnp.log(r))
        return jnp.sum(0.5 * (jnp.log(a) - tails.LOG_TAU) - _stirling_error(a) - y - a * gaussian.expm1_minus_x(s))

    return _exponential(Gamma(zeros, zeros), lambda p: Gamma(*map(jnp.exp, p)), sample, log_prob)


def truncated_normal(num_dims: int) -> Family:
    """Independent normals cut off below at zero, however far in the tail the cut is.

    A draw exceeds the cut by what an Exp(1) variable says of the hazard: ∫ λ over the excess is that variable.
    """
    zeros = _zeros(num_dims)

    def sample(key: Key, p: TruncatedNormal) -> Float[Array, " d"]:
        excess = _excess(-p.location / p.scale, _energy(key, p.location))
        return jnp.clip(p.scale * excess, *_range(p.scale))

    def log_prob(p: TruncatedNormal, z: Float[Array, " d"]) -> Scalar:
        cut, excess, deviation = -p.location / p.scale, z / p.scale, (z - p.location) / p.scale
        far = cut > tails.FAR  # λ e^{-y (y/2 + cut)} there: the squares of cut and deviation are not subtracted
        outer = jnp.log(tails.hazard(jnp.where(far, cut, tails.FAR))) - excess * (excess / 2 + cut)
        inner = -0.5 * (deviation**2 + tails.LOG_TAU) - gaussian.log_cdf(jnp.where(far, 0, -cut))
        return jnp.sum(jnp.where(z < 0, -jnp.inf, jnp.where(far, outer, inner) - jnp.log(p.scale)))

    init = TruncatedNormal(zeros, zeros)
    return Family(init, lambda p: TruncatedNormal(p.location, jnp.exp(p.scale)), sample, log_prob)


def _exponential(
    init: Params,
    distribution: Callable[[Params], Distribution],
    sample: Callable[[Key, Distribution], Float[Array, " d"]],
    log_prob: Callable[[Distribution, Float[Array, " d"]], Scalar],
) -> Family:
    """The family of z = e^y, of the draws of y and the density of z as a function of y."""

    def exp(y: Float[Array, " d"]) -> Float[Array, " d"]:
        low, high = _range(y)
        return jnp.exp(jnp.clip(y, math.log(low) + 1e-2, math.log(high) - 1e-2))

    def log_prob_of(q: Distribution, z: Float[Array, " d"]) -> Scalar:
        value = log_prob(q, jnp.log(jnp.where(z <= 0, 1, z)))
        return jnp.where(jnp.any(z <= 0), -jnp.inf, value)

    def sample_and_log_prob(key: Key, p: Distribution, q: Distribution) -> tuple[Float[Array, " d"], Scalar]:
        y = sample(key, p)
        return exp(y), log_prob(q, y)

    return Family(init, distribution, lambda key, p: exp(sample(key, p)), log_prob_of, sample_and_log_prob)


LARGE = 1e4
LEAST = 1e-18


def _log_gamma(key: Key, a: Float[Array, "..."]) -> Float[Array, "..."]:
    """log z of gamma draws z, differentiable in a.

    For large a the quantiles are z = a + √a ε + (ε² - 1) / 3 + O(1 / √a) (Cornish & Fisher 1938), hence the slope
    (1/a + 1/z) / 2, to O(1/a) of it; the slope that JAX has loses its digits to cancellation there, and ends in NaN.
    """
    large, fixed = a > LARGE, jax.lax.stop_gradient(a)
    body = jax.random.loggamma(key, jnp.where(large, 1, a))
    outer = jax.lax.stop_gradient(jax.random.loggamma(key, fixed))
    slope = (1 / fixed + jnp.exp(-outer)) / 2
    return jnp.where(large, outer + slope * (a - fixed), body)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)


@jax.custom_jvp
def _excess(cut: Float[Array, "..."], energy: Float[Array, "..."]) -> Float[Array, "..."]:
    """The y > 0 with -log P(x > cut + y | x > cut) = ``energy``, of a standard normal x; by Newton's method.

    The hazard rises, so -log P is convex in y, and all but the first step come from above. While y is small it is the
    integral of the hazard by Gauss's formula: a difference of two log Φ would cancel.
    """
    far = cut > tails.FAR
    inner = jnp.where(far, 0, cut)
    outer = 2 * energy / (jnp.where(far, cut, 1) + jnp.hypot(cut, jnp.sqrt(2 * energy)))
    log_above = gaussian.log_cdf(-inner) - energy  # of x, log P(x > cut + y)
    upper = log_above > -math.log(2)
    quantile = jax.scipy.special.ndtri(jnp.where(upper, -jnp.expm1(log_above), jnp.exp(log_above)))
    guess = jnp.where(upper, quantile, -quantile) - inner
    start = jnp.where(far, outer, jnp.clip(guess, 0, energy / tails.hazard(inner)))

    def spent(y: Float[Array, "..."]) -> Float[Array, "..."]:
        near = y < 1
        places = cut[..., None] + jnp.where(near, y, 1)[..., None] * jnp.asarray((NODES + 1) / 2, y.dtype)
        integral = y * jnp.sum(tails.hazard(places) * jnp.asarray(WEIGHTS / 2, y.dtype), -1)
        return jnp.where(near, integral, gaussian.log_cdf(-cut) - gaussian.log_cdf(-cut - y))

    return jax.lax.fori_loop(0, 3, lambda _, y: y - (spent(y) - energy) / tails.hazard(cut + y), start)


@_excess.defjvp
def _excess_jvp(primals, tangents):
    (cut, energy), (cut_tangent, energy_tangent) = primals, tangents
    y = _excess(cut, energy)
    there = tails.hazard(cut + y)
    gained = y + tails.mean_excess(cut + y) - tails.mean_excess(cut)  # λ there less λ here
    slope = jnp.where(cut > tails.FAR, -gained / there, tails.hazard(cut) / there - 1)
    return y, energy_tangent / there + slope * cut_tangent


def _energy(key: Key, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Draws of Exp(1), never 0."""
    return jnp.maximum(jax.random.exponential(key, like.shape, like.dtype), jnp.finfo(like.dtype).eps / 4)


def _stirling_error(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """log Γ(a + 1) - (a + ½) log a + a - ½ log 2π."""
    large = a > 10
    small, b = jnp.where(large, 1, a), jnp.where(large, a, 10)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / b / b) / b / b) / b / b) / b
    return jnp.where(large, series, gammaln(small + 1) - (small + 0.5) * jnp.log(small) + small - tails.LOG_TAU / 2)


def _range(like: Float[Array, "..."]) -> tuple[float, float]:
    """The least and the largest normal number of that type."""
    info = jnp.finfo(like.dtype)
    return float(info.tiny), float(info.max)


def _zeros(num_dims: int) -> Float[Array, " d"]:
    if num_dims < 1:
        raise ValueError(f"num_dims: expected at least 1, got {num_dims}")
    return jnp.zeros(num_dims)
