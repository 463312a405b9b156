"""Reverse chains, each one ``lax.scan`` of a kernel ``(keys, x_t, step) -> x_s``, for any callable predicting noise."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks, random
from genjax.diffusion import grids, predictions, process
from genjax.diffusion.chains import Sample, chain
from genjax.diffusion.schedules import MIN_ALPHA, Schedule, Table, at, root

Arrays = Float[Array, "b ..."]
Times = Int[Array, " b"] | Float[Array, " b"]
Variance = Literal["small", "large"] | Table
Denoise = Callable[[Arrays, Times], Arrays | predictions.Prediction]
"""``(x_t, t) -> ε``, or the ``Prediction`` of image and noise; t [b] as the network is told it."""

Clip = bool | Callable[[Arrays], Arrays]
"""How x̂_0 is bounded: True clips it to [-1, 1], the range of images; False leaves it; or a function of it."""


def ancestral(
    denoise: Denoise,
    schedule: Schedule,
    *,
    variance: Variance = "small",
    clip: Clip = True,
) -> Sample:
    """The reverse chain of DDPM (Ho et al. 2020, Algorithm 2): T steps, one evaluation of ``denoise`` each; on some of
    the times alone, ``ancestral(*respace(denoise, schedule, times))``.

    x_{t-1} = c_0 x̂_0 + c_t x_t + σ_t z,  z ~ N(0, 1), no noise at the last step; x̂_0 from the predicted noise.

    Args:
      denoise: ``(x_t, t) -> ε``, with t an int array [b].
      schedule: of T steps.
      variance: σ_t²: "small" is β̃_t, optimal for data at one point; "large" is β_t, optimal for N(0, 1) data (§3.2);
        or a table [T] of variances. A prediction that brings its own variance overrides it.
      clip: clip x̂_0 to [-1, 1], the range of images, or how else to bound it.

    Raises:
      ValueError: ``variance`` is neither of the names nor a table [T] of finite numbers of at least 0.

    Warns:
      StartWarning: where much of the image is left at time T - 1; see ``grids.check_start``.
    """
    deviation = root(_variances(schedule, variance))
    grids.check_start(schedule.sqrt_alpha_bar[-1], schedule.sqrt_one_minus_alpha_bar[-1], schedule.num_steps - 1)

    def kernel(keys, x, t):
        times = jnp.broadcast_to(t, x.shape[:1])
        guess = _as(x, predictions.to_prediction(schedule, denoise(x, times), x, times))
        mean = process.posterior(schedule, clip_x0(guess.x0, clip), x, t).mean
        spread = at(deviation, t, x)
        if guess.variance_interpolation is not None:
            spread = jnp.exp(0.5 * process.log_variance(schedule, guess.variance_interpolation, t))
        return mean + jnp.where(t > 0, spread, 0) * random.normal(keys, x.shape[1:], x.dtype), None

    return chain(kernel, np.arange(schedule.num_steps)[::-1])


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    *,
    num_steps: int,
    eta: float = 0.0,
    spacing: grids.Spacing = "trailing",
    clip: Clip = True,
) -> Sample:
    """Denoising diffusion ddim_on_grid models on a sub-grid of times (Song et al. 2021, eq. 12 and 16); see ``ddim_on_grid``.

    Args:
      denoise: ``(x_t, t) -> ε``, with t an int array [b].
      schedule: of T steps.
      num_steps: evaluations of ``denoise``, 1 to T.
      eta: 0 is deterministic; 1 on all T steps is ``ancestral`` with small variance.
      spacing: which times; see ``timesteps``.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.

    Raises:
      ValueError: ``num_steps`` outside [1, T], ``eta`` outside [0, 1], or an unknown spacing.
    """
    grid = grids.on_times(schedule, grids.timesteps(schedule.num_steps, num_steps, spacing))
    return ddim_on_grid(denoise, grid, eta=eta, clip=clip)


def ddim_on_grid(denoise: Denoise, grid: grids.Grid, *, eta: float = 0.0, clip: Clip = True) -> Sample:
    """DDIM on any grid; with η = 0 it is Euler's method for the probability flow dx̄/dσ̄ = ε. K evaluations.

    x_s = α_s x̂_0 + √(σ_s² - σ²) ε̂ + σ z,  σ² = η² σ_s²/σ_t² (σ_t² - σ_s² α_t²/α_s²) (Song et al. 2021, eq. 12 and 16)

    where s follows t on the grid. Where x̂_0 is clipped, ε̂ is the noise that goes with it.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      eta: 0 is deterministic; 1 is ``ancestral`` with small variance on this grid.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.

    Raises:
      ValueError: ``eta`` outside [0, 1]; or see ``begin``.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 (deterministic) to 1 (ancestral), got {eta:g}")
    denoise = begin(denoise, grid)
    signal, noise = grid.alpha[:-1], grid.sigma[:-1]
    after_signal, after_noise = grid.alpha[1:], grid.sigma[1:]
    variance = eta**2 * (after_noise / noise) ** 2 * (noise**2 - (after_noise * signal / after_signal) ** 2)
    direction = root(after_noise**2 - variance) if eta else after_noise
    steps = grid.cond[:-1], signal, noise, after_signal, direction, root(variance)

    def kernel(keys, x, step):
        time, signal, noise, after, direction, deviation = step
        guess = evaluate_denoiser(denoise, x, time, signal, noise, clip)
        return after * guess.x0 + direction * guess.noise + deviation * random.normal(keys, x.shape[1:], x.dtype), None

    return chain(kernel, steps)


def respace(denoise: Denoise, schedule: Schedule, times: Int[np.ndarray, " _"]) -> tuple[Denoise, Schedule]:
    """The same process seen at some times only: what ``ancestral`` and the bound take, on a sub-grid.

    β of a step from t to s is 1 - ᾱ_t/ᾱ_s (Nichol & Dhariwal 2021, eq. 19).

    >>> from genjax import diffusion
    >>> denoise, schedule = respace(lambda x, t: x, diffusion.linear_schedule(1000), np.array([999, 499, 0]))
    >>> schedule.num_steps
    3

    Args:
      denoise: of all T times.
      schedule: of T steps.
      times: from noisy to clean.

    Raises:
      ValueError: times that do not fall, or lie outside [0, T).
    """
    grid = grids.on_times(schedule, times)
    rising = jnp.asarray(np.ascontiguousarray(np.asarray(times)[::-1]), jnp.int32)
    return lambda x, t: denoise(x, rising[t]), _schedule(grid.alpha[-2::-1] ** 2)


def variance_preserving(denoise: Denoise, grid: grids.Grid) -> tuple[Denoise, Schedule]:
    """The same process as one of T = K times with α² + σ² = 1: what ``ancestral``, the bound and the flow take.

    Time 0 is the last place where there is noise, x_t = x/√(α² + σ²), and ε is the same (Karras et al. 2022, eq. 4).

    >>> from genjax import diffusion
    >>> denoise, schedule = variance_preserving(lambda x, sigma: x / sigma, diffusion.karras(3, sigma_min=1.0, sigma_max=7.0))
    >>> schedule.alpha_bar.round(2).tolist()
    [0.5, 0.11, 0.02]

    Args:
      denoise: told the ``time`` of the grid.
      grid: of K steps.
    """
    signal, noise, time = (place[-2::-1] for place in (grid.alpha, grid.sigma, grid.cond))
    power = signal**2 + noise**2
    scaled = lambda x, t: denoise(x * at(root(power), t, x), jnp.asarray(time, x.dtype)[t])
    return scaled, _schedule(signal**2 / power)


def _schedule(alpha_bar: Table) -> Schedule:
    xp = np if isinstance(alpha_bar, np.ndarray) else jnp
    before = xp.concatenate([xp.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
    return Schedule(1 - alpha_bar / before, alpha_bar, before)


def begin(denoise: Denoise, grid: grids.Grid) -> Denoise:
    """The denoiser for a chain from noise on a grid; one that must not say ε alone where nothing of the image is left.

    Raises:
      ValueError: what is no grid, see ``grids.check``; or, when the chain runs, ε alone at a place with α = 0.

    Warns:
      StartWarning: where much of the image is left at the first place; see ``grids.check_start``.
    """
    grids.check(grid)
    if not isinstance(grid, grids.PartialGrid):
        grids.check_start(grid.alpha[0], grid.sigma[0], grid.cond[0])
    return telling(denoise, grid)


def telling(denoise: Denoise, grid: grids.Grid) -> Denoise:
    """The denoiser, which must not say ε alone where a place of the grid leaves nothing of the image."""
    if not checks.is_concrete(grid) or np.asarray(grid.alpha).min() >= MIN_ALPHA:
        return denoise

    def whole(x: Arrays, time: Times) -> predictions.Prediction:
        if not isinstance(found := denoise(x, time), predictions.Prediction):
            raise ValueError(
                "denoise: at a place of the grid nothing of the image is left, α = 0, where noise does not tell x_0; "
                "give a Prediction, as from_v and from_x0 make it, or times that leave that place out"
            )
        return found

    return whole


def evaluate_denoiser(
    denoise: Denoise, x: Arrays, time: jax.Array, signal: jax.Array, noise: jax.Array, clip: Clip
) -> predictions.Prediction:
    """What the network sees at a place of a grid; where x̂_0 is bounded, with the noise that goes with it."""
    found = denoise(x, jnp.broadcast_to(time, x.shape[:1]))
    if not isinstance(found, predictions.Prediction):
        found = predictions.Prediction((x - noise * found) / signal, jnp.asarray(found))
    found = _as(x, found)
    if clip is False:
        return found
    x0 = clip_x0(found.x0, clip)
    return found._replace(x0=x0, noise=(x - signal * x0) / noise)


def _as(x: Arrays, found: predictions.Prediction) -> predictions.Prediction:
    """In the dtype that the chain carries, whatever the network computes in."""
    return jax.tree.map(lambda part: jnp.asarray(part, x.dtype), found)


def clip_x0(x0: Arrays, clip: Clip) -> Arrays:
    """x̂_0 in [-1, 1], as it is, or as a function bounds it.

    Raises:
      ValueError: x̂_0 is not of floating point.
    """
    checks.floating("x0", x0)
    if callable(clip):
        return clip(x0)
    return jnp.clip(x0, -1, 1) if clip else x0


def _variances(schedule: Schedule, variance: Variance) -> Table:
    named = {"small": schedule.posterior_variance, "large": schedule.beta}
    table = named.get(variance) if isinstance(variance, str) else variance
    if table is None or table.shape != schedule.beta.shape:
        raise ValueError(
            f"variance: expected 'small', 'large' or a table of {schedule.num_steps} variances; got {variance!r}"
        )
    checks.within("variance", table, 0)
    return table
