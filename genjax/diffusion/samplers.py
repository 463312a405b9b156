"""Samplers of first order for any callable that predicts the noise, and the evaluation that all samplers share."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks, random
from genjax.diffusion import grids, predictions, process
from genjax.diffusion.chains import Sample, Sampler, make_sampler
from genjax.diffusion.predictions import Prediction
from genjax.diffusion.schedules import MIN_ALPHA, Schedule, Table, at, root
from genjax.types import Key

__all__ = [
    "Clip",
    "Denoise",
    "Sample",
    "Sampler",
    "ancestral",
    "clip_x0",
    "ddim",
    "ddim_on_grid",
    "evaluate_denoiser",
    "prepare",
    "require_prediction",
    "respace",
    "variance_preserving",
]
Arrays = Float[Array, "b ..."]
Times = Int[Array, " b"] | Float[Array, " b"]
Variance = Literal["small", "large"] | Table
Denoise = Callable[[Arrays, Times], Arrays | Prediction]
"""``(x_t, cond [b]) -> ε``, or the ``Prediction`` of image and noise; ``cond`` is the grid's, a time on a schedule."""

Clip = bool | Callable[[Arrays], Arrays]
"""Clipping of x̂_0: True clips to [-1, 1], the range of images; False does not clip; or a function of x̂_0."""


def ancestral(
    denoise: Denoise,
    schedule: Schedule,
    *,
    variance: Variance = "small",
    clip: Clip = True,
) -> Sampler:
    """Make the reverse chain of DDPM (Ho et al. 2020, Algorithm 2): T steps, one evaluation each.

    x_{t-1} = c_0 x̂_0 + c_t x_t + σ_t z,  z ~ N(0, 1), no noise at the last step; x̂_0 from the predicted noise. For some
    of the times alone: ``ancestral(*respace(denoise, schedule, times))``.

    Args:
      denoise: denoiser, ``(x_t, t) -> ε`` with t an int array [b].
      schedule: the schedule of T steps.
      variance: σ_t²: "small" is β̃_t, optimal for data at one point; "large" is β_t, optimal for N(0, 1) data (§3.2);
        or a table [T] of variances. A learned variance of the prediction takes precedence.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: ``variance`` is neither a name nor a table [T] of finite numbers of at least 0.

    Warns:
      StartWarning: much of the image is left at time T - 1; see ``grids.check_start``.
    """
    std = root(_variances(schedule, variance))
    grids.check_start(schedule.sqrt_alpha_bar[-1], schedule.sqrt_one_minus_alpha_bar[-1], schedule.num_steps - 1)

    def step(keys: Key, x: Arrays, t: Int[Array, ""]) -> Arrays:
        times = jnp.broadcast_to(t, x.shape[:1])
        prediction = _as(x, predictions.to_prediction(schedule, denoise(x, times), x, times))
        mean = process.posterior(schedule, clip_x0(prediction.x0, clip), x, t).mean
        std_t = at(std, t, x)
        if prediction.variance_interpolation is not None:
            std_t = jnp.exp(0.5 * process.log_variance(schedule, prediction.variance_interpolation, t))
        return mean + jnp.where(t > 0, std_t, 0) * random.normal(keys, x.shape[1:], x.dtype)

    return make_sampler(step, np.arange(schedule.num_steps)[::-1])


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    *,
    num_steps: int,
    eta: float = 0.0,
    spacing: grids.Spacing = "trailing",
    clip: Clip = True,
) -> Sampler:
    """Make DDIM on some times of a schedule (Song et al. 2021, eq. 12 and 16); see ``ddim_on_grid``.

    Args:
      denoise: denoiser, ``(x_t, t) -> ε`` with t an int array [b].
      schedule: the schedule of T steps.
      num_steps: K, the number of evaluations, 1 to T.
      eta: η. 0 is deterministic; 1 on all T steps is ``ancestral`` with small variance.
      spacing: spacing of the times; see ``timesteps``.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: ``num_steps`` is outside [1, T], ``eta`` is outside [0, 1], or the spacing is unknown.
    """
    grid = grids.on_times(schedule, grids.timesteps(schedule.num_steps, num_steps, spacing))
    return ddim_on_grid(denoise, grid, eta=eta, clip=clip)


def ddim_on_grid(denoise: Denoise, grid: grids.Grid, *, eta: float = 0.0, clip: Clip = True) -> Sampler:
    """Make DDIM on any grid, K evaluations; with η = 0 it is Euler's method for the probability flow dx̄/dσ̄ = ε.

    x_s = α_s x̂_0 + √(σ_s² - σ²) ε̂ + σ z,  σ² = η² σ_s²/σ_t² (σ_t² - σ_s² α_t²/α_s²) (Song et al. 2021, eq. 12 and 16)

    where s follows t on the grid. If x̂_0 is clipped, ε̂ is the noise that goes with the clipped x̂_0.

    Args:
      denoise: denoiser, ``(x, cond) -> ε`` or a ``Prediction``.
      grid: the grid of K steps.
      eta: η. 0 is deterministic; 1 is ``ancestral`` with small variance on this grid.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: ``eta`` is outside [0, 1]; or see ``prepare``.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 (deterministic) to 1 (ancestral), got {eta:g}")
    denoise = prepare(denoise, grid)
    here, next_alpha, next_sigma = grids.places(grid, slice(-1)), grid.alpha[1:], grid.sigma[1:]
    variance = eta**2 * (next_sigma / here.sigma) ** 2 * (here.sigma**2 - (next_sigma * here.alpha / next_alpha) ** 2)
    direction = root(next_sigma**2 - variance) if eta else next_sigma

    def step(keys: Key, x: Arrays, place: Any) -> Arrays:
        here, next_alpha, direction, std = place
        x0, noise, _ = evaluate_denoiser(denoise, x, here, clip)
        return next_alpha * x0 + direction * noise + std * random.normal(keys, x.shape[1:], x.dtype)

    return make_sampler(step, (here, next_alpha, direction, root(variance)))


def respace(denoise: Denoise, schedule: Schedule, times: Int[np.ndarray, " _"]) -> tuple[Denoise, Schedule]:
    """Restrict a process to some of its times: the denoiser and schedule for ``ancestral`` or the bound.

    β of a step from t to s is 1 - ᾱ_t/ᾱ_s (Nichol & Dhariwal 2021, eq. 19).

    >>> from genjax import diffusion
    >>> denoise, schedule = respace(lambda x, t: x, diffusion.linear_schedule(1000), np.array([999, 499, 0]))
    >>> schedule.num_steps
    3

    Args:
      denoise: denoiser of all T times.
      schedule: the schedule of T steps.
      times: whole numbers in [0, T), from noisy to clean.

    Raises:
      ValueError: times do not fall, or lie outside [0, T).
    """
    grid = grids.on_times(schedule, times)
    rising = jnp.asarray(np.ascontiguousarray(np.asarray(times)[::-1]), jnp.int32)
    return lambda x, t: denoise(x, rising[t]), _schedule(grid.alpha[-2::-1] ** 2)


def variance_preserving(denoise: Denoise, grid: grids.Grid) -> tuple[Denoise, Schedule]:
    """Turn a grid into a process of T = K times with α² + σ² = 1, for ``ancestral``, the bound and the flow.

    Time 0 is the last place with noise, x_t = x/√(α² + σ²), and ε is the same (Karras et al. 2022, eq. 4).

    >>> from genjax import diffusion
    >>> denoise, schedule = variance_preserving(lambda x, sigma: x / sigma, diffusion.karras(3, 1.0, 7.0))
    >>> schedule.alpha_bar.round(2).tolist()
    [0.5, 0.11, 0.02]

    Args:
      denoise: denoiser, ``(x, cond) -> ε`` with ``cond`` of the grid.
      grid: the grid of K steps.
    """
    alpha, sigma, cond = (table[-2::-1] for table in (grid.alpha, grid.sigma, grid.cond))
    power = alpha**2 + sigma**2
    scaled = lambda x, t: denoise(x * at(root(power), t, x), jnp.asarray(cond, x.dtype)[t])
    return scaled, _schedule(alpha**2 / power)


def _schedule(alpha_bar: Table) -> Schedule:
    xp = np if isinstance(alpha_bar, np.ndarray) else jnp
    previous = xp.concatenate([xp.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
    return Schedule(1 - alpha_bar / previous, alpha_bar, previous)


def prepare(denoise: Denoise, grid: grids.Grid) -> Denoise:
    """Check a grid for a chain that starts from noise, and return the denoiser for it.

    Raises:
      ValueError: the tables are not a grid, see ``grids.check``; or, when the chain runs, see ``require_prediction``.

    Warns:
      StartWarning: much of the image is left at the first place; see ``grids.check_start``.
    """
    grids.check(grid)
    if not isinstance(grid, grids.PartialGrid):
        grids.check_start(grid.alpha[0], grid.sigma[0], grid.cond[0])
    return require_prediction(denoise, grid)


def require_prediction(denoise: Denoise, grid: grids.Grid) -> Denoise:
    """Return the denoiser, which must not return ε alone if nothing of the image is left at some place of the grid.

    Raises:
      ValueError: the denoiser returns ε alone and α = 0 at some place, when the chain runs.
    """
    if not checks.is_concrete(grid) or np.asarray(grid.alpha).min() >= MIN_ALPHA:
        return denoise

    def checked(x: Arrays, cond: Times) -> Prediction:
        if not isinstance(output := denoise(x, cond), Prediction):
            raise ValueError(
                "denoise: at a place of the grid nothing of the image is left, α = 0, where noise does not tell x_0; "
                "give a Prediction, as from_v and from_x0 make it, or times that leave that place out"
            )
        return output

    return checked


def evaluate_denoiser(denoise: Denoise, x: Arrays, place: grids.Grid, clip: Clip) -> Prediction:
    """Evaluate the denoiser at one place of a grid; if x̂_0 is clipped, recompute ε̂ = (x - α x̂_0)/σ."""
    output = denoise(x, jnp.broadcast_to(place.cond, x.shape[:1]))
    if not isinstance(output, Prediction):
        output = Prediction((x - place.sigma * output) / place.alpha, jnp.asarray(output))
    prediction = _as(x, output)
    if clip is False:
        return prediction
    x0 = clip_x0(prediction.x0, clip)
    return prediction._replace(x0=x0, noise=(x - place.alpha * x0) / place.sigma)


def _as(x: Arrays, prediction: Prediction) -> Prediction:
    """Cast a prediction to the dtype of the chain, whatever the network computes in."""
    return jax.tree.map(lambda part: jnp.asarray(part, x.dtype), prediction)


def clip_x0(x0: Arrays, clip: Clip) -> Arrays:
    """Clip x̂_0 to [-1, 1], leave it as it is, or apply a function.

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
