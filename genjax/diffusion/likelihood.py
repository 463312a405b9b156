"""Likelihood of images under a diffusion model: the variational bound term by term, and the probability flow.

-log p(x_0) ≤ D(q(x_T|x_0)‖N(0, 1)) + Σ_t D(q(x_{t-1}|x_t, x_0)‖p(x_{t-1}|x_t)) - log p(x_0|x_{t=0})
(Ho et al. 2020, eq. 5), all in nats per image. The last term is the decoder, a Gaussian integrated
over the bin of each level.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from genjax import checks, random
from genjax.diffusion import predictions, process
from genjax.diffusion.optimal import optimal_timesteps, optimal_variance
from genjax.diffusion.predictions import Prediction
from genjax.diffusion.schedules import Schedule, Table, Times, at, logarithm
from genjax.theory import gaussian
from genjax.types import Key

__all__ = [
    "VLB",
    "vlb",
    "dequantise",
    "ode_log_likelihood",
    "log_decoder",
    "optimal_variance",
    "prior",
    "optimal_timesteps",
    "vlb_term",
]
Arrays = Float[Array, "b ..."]
Denoise = Callable[[Arrays, Int[Array, " b"]], Arrays | Prediction]
Variance = Literal["small", "large"] | Table


class VLB(NamedTuple):
    """The variational bound: -log p(x_0) is at most ``prior`` + Σ_t ``steps``, nats per image.

    Attributes:
      prior: D(q(x_T|x_0)‖N(0, 1)) [b].
      steps: the terms [b t]; at t = 0 the decoder's -log p(x_0|x_t), at t > 0 the divergence of the step to t - 1.
      squared_error: |x_0 - x̂_0|² summed over the image [b t].
    """

    prior: Float[Array, " b"]
    steps: Float[Array, "b t"]
    squared_error: Float[Array, "b t"]

    @property
    def total(self) -> Float[Array, " b"]:
        """The bound, ``prior`` + Σ_t ``steps``."""
        return self.prior + self.steps.sum(1)


def vlb(
    denoise: Denoise,
    schedule: Schedule,
    key: Key,
    images: ArrayLike,
    *,
    variance: Variance = "small",
    num_levels: int = 256,
    clip: bool = True,
) -> VLB:
    """Compute the bound at every step, with one draw of x_t each: T evaluations of ``denoise`` in one scan.

    Args:
      denoise: denoiser, ``(x_t, t) -> ε`` or a ``Prediction``.
      schedule: the schedule of T steps.
      key: a single key, or one per image; image i depends on (key, i) only.
      images: x_0, at ``num_levels`` even levels in [-1, 1].
      variance: variance of the reverse steps, as in ``ancestral``; at t = 0 β̃_1 replaces β̃_0 = 0.
      num_levels: levels of a pixel; 0 for continuous pixels, whose decoder is a density.
      clip: clip x̂_0 to [-1, 1], as samplers do; report this choice with every number.

    Raises:
      ValueError: images are not of floating point, not finite, or outside [-1, 1]; ``num_levels`` is 1 or below 0; the
        variance is neither a name nor a table [t] of positive numbers; or the denoiser returns ε alone and the last ᾱ
        is 0 (see ``from_noise``).
    """
    images = _images(images, num_levels)
    _variance(schedule, variance)
    keys = random.example_keys(key, images.shape[0])

    def step(t: Int[Array, ""]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        times = jnp.broadcast_to(t, images.shape[:1])
        noise = random.normal(jax.vmap(lambda key: jax.random.fold_in(key, t))(keys), images.shape[1:], images.dtype)
        x_t = process.diffuse(schedule, images, times, noise)
        prediction = _predict(denoise, schedule, x_t, times)
        if clip:
            prediction = prediction._replace(x0=jnp.clip(prediction.x0, -1, 1))
        nats = vlb_term(schedule, prediction, images, x_t, times, variance=variance, num_levels=num_levels)
        return nats, _sum((images - prediction.x0) ** 2)

    steps, squared_error = jax.lax.map(step, jnp.arange(schedule.num_steps))
    return VLB(prior(schedule, images), steps.T, squared_error.T)


def prior(schedule: Schedule, images: ArrayLike) -> Float[Array, " b"]:
    """Compute D(q(x_T|x_0)‖N(0, 1)) = ½ Σ (ᾱ_{T-1} x_0² - ᾱ_{T-1} - log(1 - ᾱ_{T-1})), nats."""
    images = _images(images, 0)
    alpha_bar, sigma = schedule.alpha_bar[-1], schedule.sqrt_one_minus_alpha_bar[-1:]
    constant = jnp.asarray(-alpha_bar - 2 * logarithm(sigma)[0], images.dtype)  # 1 - ᾱ loses digits in float32
    return 0.5 * _sum(jnp.asarray(alpha_bar, images.dtype) * images**2 + constant)


def vlb_term(
    schedule: Schedule,
    prediction: Prediction,
    images: Arrays,
    x_t: Arrays,
    t: Times,
    *,
    variance: Variance = "small",
    num_levels: int = 256,
) -> Float[Array, " b"]:
    """Compute the bound's term at time t, nats per image: the divergence of the step to t - 1; at t = 0 the decoder's.

    ½ Σ (β̃/σ² - 1 - log β̃/σ² + c_0² (x_0 - x̂_0)²/σ²). If σ² = β̃_t, the last part is ½ (SNR_{t-1} - SNR_t) |x_0 - x̂_0|²
    (Kingma et al. 2021, eq. 13).

    Raises:
      ValueError: images or x_t are not of floating point or not finite; or see ``vlb`` for variance and levels.
    """
    _levels(num_levels)
    checks.floats("images", images)
    checks.floats("x_t", x_t)
    log_variance = _log_variance(schedule, variance, prediction, t, images)
    ratio = at(logarithm(process.posterior_variance_clipped(schedule)), t, images) - log_variance
    difference = process.posterior(schedule, prediction.x0 - images, jnp.zeros_like(x_t), t).mean
    step = gaussian.expm1_minus_x(ratio) + difference**2 * jnp.exp(-log_variance)
    decoder = -log_decoder(images, prediction.x0, 0.5 * log_variance, num_levels)
    return jnp.where(jnp.asarray(t) > 0, 0.5 * _sum(step), _sum(decoder))


def log_decoder(images: Arrays, mean: Arrays, log_std: Arrays, num_levels: int) -> Arrays:
    """Compute the log mass of N(mean, std²) in the bin of each level (Ho et al. 2020, eq. 13).

    The outermost bins reach to ±∞. No digits cancel: a bin around the mean is a sum of its two sides; any other bin is
    a difference of log Φ on its tail, in logarithms.

    Args:
      images: x_0, at even levels in [-1, 1].
      mean: mean of the Gaussian.
      log_std: log of the standard deviation.
      num_levels: levels of a pixel; 0 gives the log density.

    Raises:
      ValueError: ``num_levels`` is 1 or below 0.
    """
    _levels(num_levels)
    mean, log_std = jnp.broadcast_arrays(mean, log_std)
    if not num_levels:
        return gaussian.log_prob(gaussian.DiagGaussian(mean[..., None], log_std[..., None]), images[..., None])
    half = 1 / (num_levels - 1)
    offset = images - mean
    low, high = (offset - half) * jnp.exp(-log_std), (offset + half) * jnp.exp(-log_std)
    low = jnp.where(images < -1 + half, -jnp.inf, low)
    high = jnp.where(images > 1 - half, jnp.inf, high)
    far, near = jnp.where(low > 0, -low, high), jnp.where(low > 0, -high, low)  # mirrored to the lower tail
    inside = (near < 0) & (far > 0)
    erf = lambda x: jax.scipy.special.erf(x / math.sqrt(2))
    around = jnp.log(0.5 * (erf(jnp.where(inside, far, 1)) - erf(jnp.where(inside, near, -1))))
    top, bottom = jnp.where(inside, -1.0, far), jnp.where(inside, -2.0, near)
    open_ended = jnp.isneginf(bottom)
    bottom = jnp.where(open_ended, top - 1, bottom)
    ratio = gaussian.log_cdf(bottom) - gaussian.log_cdf(top)
    log_share = jnp.where(open_ended, 0.0, jnp.log(-jnp.expm1(jnp.minimum(ratio, -1e-12))))
    return jnp.where(inside, around, gaussian.log_cdf(top) + log_share)


def ode_log_likelihood(denoise: Denoise, schedule: Schedule, key: Key, images: ArrayLike) -> Float[Array, " b"]:
    """Estimate log p(x) of continuous images by the probability flow ODE, nats per image.

    With α_t = √ᾱ_t = cos φ and σ_t = √(1 - ᾱ_t) = sin φ the flow is dx/dφ = v, where v = α ε - σ x_0 (Salimans & Ho
    2022, §4), or with λ = log σ/α it is dx/dλ = σ (ε - σ x), so log p(x_0) = log N(x_T; 0, 1) + ∫ div v dφ (Song et al.
    2021, eq. 39), from time 0 to T - 1 by Heun's method. The variable is λ, in which an error of ε is not divided by α;
    a last step that leaves nothing of the image is in φ, which ends at π/2. The divergence is w·(∂v/∂x)ᵀw of a
    Rademacher probe w (Hutchinson 1990; Grathwohl et al. 2019). 2 (T - 1) evaluations, with gradients, in one scan.

    The density is that of images with noise of standard deviation σ_0/√ᾱ_0. Pixels of discrete levels are first spread
    over their bins (``dequantise``), which makes the mean a bound.

    Args:
      denoise: denoiser, ``(x_t, t) -> ε`` or a ``Prediction``.
      schedule: the schedule of T ≥ 2 steps.
      key: key of the probe; one key, or one per image.
      images: x_0 [b ...].

    Raises:
      ValueError: the schedule has one step; images are not of floating point or not finite; or the denoiser returns ε
        alone and the last ᾱ is 0 (see ``from_noise``).
    """
    images = _images(images, 0)
    if schedule.num_steps < 2:
        raise ValueError("schedule: expected at least 2 steps, the flow is walked from the first time to the last")
    probe = jax.vmap(lambda k: jax.random.rademacher(k, images.shape[1:], images.dtype))(
        random.example_keys(key, images.shape[0])
    )
    dims = math.prod(images.shape[1:])

    def slope(x: Arrays, t: Int[Array, ""], last: Bool[Array, ""]) -> tuple[Arrays, Float[Array, " b"]]:
        times, sigma_t = jnp.broadcast_to(t, x.shape[:1]), at(sigma, t, x)

        def velocity(x: Arrays) -> Arrays:
            prediction = _predict(denoise, schedule, x, times)
            in_angle = predictions.to_v(schedule, prediction, times)
            return jnp.where(last, in_angle, sigma_t * (prediction.noise - sigma_t * x))

        value, vjp = jax.vjp(velocity, x)
        return value, _sum(vjp(probe)[0] * probe)

    def step(state: Any, inputs: Any) -> tuple[Any, None]:
        (x, log_volume), (t, change, last) = state, inputs
        slope_1, divergence_1 = slope(x, t, last)
        slope_2, divergence_2 = slope(x + change * slope_1, t + 1, last)
        x = x + 0.5 * change * (slope_1 + slope_2)
        return (x, log_volume + 0.5 * change * (divergence_1 + divergence_2)), None

    alpha, sigma = schedule.sqrt_alpha_bar, schedule.sqrt_one_minus_alpha_bar
    xp = np if isinstance(alpha, np.ndarray) else jnp
    last = alpha[1:] == 0
    in_log = xp.diff(xp.log(sigma / xp.where(alpha > 0, alpha, 1)))
    in_angle = xp.diff(xp.arctan2(sigma, alpha))
    change = jnp.asarray(xp.where(last, in_angle, in_log), images.dtype)
    start = (at(alpha, 0, images) * images, jnp.zeros(images.shape[0], images.dtype))
    (end, log_volume), _ = jax.lax.scan(step, start, (jnp.arange(schedule.num_steps - 1), change, last))
    normal = -0.5 * (_sum(end**2) + dims * math.log(2 * math.pi))
    return normal + log_volume + dims * jnp.asarray(logarithm(alpha[:1])[0], images.dtype)


def dequantise(key: Key, images: ArrayLike, num_levels: int = 256) -> tuple[Arrays, float]:
    """Spread pixels evenly over their bins (Theis et al. 2016, eq. 3 and 4).

    Returns:
      The images, and d log of a bin's width: log P(level) ≥ E log p(x) + d log width.

    Raises:
      ValueError: fewer than 2 levels; or images are not of floating point, not finite, or outside [-1, 1].
    """
    images = _images(images, checks.count("num_levels", num_levels, 2))
    width = 2 / (num_levels - 1)
    draw = lambda k: jax.random.uniform(k, images.shape[1:], images.dtype, -0.5, 0.5)
    noise = jax.vmap(draw)(random.example_keys(key, images.shape[0]))
    return images + width * noise, math.prod(images.shape[1:]) * math.log(width)


def _log_variance(schedule: Schedule, variance: Variance, prediction: Prediction, t: Times, like: Arrays) -> Arrays:
    if prediction.variance_interpolation is not None:
        return process.log_variance(schedule, prediction.variance_interpolation, t)
    return at(logarithm(_variance(schedule, variance)), t, like)


def _variance(schedule: Schedule, variance: Variance) -> Table:
    named = {"small": process.posterior_variance_clipped, "large": process.fixed_large_variance}
    if isinstance(variance, str) and variance in named:
        return named[variance](schedule)
    if isinstance(variance, str) or np.shape(variance) != (schedule.num_steps,):
        raise ValueError(
            f"variance: expected 'small', 'large' or a table of {schedule.num_steps} variances; got {variance!r}"
        )
    checks.positive("variance", variance)
    return variance


def _levels(num_levels: int) -> None:
    if checks.count("num_levels", num_levels, 0) == 1:
        raise ValueError("num_levels: expected 0, for continuous pixels, or at least 2; got 1")


def _images(images: ArrayLike, num_levels: int) -> Arrays:
    """Check images, and return them at least in float32."""
    checks.floats("images", images)
    _levels(num_levels)
    if num_levels:
        checks.within("images", images, -1, 1)
    images = jnp.asarray(images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def _predict(denoise: Denoise, schedule: Schedule, x_t: Arrays, t: Int[Array, " b"]) -> Prediction:
    """Evaluate the denoiser; the prediction has the dtype of x_t, whatever the network computes in."""
    prediction = predictions.to_prediction(schedule, denoise(x_t, t), x_t, t)
    return jax.tree.map(lambda part: jnp.asarray(part, x_t.dtype), prediction)


def _sum(values: Arrays) -> Float[Array, " b"]:
    return values.sum(axis=tuple(range(1, values.ndim)))
