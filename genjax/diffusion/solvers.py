"""Solvers of the probability flow and its noisy relative, of higher order than DDIM; each is one scan on a grid.

With x̄ = x/α and σ̄ = σ/α the flow is dx̄/dσ̄ = ε(x̄): Euler's method on it is ``samplers.implicit``. With λ = log α/σ it is
linear but for x̂_0, which is what DPM-Solver++ integrates exactly. The network is evaluated once in every step of the
scan, several times in a step of some solvers.

Tables of a grid of numbers are float64; a grid that is traced, as one that is learned, is differentiated.
"""

from types import ModuleType
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import random
from genjax.diffusion import grids, samplers
from genjax.diffusion.samplers import Clip, Denoise, Sample
from genjax.diffusion.schedules import Schedule, Table

Arrays = Float[Array, "b ..."]


def dpm_solver(denoise: Denoise, grid: grids.Grid, *, clip: Clip = True) -> Sample:
    """DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2): of second order, K evaluations.

    x_s = σ_s/σ_t x_t - α_s (e^{-h} - 1) D,  D = x̂_0 + h/(2 h') (x̂_0 - x̂_0'),  h = λ_s - λ_t

    with the prediction x̂_0' and the step h' before; D = x̂_0 in the first step and in a last one that leaves no noise.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.
    """
    steps = _multistep(grid, 1)
    return _two_step(denoise, grid, steps._replace(deviation=np.zeros(grid.num_steps)), clip)


def dpm_solver_sde(denoise: Denoise, grid: grids.Grid, *, clip: Clip = True) -> Sample:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b, eq. 19): the same for the reverse diffusion, noise in every step.

    x_s = σ_s/σ_t e^{-h} x_t + α_s (1 - e^{-2h}) D + σ_s √(1 - e^{-2h}) z

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.
    """
    return _two_step(denoise, grid, _multistep(grid, 2), clip)


class _Steps(NamedTuple):
    """Tables [K]: x_s = shrink · x_t + gain (x̂_0 + weight (x̂_0 - x̂_0')) + deviation · z."""

    shrink: Table
    gain: Table
    weight: Table
    deviation: Table


def _multistep(grid: grids.Grid, power: int) -> _Steps:
    """The tables where x̂_0 enters with 1 - e^{-power·h}: 1 for the flow, 2 for the diffusion."""
    xp, (_, signal, noise) = _tables(grid)
    ratio = noise[1:] / signal[1:] * signal[:-1] / noise[:-1]  # e^-h
    jumps = ratio <= 0  # from where nothing of the image is left, or to where all of it is
    h = -xp.log(xp.where(jumps, 1, ratio))
    before = xp.concatenate([xp.ones(1), xp.where(jumps, 1, h)[:-1]])
    seen = xp.concatenate([xp.zeros(1), xp.where(jumps, 0, 1)[:-1]])
    left = 1 - ratio**power
    shrink = noise[1:] / noise[:-1] * ratio ** (power - 1)
    return _Steps(shrink, signal[1:] * left, seen * h / (2 * before), noise[1:] * left**0.5)


def _two_step(denoise: Denoise, grid: grids.Grid, steps: _Steps, clip: Clip) -> Sample:
    def kernel(keys, state, step):
        (x, before), (time, signal, noise, table) = state, step
        x0 = samplers.look(denoise, x, time, signal, noise, clip).x0
        better = x0 + table.weight * (x0 - before)
        z = random.normal(keys, x.shape[1:], x.dtype)
        return (table.shrink * x + table.gain * better + table.deviation * z, x0), None

    inputs = grid.time[:-1], grid.signal[:-1], grid.noise[:-1], steps
    return samplers.chain(kernel, inputs, begin=lambda x: (x, x), image=lambda state: state[0])


def heun(
    denoise: Denoise,
    grid: grids.Grid,
    *,
    churn: float = 0.0,
    churn_range: tuple[float, float] = (0.0, float("inf")),
    churn_noise: float = 1.0,
    clip: Clip = True,
) -> Sample:
    """Heun's method with churn (Karras et al. 2022, Algorithm 2): of second order, 2K - 1 evaluations.

    Before a step noise is added up to σ̂ = (1 + γ) σ̄, γ = min(S_churn/K, √2 - 1) where S_min ≤ σ̄ ≤ S_max; the step from
    σ̂ then averages the slopes at both its ends, unless it ends without noise.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps; σ̄ should fall by no more than a few times in each, as on Karras' grid or on leading times. One
        that is traced is taken to end without noise.
      churn: S_churn; 0 is deterministic. More wants a network that is told σ, as on ``grids.karras``.
      churn_range: S_min and S_max.
      churn_noise: S_noise, the deviation of the added noise.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.

    Raises:
      ValueError: ``churn`` < 0, or churn on a grid whose network is told something else than σ.
    """
    if churn < 0:
        raise ValueError(f"churn: expected 0 (deterministic) or more, got {churn:g}")
    if churn and (_tables(grid)[0] is jnp or not np.array_equal(grid.time, grid.spread)):
        raise ValueError("churn: expected a grid whose network is told σ, as karras(); leave churn at 0 on whole times")
    xp, (time, signal, noise) = _tables(grid)
    spread = noise / signal
    inside = (spread >= churn_range[0]) & (spread <= churn_range[1])
    raised = xp.where(inside, spread * (1 + min(churn / grid.num_steps, 2**0.5 - 1)), spread)
    added = churn_noise * (raised**2 - spread**2) ** 0.5 if churn else xp.zeros_like(spread)
    change = spread[1:] - raised[:-1]
    where = (raised if churn else time)[:-1], signal[:-1], (raised * signal if churn else noise)[:-1]
    first = *where, change, added[:-1], xp.zeros(grid.num_steps)
    second = time[1:], signal[1:], noise[1:], change, xp.zeros(grid.num_steps), xp.ones(grid.num_steps)
    both = (xp.stack([a, b], 1).reshape(-1) for a, b in zip(first, second, strict=True))
    clean = xp is jnp or not noise[-1]
    steps = [table[:-1] if clean else table for table in both]
    steps[0] = steps[0].astype(grid.time.dtype)

    def kernel(keys, state, step):
        (x, base, slope), (time, signal, noise, change, added, again) = state, step
        x = x + added * random.normal(keys, x.shape[1:], x.dtype)
        found = samplers.look(denoise, signal * x, time, signal, noise, clip).noise
        base, slope = jnp.where(again, base, x), jnp.where(again, 0.5 * (slope + found), found)
        return (base + change * slope, base, slope), None

    done = np.minimum(2 * np.arange(grid.num_steps + 1), len(steps[0]))
    return _scaled(kernel, tuple(steps), signal, lambda x: (x, x, jnp.zeros_like(x)), done)


def pndm(
    denoise: Denoise,
    schedule: Schedule,
    *,
    num_steps: int,
    spacing: grids.Spacing = "leading",
    start: Literal["runge_kutta", "linear"] = "runge_kutta",
    final: Literal["one", "first"] = "one",
    clip: Clip = False,
) -> Sample:
    """Pseudo numerical methods (Liu et al. 2022): x̄_s = x̄_t + (σ̄_s - σ̄_t) ε' by Adams and Bashforth's formula.

    ε' = (55 ε - 59 ε₁ + 37 ε₂ - 9 ε₃)/24 from the last four predictions (eq. 12). The first three steps, where there
    are fewer, are Runge and Kutta's of four evaluations each (eq. 13; K + 9 in all), or linear formulas of fewer steps
    behind one of Heun's (K + 1 in all), as is usual in latent diffusion.

    Args:
      denoise: ``(x_t, t) -> ε``, or a ``Prediction``.
      schedule: of T steps.
      num_steps: K; at least 4.
      spacing: which times; see ``timesteps``. Leading, as in the paper: the formula wants steps of like size, and the
        first from where next to nothing of the image is left is beyond it.
      start: "runge_kutta" is the paper's F-PNDM.
      final: what ᾱ is at the end; see ``grids.on_times``.
      clip: of x̂_0; the formulas extrapolate, which clipping spoils.

    Raises:
      ValueError: fewer than 4 steps or more than T, or an unknown start or spacing.
    """
    if num_steps < 4:
        raise ValueError(f"num_steps: expected at least 4, which the formula looks back; got {num_steps}")
    if start not in ("runge_kutta", "linear"):
        raise ValueError(f"start: expected 'runge_kutta' or 'linear', got {start!r}")
    times = grids.timesteps(schedule.num_steps, num_steps, spacing)
    grid = grids.on_times(schedule, times, final=final)
    steps = _pseudo(schedule, grid, start)

    def kernel(keys, state, step):
        (x, base, past, kept), (time, signal, noise, change, weights, use, keep, push, land) = state, step
        found = samplers.look(denoise, signal * x, time, signal, noise, clip).noise
        mixed = weights[0] * found + jnp.tensordot(weights[1:], past, 1) + use * kept
        moved = base + change * mixed
        kept = jnp.where(land, 0, kept + keep * found)
        past = jnp.where(push, jnp.concatenate([found[None], past[:-1]]), past)
        return (moved, jnp.where(land, moved, base), past, kept), None

    def begin(x):
        return x, x, jnp.zeros((3, *x.shape), x.dtype), jnp.zeros_like(x)

    lands = np.append(0, np.flatnonzero(steps[-1]) + 1)
    return _scaled(kernel, steps, grid.signal, begin, lands)


_ADAMS = {
    1: (1, 0, 0, 0),
    2: (3 / 2, -1 / 2, 0, 0),
    3: (23 / 12, -16 / 12, 5 / 12, 0),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def _pseudo(schedule: Schedule, grid: grids.Grid, start: str):
    """One row for each evaluation: where, the change of σ̄ from the base, weights of ε and its past, of what is kept,
    how much is kept, whether ε joins the past, and whether the step is done."""
    spread, times = np.asarray(grid.spread), np.asarray(grid.time)
    table = np.asarray(schedule.noise / schedule.signal)
    rows = []

    def row(time, at, change, weights, use=0.0, keep=0.0, push=False, land=False):
        signal = 1 / np.hypot(1, at)
        rows.append((time, signal, at * signal, change, np.array(weights, np.float64), use, keep, push, land))

    plain = _ADAMS[1]
    for i in range(grid.num_steps):
        now, after, change = times[i], times[i + 1], spread[i + 1] - spread[i]
        if start == "runge_kutta" and i < 3:
            middle = (now + after) // 2
            half = table[middle] - spread[i]
            sixth = (_RUNGE_KUTTA[3], 0, 0, 0)
            row(now, spread[i], half, plain, keep=_RUNGE_KUTTA[0], push=True)
            row(middle, table[middle], half, plain, keep=_RUNGE_KUTTA[1])
            row(middle, table[middle], change, plain, keep=_RUNGE_KUTTA[2])
            row(after, spread[i + 1], change, sixth, use=1.0, land=True)
        elif start == "linear" and i == 0:
            row(now, spread[i], change, plain, keep=0.5, push=True)
            row(after, spread[i + 1], change, (0.5, 0, 0, 0), use=1.0, land=True)
        else:
            row(now, spread[i], change, _ADAMS[min(i + 1, 4)], push=True, land=True)
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


def _scaled(kernel, steps, signal: Table, begin, done: Int[np.ndarray, " _"]) -> Sample:
    """A chain on x̄ = x/α, which begins, is kept and ends as x."""
    return samplers.chain(kernel, steps, begin=begin, image=lambda state: state[0], scale=signal, done=done)


def _tables(grid: grids.Grid) -> tuple[ModuleType, grids.Grid]:
    """The module to calculate with, and the grid as its arrays: NumPy, in float64, unless the grid is traced."""
    if any(isinstance(table, jax.core.Tracer) for table in grid):
        return jnp, grids.Grid(*map(jnp.asarray, grid))
    return np, grids.Grid(*(np.asarray(table, np.float64) for table in grid))


def invert(denoise: Denoise, grid: grids.Grid, *, iterations: int = 3) -> Sample:
    """From images to the noise that DDIM with η = 0 makes them from, on the same grid: ``sample(key, x_0) -> x_T``.

    Each step solves x̄_t = x̄_s + (σ̄_t - σ̄_s) ε(x_t, t), the deterministic step read backwards, by that many fixed-point
    iterations from x̄_t = x̄_s: one is the usual inversion (Dhariwal & Nichol 2021, App. F), more make it exact where
    steps are small enough (Pan et al. 2023): σ̄ should rise by no more than a few times in each, as on leading times;
    on trailing ones of a cosine schedule even hundreds are too few. ``iterations`` · K evaluations. Nothing is clipped.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      iterations: at least 1.

    Raises:
      ValueError: ``iterations`` < 1.
    """
    if iterations < 1:
        raise ValueError(f"iterations: expected at least 1, got {iterations}")
    back = slice(-2, None, -1)
    xp, (_, signal, noise) = _tables(grid)
    tables = grid.time[back], signal[back], noise[back], -xp.diff(noise / signal)[::-1]
    done = np.tile(np.arange(iterations) == iterations - 1, grid.num_steps)
    steps = *(xp.repeat(table, iterations) for table in tables), done

    def kernel(keys, state, step):
        (x, base), (time, signal, noise, change, done) = state, step
        x = base + change * samplers.look(denoise, signal * x, time, signal, noise, False).noise
        return (x, jnp.where(done, x, base)), None

    return _scaled(kernel, steps, signal[::-1], lambda x: (x, x), iterations * np.arange(grid.num_steps + 1))
