"""Pseudo numerical methods (Liu et al. 2022): Runge and Kutta's and Adams and Bashforth's formulas for dx̄/dσ̄ = ε."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks
from genjax.diffusion import grids, samplers
from genjax.diffusion.chains import Sampler, make_sampler
from genjax.diffusion.predictions import Prediction
from genjax.diffusion.samplers import Clip, Denoise
from genjax.diffusion.schedules import MIN_ALPHA, Schedule, Table
from genjax.types import Key

Arrays = Float[Array, "b ..."]
Start = Literal["runge_kutta", "linear"]


class _Place(NamedTuple):
    """Tables [K] of the steps.

    Attributes:
      now: the place where the step begins.
      middle: the place halfway, for Runge and Kutta's formula.
      after: the place where the step ends.
      change: σ̄_s - σ̄_t; σ̄_s for a step of DDIM.
      half_change: σ̄ halfway minus σ̄_t.
      is_ddim: True for a step of DDIM.
      is_start: True for a step of the starting method.
      weights: Adams and Bashforth's weights of ε, ε₁, ε₂ and ε₃ [K 4].
      scale: x/x̄ of the state after the step.
    """

    now: grids.Grid
    middle: grids.Grid
    after: grids.Grid
    change: Table
    half_change: Table
    is_ddim: Any
    is_start: Any
    weights: Any
    scale: Any


class _State(NamedTuple):
    """State of the chain.

    Attributes:
      x_bar: x̄ [b ...], x over ``scale``.
      past: the last three predictions ε₁, ε₂, ε₃ [3 b ...].
      scale: x/x̄.
    """

    x_bar: Arrays
    past: Array
    scale: Array


def pndm(
    denoise: Denoise,
    schedule: Schedule,
    *,
    num_steps: int,
    spacing: grids.Spacing = "trailing",
    start: Start = "runge_kutta",
    final: Literal["one", "first"] = "one",
    clip: Clip | None = None,
) -> Sampler:
    """Make a pseudo numerical method (Liu et al. 2022): x̄_s = x̄_t + (σ̄_s - σ̄_t) ε' by Adams and Bashforth's formula.

    ε' = (55 ε - 59 ε₁ + 37 ε₂ - 9 ε₃)/24 from the last four predictions (eq. 12). The first three steps have fewer
    predictions to look back on. They are Runge and Kutta's of four evaluations each (eq. 13; K + 9 evaluations in all),
    or linear formulas of fewer predictions behind one of Heun's (K + 1 in all), as is usual in latent diffusion. A step
    in which σ̄ falls over eightfold to still more than 1, or from where nothing of the image is left, is DDIM's, and the
    formulas begin behind it.

    Args:
      denoise: denoiser, ``(x_t, t) -> ε`` or a ``Prediction``.
      schedule: the schedule of T steps.
      num_steps: K; at least 4, as far as the formula looks back.
      spacing: spacing of the times; see ``timesteps``. The paper's is "leading", which does not reach the last time:
        many steps that do not divide T begin far from it.
      start: starting method; "runge_kutta" is the paper's F-PNDM.
      final: ᾱ at the end; see ``grids.on_times``.
      clip: clipping of x̂_0. None clips to [-1, 1] in a step of DDIM alone, where an error of ε is divided by an α near
        0: the formulas extrapolate, which clipping spoils.

    Raises:
      ValueError: ``num_steps`` is outside [4, T], or ``start`` or ``spacing`` is unknown.
    """
    checks.count("num_steps", num_steps, 4)
    if start not in ("runge_kutta", "linear"):
        raise ValueError(f"start: expected 'runge_kutta' or 'linear', got {start!r}")
    times = grids.timesteps(schedule.num_steps, num_steps, spacing)
    grid = grids.on_times(schedule, times, final=final)
    denoise = samplers.prepare(denoise, grid)
    places, first_scale = _places(schedule, grid, start)

    def evaluate(x_bar: Arrays, place: grids.Grid) -> Prediction:
        return samplers.evaluate_denoiser(denoise, _unit(place) * x_bar, place, clip or False)

    def runge_kutta(x_bar: Arrays, e1: Arrays, place: Any) -> Arrays:
        e2 = evaluate(x_bar + place.half_change * e1, place.middle).noise
        e3 = evaluate(x_bar + place.half_change * e2, place.middle).noise
        e4 = evaluate(x_bar + place.change * e3, place.after).noise
        return 1 / 6 * e1 + 1 / 3 * e2 + 1 / 3 * e3 + 1 / 6 * e4

    def heun(x_bar: Arrays, e1: Arrays, place: Any) -> Arrays:
        e2 = evaluate(x_bar + place.change * e1, place.after).noise
        return 0.5 * e1 + 0.5 * e2

    starting_method = runge_kutta if start == "runge_kutta" else heun

    def step(keys: Key, state: _State, place: Any) -> _State:
        x_bar, past, _ = state
        x0, noise, _ = evaluate(x_bar, place.now)
        adams_bashforth = place.weights[0] * noise + jnp.tensordot(place.weights[1:], past, 1)
        # Four copies of the network: Ho et al.'s compiles in 8 s of CPU time, against 4 s with one copy.
        slope = jax.lax.cond(place.is_start, starting_method, lambda *_: adams_bashforth, x_bar, noise, place)
        past = jnp.where(place.is_ddim, past, jnp.concatenate([noise[None], past[:-1]]))
        if clip is None:
            x0 = samplers.clip_x0(x0, True)
            noise = (_unit(place.now) * x_bar - place.now.alpha * x0) / place.now.sigma
        pseudo_or_ddim = jnp.where(place.is_ddim, x0, x_bar) + place.change * jnp.where(place.is_ddim, noise, slope)
        return _State(pseudo_or_ddim, past, place.scale)

    def init(x_T: Arrays) -> _State:
        scale = jnp.asarray(first_scale, x_T.dtype)
        return _State(x_T / scale, jnp.zeros((3, *x_T.shape), x_T.dtype), scale)

    return make_sampler(step, places, init=init, output=lambda state: state.x_bar * state.scale)


_ADAMS_BASHFORTH = np.array(
    [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)
"""Weights of ε, ε₁, ε₂ and ε₃ by the number of predictions to look back on."""


def _places(schedule: Schedule, grid: grids.Grid, start: Start) -> tuple[_Place, float]:
    """The tables of the steps, and the scale of the first state."""
    times, sigma_bar = np.asarray(grid.cond), np.asarray(grid.sigma_bar)
    middle_times = (times[:-1] + times[1:]) // 2
    all_times = grids.Grid(times, schedule.sqrt_alpha_bar, schedule.sqrt_one_minus_alpha_bar)
    middle_sigma_bar = np.asarray(all_times.sigma_bar)[middle_times]
    is_ddim = grids.is_steep(sigma_bar[:-1], sigma_bar[1:])
    num_past = _count_since(is_ddim)  # predictions to look back on
    alpha = np.asarray(grid.alpha, np.float64)
    scale = np.where(alpha < MIN_ALPHA, 1, alpha)
    known = np.where(is_ddim, 0, sigma_bar[:-1])  # σ̄ may be infinite in a step of DDIM
    place = _Place(
        now=_grid_at(times[:-1], sigma_bar[:-1]),
        middle=_grid_at(middle_times, middle_sigma_bar),
        after=_grid_at(times[1:], sigma_bar[1:]),
        change=sigma_bar[1:] - known,
        half_change=middle_sigma_bar - known,
        is_ddim=is_ddim,
        is_start=~is_ddim & (num_past < (3 if start == "runge_kutta" else 1)),
        weights=_ADAMS_BASHFORTH[np.minimum(num_past, 3)],
        scale=scale[1:],
    )
    return place, scale[0]


def _grid_at(time: np.ndarray, sigma_bar: np.ndarray) -> grids.Grid:
    alpha, sigma = 1 / np.hypot(1, sigma_bar), 1 / np.hypot(1, 1 / np.maximum(sigma_bar, 1e-300))
    return grids.Grid(time, alpha, sigma)


def _unit(place: grids.Grid) -> Any:
    return jnp.where(place.alpha > 0, place.alpha, 1)  # x/x̄, but x̄ = x where nothing of the image is left


def _count_since(is_ddim: np.ndarray) -> np.ndarray:
    """The number of steps since the last step of DDIM, or since the beginning, for each step."""
    counts = [0]
    for restart in is_ddim[:-1]:
        counts.append(0 if restart else counts[-1] + 1)
    return np.array(counts)
