"""Gaussian distributions, diagonal and full (Bishop 2006, §2.3; Petersen & Pedersen 2012, §8).

A Gaussian is a ``NamedTuple`` of arrays: a network may return it, a chain may have it in its state, and it may be a
batch. The last axis holds the dimensions of one draw; the axes before it are a batch. Functions of ``Gaussian`` take
diagonal and full ones.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from genjax import checks, lapack, random
from genjax.theory import tails
from genjax.types import Key

LOG_TAU = tails.LOG_TAU


class DiagGaussian(NamedTuple):
    """N(μ, diag σ²).

    Attributes:
      mean: μ [... d].
      log_std: log σ [... d]; finite densities and gradients for -44 < log σ < 44 in float32.
    """

    mean: Float[Array, "... d"]
    log_std: Float[Array, "... d"]


class FullGaussian(NamedTuple):
    """N(μ, L Lᵀ).

    Attributes:
      mean: μ [... d].
      scale_tril: L [... d d], lower triangular with a positive diagonal: the Cholesky factor of the covariance.
    """

    mean: Float[Array, "... d"]
    scale_tril: Float[Array, "... d d"]

    @property
    def covariance(self) -> Float[Array, "... d d"]:
        """Σ = L Lᵀ."""
        return self.scale_tril @ self.scale_tril.mT


Gaussian = DiagGaussian | FullGaussian


def full(p: Gaussian) -> FullGaussian:
    """Convert a Gaussian to one with a full covariance."""
    if isinstance(p, FullGaussian):
        return p
    diagonal = jnp.eye(p.mean.shape[-1], dtype=bool)
    return FullGaussian(p.mean, jnp.where(diagonal, jnp.exp(p.log_std)[..., None], 0))  # where: 0 · ∞ is NaN


def from_covariance(mean: Float[Array, "... d"], covariance: Float[Array, "... d d"]) -> FullGaussian:
    """N(μ, Σ).

    Raises:
      ValueError: Σ is finite and not positive definite; inside ``jit`` its factor is NaN.
    """
    factor = lapack.cholesky(covariance)
    if checks.is_concrete(factor) and np.isnan(factor).any() and np.isfinite(np.asarray(covariance)).all():
        raise ValueError("covariance: expected a positive definite matrix; it has no Cholesky factor")
    return FullGaussian(mean, factor)


def sample(key: Key, p: Gaussian) -> Float[Array, "... d"]:
    """Draw once from each Gaussian of a batch: z = μ + σ ⊙ ε or μ + L ε, ε ~ N(0, I) (Kingma & Welling 2014, §2.4).

    Args:
      key: random key; or an array of keys, one for each Gaussian along the leading axis (see ``genjax.random``).
      p: the distribution; the draw is differentiable in its parameters.
    """
    if p.mean.ndim == 1:
        noise = jax.random.normal(key, p.mean.shape, p.mean.dtype)
    else:
        noise = random.normal(random.example_keys(key, p.mean.shape[0]), p.mean.shape[1:], p.mean.dtype)
    return transport(p, noise)


def transport(p: Gaussian, noise: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Map standard normal ε to a draw of p: μ + σ ⊙ ε, or μ + L ε."""
    if isinstance(p, DiagGaussian):
        return p.mean + jnp.exp(p.log_std) * noise
    return p.mean + _matvec(p.scale_tril, noise)


def log_prob(p: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "..."]:
    """log N(x; μ, Σ) = -½ |Σ^{-½} (x - μ)|² - ½ log |Σ| - d/2 log 2π, nats (Bishop 2006, eq. 2.43).

    >>> round(float(log_prob(DiagGaussian(jnp.zeros(1), jnp.zeros(1)), jnp.zeros(1))), 4)
    -0.9189
    """
    whitened = _whiten(p, x - p.mean)
    return -0.5 * jnp.sum(whitened**2 + LOG_TAU, -1) - _half_log_det(p)


def entropy(p: Gaussian) -> Float[Array, "..."]:
    """H = ½ log |Σ| + d/2 (1 + log 2π), nats (Cover & Thomas 2006, thm. 8.4.1)."""
    return _half_log_det(p) + p.mean.shape[-1] * (1 + LOG_TAU) / 2


def kl(p: Gaussian, q: Gaussian) -> Float[Array, "..."]:
    """D(p‖q), nats.

    Full: ½ (tr(Σ_q⁻¹ Σ_p) - d + (μ_q - μ_p)ᵀ Σ_q⁻¹ (μ_q - μ_p) + log |Σ_q| / |Σ_p|). Diagonal, as in the lecture notes:
    Σ_i log(σ_q / σ_p) + (σ_p² + (μ_p - μ_q)²) / 2σ_q² - ½, computed as ½ Σ_i (e^s - 1 - s + ((μ_p - μ_q) / σ_q)²) with
    s = 2 log(σ_p / σ_q), which keeps its digits where p and q are almost equal.

    >>> p, q = DiagGaussian(jnp.ones(1), jnp.zeros(1)), DiagGaussian(jnp.zeros(1), jnp.zeros(1))
    >>> float(kl(p, q))
    0.5
    """
    if isinstance(p, DiagGaussian) and isinstance(q, DiagGaussian):
        whitened = (p.mean - q.mean) * jnp.exp(-q.log_std)
        return 0.5 * jnp.sum(expm1_minus_x(2 * (p.log_std - q.log_std)) + whitened**2, -1)
    p, q = full(p), full(q)
    whitened = _whiten(q, p.mean - q.mean)
    ratio = lapack.solve_lower(q.scale_tril, p.scale_tril)
    s = 2 * jnp.log(_diagonal(ratio))
    off_diagonal = jnp.sum(jnp.tril(ratio, -1) ** 2, (-2, -1))
    return 0.5 * (jnp.sum(expm1_minus_x(s) + whitened**2, -1) + off_diagonal)


def kl_standard(p: Gaussian) -> Float[Array, "..."]:
    """D(p‖N(0, I)) = ½ Σ (σ² + μ² - 1 - log σ²), nats: the regulariser of the VAE (Kingma & Welling 2014, app. B).

    >>> round(float(kl_standard(DiagGaussian(jnp.zeros(1), jnp.full(1, -10.0)))), 4)  # log σ² = -20
    9.5
    """
    zero = jnp.zeros_like(p.mean)
    return kl(p, DiagGaussian(zero, zero))


def product(p: Gaussian, q: Gaussian) -> tuple[Gaussian, Float[Array, "..."]]:
    """N(x; p) N(x; q) = Z N(x; r): the Gaussian r, and log Z (Petersen & Pedersen 2012, §8.1.8).

    Σ_r⁻¹ = Σ_p⁻¹ + Σ_q⁻¹;  μ_r = Σ_r (Σ_p⁻¹ μ_p + Σ_q⁻¹ μ_q);  Z = N(μ_p; μ_q, Σ_p + Σ_q).
    """
    if isinstance(p, DiagGaussian) and isinstance(q, DiagGaussian):
        sum_log_std = jnp.logaddexp(2 * p.log_std, 2 * q.log_std) / 2
        weight = jnp.exp(2 * (p.log_std - sum_log_std))  # of q
        r = DiagGaussian(p.mean + weight * (q.mean - p.mean), p.log_std + q.log_std - sum_log_std)
        return r, log_prob(DiagGaussian(q.mean, sum_log_std), p.mean)
    p, q = full(p), full(q)
    total = from_covariance(q.mean, p.covariance + q.covariance)
    half = lapack.solve_lower(total.scale_tril, p.covariance)
    gain = lapack.solve_lower(total.scale_tril, half, transposed=True).mT  # Σ_p (Σ_p + Σ_q)⁻¹
    mean = p.mean + _matvec(gain, q.mean - p.mean)
    kept = jnp.eye(mean.shape[-1], dtype=mean.dtype) - gain
    covariance = kept @ p.covariance @ kept.mT + gain @ q.covariance @ gain.mT  # Joseph's form stays positive
    return from_covariance(mean, covariance), log_prob(total, p.mean)


def marginal(p: FullGaussian, index: ArrayLike) -> FullGaussian:
    """The distribution of x[index], ``index`` [a] (Bishop 2006, eq. 2.98).

    Raises:
      ValueError: an index is outside [0, d), or occurs twice.
    """
    index = _dimensions(index, p)
    covariance = p.covariance[..., index[:, None], index]
    return from_covariance(p.mean[..., index], covariance)


def condition(p: FullGaussian, index: ArrayLike, value: ArrayLike) -> FullGaussian:
    """The distribution of the other dimensions, in their order, given x[index] = value (Bishop 2006, eq. 2.81-2.82).

    ``index`` is [a], ``value`` [... a].

    μ_{a|b} = μ_a + Σ_ab Σ_bb⁻¹ (x_b - μ_b);  Σ_{a|b} = Σ_aa - Σ_ab Σ_bb⁻¹ Σ_ba

    >>> p = from_covariance(jnp.zeros(2), jnp.array([[1.0, 0.6], [0.6, 1.0]]))
    >>> given = condition(p, jnp.array([1]), jnp.array([2.0]))
    >>> round(float(given.mean[0]), 4), round(float(given.covariance[0, 0]), 4)
    (1.2, 0.64)

    Raises:
      ValueError: an index is outside [0, d), or occurs twice; or the number of values differs from that of indices.
    """
    index = _dimensions(index, p)
    if jnp.shape(value)[-1:] != index.shape:
        raise ValueError(
            f"value: expected {index.shape[0]} along its last axis, one for each index; got {jnp.shape(value)}"
        )
    d = p.mean.shape[-1]
    rest = jnp.delete(jnp.arange(d), index, assume_unique_indices=True)
    order = jnp.concatenate([index, rest])
    b = index.shape[0]
    joint = from_covariance(p.mean[..., order], p.covariance[..., order[:, None], order])
    tril = joint.scale_tril
    whitened = lapack.solve_lower(tril[..., :b, :b], jnp.asarray(value - joint.mean[..., :b])[..., None])[..., 0]
    return FullGaussian(joint.mean[..., b:] + _matvec(tril[..., b:, :b], whitened), tril[..., b:, b:])


@jax.custom_jvp
def expm1_minus_x(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """eˣ - 1 - x ≥ 0, to full precision near 0.

    Twice the Gaussian KL per dimension, with x the log ratio of the variances. In float32 ``expm1(x) - x`` loses all
    digits below |x| = 1e-7, and the usual ``1 + x - exp(x)`` below 1e-4.
    """
    is_small = jnp.abs(x) < 0.5
    small = jnp.where(is_small, x, 0)
    series = jnp.ones_like(small)
    for n in range(14, 2, -1):  # x²/2 (1 + x/3 (1 + x/4 (1 + ...))), to 1e-17
        series = 1 + small / n * series
    return jnp.where(is_small, small**2 / 2 * series, jnp.expm1(x) - jnp.minimum(x, 1e4))


expm1_minus_x.defjvps(lambda tangent, _, x: jnp.expm1(x) * tangent)


@jax.custom_jvp
def log_cdf(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """log Φ(x) of the standard normal, with an exact gradient φ/Φ however far in the lower tail.

    In float32 the gradient of ``jax.scipy.special.log_ndtr`` at -1e4 is a third of the exact one.

    >>> round(float(jax.grad(log_cdf)(jnp.array(-1e4))))
    10000
    """
    in_tail = x < -tails.FAR
    z, body = jnp.where(in_tail, -x, tails.FAR), jnp.where(in_tail, 0, x)
    smaller_side = jax.scipy.special.ndtr(-jnp.abs(body))
    return jnp.where(
        in_tail,
        -(0.5 * z) * z - 0.5 * LOG_TAU - jnp.log(tails.hazard(z)),
        jnp.where(body > 0, jnp.log1p(-smaller_side), jnp.log(smaller_side)),
    )


log_cdf.defjvps(lambda tangent, _, x: inverse_mills_ratio(x) * tangent)


def inverse_mills_ratio(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """φ(x) / Φ(x), the derivative of log Φ: the mean of N(0, 1) truncated below at -x."""
    return tails.hazard(-x)


@jax.custom_jvp
def inverse_log_cdf(log_p: Float[Array, "..."]) -> Float[Array, "..."]:
    """The x with log Φ(x) = ``log_p`` ≤ 0: quantiles that stay exact where Φ itself underflows.

    Newton's method on log Φ, which is concave, so every step from below stays below. In the tail it starts from the
    asymptotic form of log Φ.

    Raises:
      ValueError: ``log_p`` is above 0 or NaN.
    """
    checks.within("log_p", log_p, high=0)
    log_p = jnp.asarray(log_p)
    is_upper, is_zero = log_p > -math.log(2), jnp.isneginf(log_p)
    lower = jnp.where(is_upper | is_zero, -1, log_p)
    body = jax.scipy.special.ndtri(jnp.exp(jnp.where(lower > -10, lower, -10)))
    upper = -jax.scipy.special.ndtri(-jnp.expm1(jnp.where(is_upper, log_p, -1)))
    root = jnp.sqrt(jnp.maximum(-lower, 1)) * math.sqrt(2)
    tail = -jnp.sqrt(jnp.maximum(-lower - jnp.log(root * 2.5066), 0.5)) * math.sqrt(2)
    x = jnp.where(lower > -10, body, tail)
    for _ in range(4):
        x = x - (log_cdf(x) - lower) / inverse_mills_ratio(x)
    return jnp.where(is_upper, upper, jnp.where(is_zero, -jnp.inf, x))


inverse_log_cdf.defjvps(lambda tangent, x, _: tangent / inverse_mills_ratio(x))


def _dimensions(index: ArrayLike, p: FullGaussian) -> Int[Array, " a"]:
    """Check indices of dimensions of p and return them as an array."""
    checks.integers("index", index, 0, p.mean.shape[-1])
    if jnp.ndim(index) != 1 or (checks.is_concrete(index) and len(np.unique(index)) < len(np.asarray(index))):
        raise ValueError(f"index: expected a list of dimensions, each once; got {index}")
    return jnp.asarray(index)


def _half_log_det(p: Gaussian) -> Float[Array, "..."]:
    return jnp.sum(p.log_std if isinstance(p, DiagGaussian) else jnp.log(_diagonal(p.scale_tril)), -1)


def _whiten(p: Gaussian, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    if isinstance(p, DiagGaussian):
        return x * jnp.exp(-p.log_std)
    return lapack.solve_lower(p.scale_tril, x[..., None])[..., 0]


def _diagonal(matrix: Float[Array, "... d d"]) -> Float[Array, "... d"]:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _matvec(matrix: Float[Array, "... a d"], vector: Float[Array, "... d"]) -> Float[Array, "... a"]:
    return jnp.einsum("...ad,...d->...a", matrix, vector)
