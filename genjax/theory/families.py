"""Families of distributions for variational inference: Gaussians, and distributions of positive numbers.

A family maps unconstrained parameters to a distribution, draws from it differentiably in the parameters, and has its
density. A draw is a vector [d]. Draws of positive numbers are clipped to the range of normal floats, so they are
always positive and finite.
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
    """A family of distributions of vectors [d].

    Attributes:
      init: unconstrained initial parameters.
      distribution: ``(params) -> distribution``.
      sample: ``(key, distribution) -> z [d]``, differentiable in the distribution.
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

    Attributes:
      concentration: a > 0 [d]; the mean is a / r.
      rate: r > 0 [d].
    """

    concentration: Float[Array, " d"]
    rate: Float[Array, " d"]


class TruncatedNormal(NamedTuple):
    """Independent N(μ, σ²), each truncated below at 0.

    Attributes:
      location: μ [... d], the mean before truncation.
      scale: σ > 0 [... d], the standard deviation before truncation.
    """

    location: Float[Array, "... d"]
    scale: Float[Array, "... d"]

    @property
    def mean(self) -> Float[Array, "... d"]:
        """μ + σ φ(μ/σ) / Φ(μ/σ), to a few units in the last place however far in the tail the truncation is."""
        threshold = -self.location / self.scale
        body = self.location + self.scale * tails.hazard(jnp.minimum(threshold, 0))
        return jnp.where(threshold < 0, body, self.scale * tails.mean_excess(jnp.maximum(threshold, 0)))

    @property
    def variance(self) -> Float[Array, "... d"]:
        """σ² (1 - λ (μ/σ + λ)), λ = φ(μ/σ) / Φ(μ/σ), with the precision of ``mean``."""
        return self.scale * tails.variance(-self.location / self.scale) * self.scale


def mean_field(num_dims: int) -> Family:
    """Diagonal Gaussians N(μ, diag σ²)."""
    zeros = _zeros(num_dims)
    return Family(DiagGaussian(zeros, zeros), lambda p: p, gaussian.sample, gaussian.log_prob)


def full_rank(num_dims: int) -> Family:
    """Full Gaussians N(μ, L Lᵀ); the parameters hold the logarithm of the diagonal of L."""

    def distribution(params: FullGaussian) -> FullGaussian:
        diagonal = jnp.exp(jnp.diagonal(params.scale_tril))
        return FullGaussian(params.mean, jnp.tril(params.scale_tril, -1) + jnp.diag(diagonal))

    init = FullGaussian(_zeros(num_dims), jnp.zeros((num_dims, num_dims)))
    return Family(init, distribution, gaussian.sample, gaussian.log_prob)


def log_normal(num_dims: int) -> Family:
    """Log-normals: z = e^y with y ~ N(μ, diag σ²); the distribution is the Gaussian of y."""
    zeros = _zeros(num_dims)
    log_prob = lambda p, y: gaussian.log_prob(p, y) - jnp.sum(y)
    return _of_logarithm(DiagGaussian(zeros, zeros), lambda p: p, gaussian.sample, log_prob)


def gamma(num_dims: int) -> Family:
    """Independent gammas; draws have implicit gradients (Figurnov et al. 2018).

    A draw of concentration a is a draw of concentration a + 1 times u^(1/a), u uniform (Marsaglia & Tsang 2000, §6).
    It is made in log space, since for small a most draws are below any float. The density is in the form of Loader
    (2000), which does not cancel for large a: with s = log(r z / a),
    log p(z) = -a (e^s - 1 - s) - log z + ½ log(a / 2π) - δ(a), δ the error of Stirling's formula.
    """
    zeros = _zeros(num_dims)

    def sample(key: Key, p: Gamma) -> Float[Array, " d"]:
        a, r = p
        gamma_key, uniform_key = jax.random.split(key)
        # gradients in a smaller a leave the range of float32
        power = jnp.where(a > MIN_DIFFERENTIABLE, a, jax.lax.stop_gradient(a))
        return _log_gamma(gamma_key, a + 1) - jnp.minimum(_exponential(uniform_key, a) / power, 1e30) - jnp.log(r)

    def log_prob(p: Gamma, y: Float[Array, " d"]) -> Scalar:
        a, r = p
        s = y - (jnp.log(a) - jnp.log(r))
        return jnp.sum(0.5 * (jnp.log(a) - tails.LOG_TAU) - _stirling_error(a) - y - a * gaussian.expm1_minus_x(s))

    return _of_logarithm(Gamma(zeros, zeros), lambda p: Gamma(*map(jnp.exp, p)), sample, log_prob)


def truncated_normal(num_dims: int) -> Family:
    """Independent normals truncated below at 0, however far in the tail the truncation is.

    The integral of the hazard λ from the threshold to a draw is an Exp(1) variable; the draw is found from it.
    """
    zeros = _zeros(num_dims)

    def sample(key: Key, p: TruncatedNormal) -> Float[Array, " d"]:
        excess = _excess(-p.location / p.scale, _exponential(key, p.location))
        return jnp.clip(p.scale * excess, *_range(p.scale))

    def log_prob(p: TruncatedNormal, z: Float[Array, " d"]) -> Scalar:
        threshold, excess, deviation = -p.location / p.scale, z / p.scale, (z - p.location) / p.scale
        in_tail = threshold > tails.FAR  # λ e^{-y (y/2 + threshold)} there, without a difference of squares
        tail = jnp.log(tails.hazard(jnp.where(in_tail, threshold, tails.FAR))) - excess * (excess / 2 + threshold)
        body = -0.5 * (deviation**2 + tails.LOG_TAU) - gaussian.log_cdf(jnp.where(in_tail, 0, -threshold))
        return jnp.sum(jnp.where(z < 0, -jnp.inf, jnp.where(in_tail, tail, body) - jnp.log(p.scale)))

    init = TruncatedNormal(zeros, zeros)
    return Family(init, lambda p: TruncatedNormal(p.location, jnp.exp(p.scale)), sample, log_prob)


def _of_logarithm(
    init: Params,
    distribution: Callable[[Params], Distribution],
    sample: Callable[[Key, Distribution], Float[Array, " d"]],
    log_prob: Callable[[Distribution, Float[Array, " d"]], Scalar],
) -> Family:
    """The family of z = e^y, from a sampler of y and the density of z as a function of y."""

    def exp(y: Float[Array, " d"]) -> Float[Array, " d"]:
        smallest, largest = _range(y)
        return jnp.exp(jnp.clip(y, math.log(smallest) + 1e-2, math.log(largest) - 1e-2))

    def log_prob_of_z(q: Distribution, z: Float[Array, " d"]) -> Scalar:
        value = log_prob(q, jnp.log(jnp.where(z <= 0, 1, z)))
        return jnp.where(jnp.any(z <= 0), -jnp.inf, value)

    def sample_and_log_prob(key: Key, p: Distribution, q: Distribution) -> tuple[Float[Array, " d"], Scalar]:
        y = sample(key, p)
        return exp(y), log_prob(q, y)

    return Family(init, distribution, lambda key, p: exp(sample(key, p)), log_prob_of_z, sample_and_log_prob)


LARGE = 1e4
"""Concentration from which the gradient of a draw is taken from the Cornish-Fisher expansion."""
MIN_DIFFERENTIABLE = 1e-18
"""Concentration below which draws have no gradient."""


def _log_gamma(key: Key, a: Float[Array, "..."]) -> Float[Array, "..."]:
    """log z of gamma draws z, differentiable in a.

    For large a the quantiles are z = a + √a ε + (ε² - 1) / 3 + O(1 / √a) (Cornish & Fisher 1938), so the derivative of
    log z is (1/a + 1/z) / 2, up to a relative O(1/a). JAX's own derivative cancels there and ends in NaN.
    """
    is_large, constant = a > LARGE, jax.lax.stop_gradient(a)
    small = jax.random.loggamma(key, jnp.where(is_large, 1, a))
    large = jax.lax.stop_gradient(jax.random.loggamma(key, constant))
    derivative = (1 / constant + jnp.exp(-large)) / 2
    return jnp.where(is_large, large + derivative * (a - constant), small)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)


@jax.custom_jvp
def _excess(z: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """The y > 0 with -log P(x > z + y | x > z) = ``target``, for a standard normal x; by Newton's method.

    The hazard rises, so -log P is convex in y, and every step but the first comes from above. For small y the left side
    is the integral of the hazard by Gauss's formula, since a difference of two log Φ would cancel.
    """
    in_tail = z > tails.FAR
    z_body = jnp.where(in_tail, 0, z)
    tail = 2 * target / (jnp.where(in_tail, z, 1) + jnp.hypot(z, jnp.sqrt(2 * target)))
    log_survival = gaussian.log_cdf(-z_body) - target  # log P(x > z + y)
    is_lower_half = log_survival > -math.log(2)
    quantile = jax.scipy.special.ndtri(jnp.where(is_lower_half, -jnp.expm1(log_survival), jnp.exp(log_survival)))
    body = jnp.where(is_lower_half, quantile, -quantile) - z_body
    start = jnp.where(in_tail, tail, jnp.clip(body, 0, target / tails.hazard(z_body)))

    def cumulative_hazard(y: Float[Array, "..."]) -> Float[Array, "..."]:
        is_small = y < 1
        nodes = z[..., None] + jnp.where(is_small, y, 1)[..., None] * jnp.asarray((NODES + 1) / 2, y.dtype)
        integral = y * jnp.sum(tails.hazard(nodes) * jnp.asarray(WEIGHTS / 2, y.dtype), -1)
        return jnp.where(is_small, integral, gaussian.log_cdf(-z) - gaussian.log_cdf(-z - y))

    return jax.lax.fori_loop(0, 3, lambda _, y: y - (cumulative_hazard(y) - target) / tails.hazard(z + y), start)


@_excess.defjvp
def _excess_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (z, target), (z_tangent, target_tangent) = primals, tangents
    y = _excess(z, target)
    hazard = tails.hazard(z + y)
    increase = y + tails.mean_excess(z + y) - tails.mean_excess(z)  # λ(z + y) - λ(z)
    derivative = jnp.where(z > tails.FAR, -increase / hazard, tails.hazard(z) / hazard - 1)
    return y, target_tangent / hazard + derivative * z_tangent


def _exponential(key: Key, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Draws of Exp(1) with the shape and dtype of ``like``, never 0."""
    return jnp.maximum(jax.random.exponential(key, like.shape, like.dtype), jnp.finfo(like.dtype).eps / 4)


def _stirling_error(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """log Γ(a + 1) - (a + ½) log a + a - ½ log 2π."""
    is_large = a > 10
    small, b = jnp.where(is_large, 1, a), jnp.where(is_large, a, 10)
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / 1680 / b / b) / b / b) / b / b) / b
    return jnp.where(is_large, series, gammaln(small + 1) - (small + 0.5) * jnp.log(small) + small - tails.LOG_TAU / 2)


def _range(like: Float[Array, "..."]) -> tuple[float, float]:
    """The smallest and the largest normal number of the dtype of ``like``."""
    info = jnp.finfo(like.dtype)
    return float(info.tiny), float(info.max)


def _zeros(num_dims: int) -> Float[Array, " d"]:
    if num_dims < 1:
        raise ValueError(f"num_dims: expected at least 1, got {num_dims}")
    return jnp.zeros(num_dims)
