"""Pseudo numerical methods: formulas of Adams, Bashforth, Runge and Kutta for the flow dx̄/dσ̄ = ε (Liu et al. 2022)."""

from typing import Literal

import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax.diffusion import grids, samplers
from genjax.diffusion.samplers import Clip, Denoise, Sample
from genjax.diffusion.schedules import MIN_ALPHA, Schedule


def pndm(
    denoise: Denoise,
    schedule: Schedule,
    *,
    num_steps: int,
    spacing: grids.Spacing = "trailing",
    start: Literal["runge_kutta", "linear"] = "runge_kutta",
    final: Literal["one", "first"] = "one",
    clip: Clip | None = None,
) -> Sample:
    """Pseudo numerical methods (Liu et al. 2022): x̄_s = x̄_t + (σ̄_s - σ̄_t) ε' by Adams and Bashforth's formula.

    ε' = (55 ε - 59 ε₁ + 37 ε₂ - 9 ε₃)/24 from the last four predictions (eq. 12). The first three steps, where there
    are fewer, are Runge and Kutta's of four evaluations each (eq. 13; K + 9 in all), or linear formulas of fewer steps
    behind one of Heun's (K + 1 in all), as is usual in latent diffusion. A step in which σ̄ falls over eightfold to
    still more than 1, or from where nothing of the image is left, is DDIM's, and the formulas begin behind it.

    Args:
      denoise: ``(x_t, t) -> ε``, or a ``Prediction``.
      schedule: of T steps.
      num_steps: K; at least 4, as far as the formula looks back.
      spacing: which times; see ``timesteps``. The paper's are leading, which do not reach the last: many steps that do
        not divide T begin far from it.
      start: "runge_kutta" is the paper's F-PNDM.
      final: what ᾱ is at the end; see ``grids.on_times``.
      clip: of x̂_0. By default to [-1, 1] in a step of DDIM's alone, where an error of ε is divided by an α near 0: the
        formulas extrapolate, which clipping spoils.

    Raises:
      ValueError: fewer than 4 steps or more than T, or an unknown start or spacing.
    """
    checks.count("num_steps", num_steps, 4)
    if start not in ("runge_kutta", "linear"):
        raise ValueError(f"start: expected 'runge_kutta' or 'linear', got {start!r}")
    times = grids.timesteps(schedule.num_steps, num_steps, spacing)
    grid = grids.on_times(schedule, times, final=final)
    denoise = samplers.begin(denoise, grid)
    steps, units = _pseudo(schedule, grid, start)

    def kernel(keys, state, step):
        (x, base, past, kept), row = state, step
        time, unit, signal, noise, stay, change, weights, use, keep, push, land = row
        guess = samplers.evaluate_denoiser(denoise, unit * x, time, signal, noise, clip or False)
        if clip is None:
            x0 = jnp.where(stay, guess.x0, samplers.clip_x0(guess.x0, True))
            guess = guess._replace(x0=x0, noise=jnp.where(stay, guess.noise, (unit * x - signal * x0) / noise))
        found = guess.noise
        mixed = weights[0] * found + jnp.tensordot(weights[1:], past, 1) + use * kept
        moved = jnp.where(stay, base, guess.x0) + change * mixed
        kept = jnp.where(land, 0, kept + keep * found)
        past = jnp.where(push, jnp.concatenate([found[None], past[:-1]]), past)
        return (moved, jnp.where(land, moved, base), past, kept), None

    def begin(x):
        return x, x, jnp.zeros((3, *x.shape), x.dtype), jnp.zeros_like(x)

    lands = np.append(0, np.flatnonzero(steps[-1]) + 1)
    return samplers.chain(kernel, steps, begin=begin, image=lambda state: state[0], scale=units, done=lands)


_ADAMS = {
    1: (1, 0, 0, 0),
    2: (3 / 2, -1 / 2, 0, 0),
    3: (23 / 12, -16 / 12, 5 / 12, 0),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
_RUNGE_KUTTA = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def _pseudo(schedule: Schedule, grid: grids.Grid, start: str):
    """One row for each evaluation: where, and the unit that x is counted in there, σ̄'s change from the base (σ̄ itself
    from x̂_0, where the base does not stay), weights of ε and its past, of what is kept, how much is kept, whether ε
    joins the past, and whether the step is done; and the units of the places, α but 1 where it is 0."""
    times, signals = np.asarray(grid.cond), np.asarray(grid.alpha, np.float64)
    spread, table = (
        np.asarray(places.sigma_bar)
        for places in (grid, grids.Grid(times, schedule.sqrt_alpha_bar, schedule.sqrt_one_minus_alpha_bar))
    )
    units, steep = np.where(signals < MIN_ALPHA, 1, signals), grids.is_steep(spread[:-1], spread[1:])
    rows = []

    def row(time, at, change, weights, use=0.0, keep=0.0, push=False, land=False, stay=True):
        signal, noise = 1 / np.hypot(1, at), 1 / np.hypot(1, 1 / max(at, 1e-300))
        unit = signal or 1.0
        rows.append((time, unit, signal, noise, stay, change, np.array(weights, np.float64), use, keep, push, land))

    plain, walked = _ADAMS[1], 0
    for i in range(grid.num_steps):
        now, after, change = times[i], times[i + 1], spread[i + 1] - spread[i]
        if steep[i]:
            row(now, spread[i], spread[i + 1], plain, land=True, stay=False)
            walked = 0
            continue
        if start == "runge_kutta" and walked < 3:
            middle = (now + after) // 2
            half = table[middle] - spread[i]
            sixth = (_RUNGE_KUTTA[3], 0, 0, 0)
            row(now, spread[i], half, plain, keep=_RUNGE_KUTTA[0], push=True)
            row(middle, table[middle], half, plain, keep=_RUNGE_KUTTA[1])
            row(middle, table[middle], change, plain, keep=_RUNGE_KUTTA[2])
            row(after, spread[i + 1], change, sixth, use=1.0, land=True)
        elif start == "linear" and walked == 0:
            row(now, spread[i], change, plain, keep=0.5, push=True)
            row(after, spread[i + 1], change, (0.5, 0, 0, 0), use=1.0, land=True)
        else:
            row(now, spread[i], change, _ADAMS[min(walked + 1, 4)], push=True, land=True)
        walked += 1
    return tuple(np.stack(column) for column in zip(*rows, strict=True)), units
