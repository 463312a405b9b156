"""How likely images are under a diffusion model: the variational bound term by term, and the probability flow.

-log p(x_0) ≤ D(q(x_T|x_0)‖N(0, 1)) + Σ_t D(q(x_{t-1}|x_t, x_0)‖p(x_{t-1}|x_t)) - log p(x_0|x_{t=0})
(Ho et al. 2020, eq. 5), all in nats per image; the last is a Gaussian integrated over the bin of each level.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from genjax import checks, random
from genjax.diffusion import predictions, process
from genjax.diffusion.optimal import optimal_variance, sub_schedule
from genjax.diffusion.predictions import Prediction
from genjax.diffusion.schedules import Schedule, Table, Times, at, logarithm
from genjax.theory import gaussian, markov
from genjax.types import Key

__all__ = [
    "Bound",
    "bound",
    "dequantise",
    "flow",
    "log_decoder",
    "optimal_variance",
    "prior",
    "sub_schedule",
    "term",
]
Arrays = Float[Array, "b ..."]
Denoise = Callable[[Arrays, Int[Array, " b"]], Arrays | Prediction]
Variance = Literal["small", "large"] | Table


class Bound(NamedTuple):
    """-log p(x_0) is at most ``prior`` + Σ_t ``steps``, nats per image.

    Fields:
      prior: [b], D(q(x_T|x_0)‖N(0, 1)).
      steps: [b t]; at t = 0 the decoder's -log p(x_0|x_t), at t > 0 the divergence of the step to t - 1.
      squared_error: [b t], |x_0 - x̂_0|² summed over the image.
    """

    prior: Float[Array, " b"]
    steps: Float[Array, "b t"]
    squared_error: Float[Array, "b t"]

    @property
    def total(self) -> Float[Array, " b"]:
        """The bound."""
        return self.prior + self.steps.sum(1)


def bound(
    denoise: Denoise,
    schedule: Schedule,
    key: Key,
    images: ArrayLike,
    *,
    variance: Variance = "small",
    num_levels: int = 256,
    clip: bool = True,
) -> Bound:
    """The bound, every step of it, with one draw of x_t for each: T evaluations of ``denoise`` in one scan.

    Args:
      denoise: ``(x_t, t) -> ε``, or a ``Prediction``.
      schedule: of T steps.
      key: one key, or one per image; image i depends on (key, i) only.
      images: x_0, at ``num_levels`` even levels in [-1, 1].
      variance: of the reverse steps, as in ``ancestral``; at t = 0 that of t = 1 stands in for 0.
      num_levels: of the pixels; 0 for continuous ones, whose decoder is a density.
      clip: clip x̂_0 to [-1, 1], as samplers do; say which with every number.

    Raises:
      ValueError: images that are not of floating point or not finite, or of levels outside [-1, 1]; ``num_levels`` of 1
        or below 0; a variance that is neither a name nor a table [t] of positive numbers; or, as ``from_noise``, ε
        alone where the last ᾱ is 0.
    """
    images = _images(images, num_levels)
    _variance(schedule, variance)
    keys = random.example_keys(key, images.shape[0])

    def kernel(_, state, t: Int[Array, ""]):
        times = jnp.broadcast_to(t, images.shape[:1])
        noise = random.normal(jax.vmap(lambda key: jax.random.fold_in(key, t))(keys), images.shape[1:], images.dtype)
        x_t = process.diffuse(schedule, images, times, noise)
        guess = _read(denoise, schedule, x_t, times)
        if clip:
            guess = guess._replace(x0=jnp.clip(guess.x0, -1, 1))
        nats = term(schedule, guess, images, x_t, times, variance=variance, num_levels=num_levels)
        return state, (nats, _sum((images - guess.x0) ** 2))

    _, (steps, squared_error) = markov.simulate(kernel, jax.random.key(0), (), jnp.arange(schedule.num_steps))
    return Bound(prior(schedule, images), steps.T, squared_error.T)


def prior(schedule: Schedule, images: ArrayLike) -> Float[Array, " b"]:
    """D(q(x_T|x_0)‖N(0, 1)) = ½ Σ (ᾱ_{T-1} x_0² - ᾱ_{T-1} - log(1 - ᾱ_{T-1})), nats."""
    images = _images(images, 0)
    left = schedule.alpha_bar[-1]
    rest = jnp.asarray(-left - 2 * logarithm(schedule.noise[-1:])[0], images.dtype)  # 1 - ᾱ loses digits in float32
    return 0.5 * _sum(jnp.asarray(left, images.dtype) * images**2 + rest)


def term(
    schedule: Schedule,
    guess: Prediction,
    images: Arrays,
    x_t: Arrays,
    t: Times,
    *,
    variance: Variance = "small",
    num_levels: int = 256,
) -> Float[Array, " b"]:
    """The bound's term at time t, nats per image: the divergence of the step to t - 1, or at t = 0 the decoder's.

    ½ Σ (β̃/σ² - 1 - log β̃/σ² + c_0² (x_0 - x̂_0)²/σ²), where for σ² = β̃_t the last is ½ (SNR_{t-1} - SNR_t) |x_0 - x̂_0|²
    (Kingma et al. 2021, eq. 13).

    Raises:
      ValueError: as ``bound``, of variance and levels; images or x_t that are not of floating point, or not finite.
    """
    _levels(num_levels)
    checks.floats("images", images)
    checks.floats("x_t", x_t)
    log_variance = _log_variance(schedule, variance, guess, t, images)
    ratio = at(logarithm(process.least_variance(schedule)), t, images) - log_variance
    difference = process.posterior(schedule, guess.x0 - images, jnp.zeros_like(x_t), t).mean
    step = gaussian.exp_minus_line(ratio) + difference**2 * jnp.exp(-log_variance)
    decoder = -log_decoder(images, guess.x0, 0.5 * log_variance, num_levels)
    return jnp.where(jnp.asarray(t) > 0, 0.5 * _sum(step), _sum(decoder))


def log_decoder(images: Arrays, mean: Arrays, log_std: Arrays, num_levels: int) -> Arrays:
    """log of the mass that N(mean, std²) has in the bin of each level; the outermost bins reach to ±∞ (eq. 13 there).

    Nothing cancels: where a bin holds the mean, the two sides are summed; else it is a difference of log Φ on the tail
    that it lies in, in logarithms.

    Args:
      images: at even levels in [-1, 1].
      mean, log_std: of the Gaussian.
      num_levels: 0 gives the density.

    Raises:
      ValueError: ``num_levels`` of 1 or below 0.
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
    rest = jnp.where(open_ended, 0.0, jnp.log(-jnp.expm1(jnp.minimum(ratio, -1e-12))))
    return jnp.where(inside, around, gaussian.log_cdf(top) + rest)


def flow(denoise: Denoise, schedule: Schedule, key: Key, images: ArrayLike) -> Float[Array, " b"]:
    """log p(x) of continuous images by the probability flow, nats per image: exact but for steps and probe.

    With α_t = √ᾱ_t = cos φ and σ_t = √(1 - ᾱ_t) = sin φ the flow is dx/dφ = v, where v = α ε - σ x_0 (Salimans & Ho
    2022, §4), or with λ = log σ/α it is dx/dλ = σ (ε - σ x), so log p(x_0) = log N(x_T; 0, 1) + ∫ div v dφ (Song et al.
    2021, eq. 39), from time 0 to T - 1 by Heun's method. It is walked in λ, where an error of ε is not divided by α,
    and in φ, which ends at π/2, in a last step that leaves nothing of the image. The divergence is w·(∂v/∂x)ᵀw of a
    Rademacher probe w (Hutchinson 1990; Grathwohl et al. 2019). 2 (T - 1) evaluations, with their gradients, in one
    scan.

    It is the density of images with noise of deviation σ_0/√ᾱ_0; pixels of levels are spread over their bins first
    (``dequantise``), which makes the mean a bound.

    Args:
      denoise: ``(x_t, t) -> ε``, or a ``Prediction``.
      schedule: of T ≥ 2 steps.
      key: of the probe; one key, or one per image.
      images: [b ...].

    Raises:
      ValueError: one step alone; images that are not of floating point or not finite; or, as ``from_noise``, ε alone
        where the last ᾱ is 0.
    """
    images = _images(images, 0)
    if schedule.num_steps < 2:
        raise ValueError("schedule: expected at least 2 steps, the flow is walked from the first time to the last")
    probe = jax.vmap(lambda k: jax.random.rademacher(k, images.shape[1:], images.dtype))(
        random.example_keys(key, images.shape[0])
    )
    dims = math.prod(images.shape[1:])

    def slope(x: Arrays, t: Int[Array, ""], last: Bool[Array, ""]) -> tuple[Arrays, Float[Array, " b"]]:
        times, deviation = jnp.broadcast_to(t, x.shape[:1]), at(schedule.noise, t, x)

        def velocity(x: Arrays) -> Arrays:
            guess = _read(denoise, schedule, x, times)
            return jnp.where(last, predictions.to_v(schedule, guess, times), deviation * (guess.noise - deviation * x))

        value, pull = jax.vjp(velocity, x)
        return value, _sum(pull(probe)[0] * probe)

    def kernel(_, state, step):
        (x, log_volume), (t, change, last) = state, step
        first, grows = slope(x, t, last)
        second, grew = slope(x + change * first, t + 1, last)
        return (x + 0.5 * change * (first + second), log_volume + 0.5 * change * (grows + grew)), None

    xp = np if isinstance(schedule.signal, np.ndarray) else jnp
    last = schedule.signal[1:] == 0
    in_log = xp.diff(xp.log(schedule.noise / xp.where(schedule.signal > 0, schedule.signal, 1)))
    in_angle = xp.diff(xp.arctan2(schedule.noise, schedule.signal))
    change = jnp.asarray(xp.where(last, in_angle, in_log), images.dtype)
    start = (at(schedule.signal, 0, images) * images, jnp.zeros(images.shape[0], images.dtype))
    inputs = (jnp.arange(schedule.num_steps - 1), change, last)
    (end, log_volume), _ = markov.simulate(kernel, jax.random.key(0), start, inputs)
    normal = -0.5 * (_sum(end**2) + dims * math.log(2 * math.pi))
    return normal + log_volume + dims * jnp.asarray(logarithm(schedule.signal[:1])[0], images.dtype)


def dequantise(key: Key, images: ArrayLike, num_levels: int = 256) -> tuple[Arrays, float]:
    """Pixels spread evenly over their bins, and d log of a bin's width: log P(level) ≥ E log p(x) + d log width.

    Theis et al. 2016, eq. 3 and 4.

    Raises:
      ValueError: fewer than 2 levels; images that are not of floating point, not finite, or outside [-1, 1].
    """
    images = _images(images, checks.count("num_levels", num_levels, 2))
    width = 2 / (num_levels - 1)
    draw = lambda k: jax.random.uniform(k, images.shape[1:], images.dtype, -0.5, 0.5)
    noise = jax.vmap(draw)(random.example_keys(key, images.shape[0]))
    return images + width * noise, math.prod(images.shape[1:]) * math.log(width)


def _log_variance(schedule: Schedule, variance: Variance, guess: Prediction, t: Times, like: Arrays) -> Arrays:
    if guess.fraction is not None:
        return process.log_variance(schedule, guess.fraction, t)
    return at(logarithm(_variance(schedule, variance)), t, like)


def _variance(schedule: Schedule, variance: Variance) -> Table:
    named = {"small": process.least_variance, "large": process.largest_variance}
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
    """Images, at least in float32."""
    checks.floats("images", images)
    _levels(num_levels)
    if num_levels:
        checks.within("images", images, -1, 1)
    images = jnp.asarray(images)
    return images.astype(jnp.promote_types(images.dtype, jnp.float32))


def _read(denoise: Denoise, schedule: Schedule, x_t: Arrays, t: Int[Array, " b"]) -> Prediction:
    """In the dtype of x_t, whatever the network computes in."""
    guess = predictions.read(schedule, denoise(x_t, t), x_t, t)
    return jax.tree.map(lambda part: jnp.asarray(part, x_t.dtype), guess)


def _sum(values: Arrays) -> Float[Array, " b"]:
    return values.sum(axis=tuple(range(1, values.ndim)))
