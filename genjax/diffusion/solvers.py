"""Solvers of the probability flow and its noisy relative, of higher order than DDIM; each is one scan on a grid.

With x̄ = x/α and σ̄ = σ/α the flow is dx̄/dσ̄ = ε(x̄): Euler's method on it is ``samplers.ddim_on_grid``. With λ = log α/σ it is
linear but for x̂_0, which is what DPM-Solver++ integrates exactly. The network is evaluated once in every step of the
scan, several times in a step of some solvers.

Tables of a grid of numbers are float64; a grid that is traced, as one that is learned, is differentiated.
"""

import math
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks, random
from genjax.diffusion import grids, samplers
from genjax.diffusion.pseudo import pndm
from genjax.diffusion.samplers import Clip, Denoise, Sample
from genjax.diffusion.schedules import MIN_ALPHA, Table, root

__all__ = ["dpm_solver", "dpm_solver_sde", "heun", "invert", "pndm"]
Arrays = Float[Array, "b ..."]
MAX_STEP_RATIO = 2.0
"""How many times as long as the step before a step may be, in λ, to look back on it."""


def dpm_solver(denoise: Denoise, grid: grids.Grid, *, clip: Clip = True) -> Sample:
    """DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2): of second order, K evaluations.

    x_s = σ_s/σ_t x_t - α_s (e^{-h} - 1) D,  D = x̂_0 + h/(2 h') (x̂_0 - x̂_0'),  h = λ_s - λ_t

    with the prediction x̂_0' and the step h' before. D = x̂_0 in the first step, in a last one that leaves no noise, and
    where h > 2 h', as at the end of leading times: the order is lowered rather than x̂_0 extrapolated far (there, §3.4,
    lowers it in the last steps). Of first order too is a step from where nothing of the image is left.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.

    Raises:
      ValueError: see ``samplers.begin``.
    """
    denoise, steps = samplers.begin(denoise, grid), _multistep(grid, 1)
    return _two_step(denoise, grid, steps._replace(deviation=np.zeros(grid.num_steps)), clip)


def dpm_solver_sde(denoise: Denoise, grid: grids.Grid, *, clip: Clip = True) -> Sample:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022b, eq. 19): the same for the reverse diffusion, noise in every step.

    x_s = σ_s/σ_t e^{-h} x_t + α_s (1 - e^{-2h}) D + σ_s √(1 - e^{-2h}) z

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.

    Raises:
      ValueError: see ``samplers.begin``.
    """
    denoise = samplers.begin(denoise, grid)
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
    ratio = noise[1:] / signal[1:] * signal[:-1] / noise[:-1]  # e^-h; α = 0 at the first place at most
    jumps = ratio <= 0  # from where nothing of the image is left, or to where all of it is
    h = -xp.log(xp.where(jumps, 1, ratio))
    before = xp.concatenate([xp.ones(1), xp.where(jumps, 1, h)[:-1]])
    seen = xp.concatenate([xp.zeros(1), xp.where(jumps, 0, 1)[:-1]]) * (h <= MAX_STEP_RATIO * before)
    left = 1 - ratio**power
    shrink = noise[1:] / noise[:-1] * ratio ** (power - 1)
    return _Steps(shrink, signal[1:] * left, seen * h / (2 * before), noise[1:] * root(left))


def _two_step(denoise: Denoise, grid: grids.Grid, steps: _Steps, clip: Clip) -> Sample:
    def kernel(keys, state, step):
        (x, before), (time, signal, noise, table) = state, step
        x0 = samplers.evaluate_denoiser(denoise, x, time, signal, noise, clip).x0
        better = x0 + table.weight * (x0 - before)
        z = random.normal(keys, x.shape[1:], x.dtype)
        return (table.shrink * x + table.gain * better + table.deviation * z, x0), None

    inputs = grid.cond[:-1], grid.alpha[:-1], grid.sigma[:-1], steps
    return samplers.chain(kernel, inputs, begin=lambda x: (x, x), image=lambda state: state[0])


def heun(
    denoise: Denoise,
    grid: grids.Grid,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
    clip: Clip = True,
) -> Sample:
    """Heun's method with churn (Karras et al. 2022, Algorithm 2): of second order, 2K - 1 evaluations.

    Before a step noise is added up to σ̂ = (1 + γ) σ̄, γ = min(S_churn/K, √2 - 1) where S_min ≤ σ̄ ≤ S_max; the step from
    σ̂ then averages the slopes at both its ends, unless it ends without noise.

    Where σ̄ falls over eightfold to still more than 1, and from where nothing of the image is left, it is Heun's method
    for the same flow in x/σ and α/σ, whose slope is x̂_0 and stays finite: there σ̄ is too large to average slopes in.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps. One that is traced is taken to end without noise.
      s_churn: S_churn; 0 is deterministic. More wants a network that is told σ, as on ``grids.karras``.
      s_tmin: the least σ̄ with churn.
      s_tmax: the largest σ̄ with churn.
      s_noise: S_noise, the deviation of the added noise.
      clip: clip x̂_0 to [-1, 1], or how else to bound it.

    Raises:
      ValueError: ``s_churn`` < 0, or churn on a grid whose network is told something else than σ, or a range whose ends
        are the wrong way round, or ``s_noise`` < 0; or see ``samplers.begin``.
    """
    if not s_churn >= 0:
        raise ValueError(f"s_churn: expected 0 (deterministic) or more, got {s_churn:g}")
    if not s_tmin <= s_tmax or not 0 <= s_noise < math.inf:
        raise ValueError(
            f"s_tmin, s_tmax, s_noise: expected s_tmin <= s_tmax and s_noise >= 0, got {s_tmin:g}, {s_tmax:g} and {s_noise:g}"
        )
    denoise = samplers.begin(denoise, grid)
    if s_churn and (_tables(grid)[0] is jnp or not np.array_equal(grid.cond, grid.sigma_bar)):
        raise ValueError(
            "s_churn: expected a grid whose network is told σ, as karras(); leave s_churn at 0 on whole times"
        )
    xp, (time, signal, noise) = _tables(grid)
    spread = grids.Grid(time, signal, noise).sigma_bar
    inside = (spread >= s_tmin) & (spread <= s_tmax)
    raised = xp.where(inside, spread * (1 + min(s_churn / grid.num_steps, 2**0.5 - 1)), spread)
    added = s_noise * signal * (raised**2 - spread**2) ** 0.5 if s_churn else xp.zeros_like(signal)
    before, after = raised[:-1], spread[1:]
    plain = 0.5 * (after - xp.where(grids.is_steep(before, after), after, before)) * signal[1:]
    turned = xp.where(grids.is_steep(before, after), -0.5 * noise[1:] * (1 - after / before), plain)
    here = (raised if s_churn else time)[:-1], signal[:-1], (raised * signal if s_churn else noise)[:-1]
    none = xp.zeros(grid.num_steps)
    first = *here, signal[1:], noise[1:], added[:-1], none, none
    second = time[1:], signal[1:], noise[1:], none, none, none, turned, none + 1
    both = (xp.stack([a, b], 1).reshape(-1) for a, b in zip(first, second, strict=True))
    clean = xp is jnp or not noise[-1]
    steps = [table[:-1] if clean else table for table in both]
    steps[0] = steps[0].astype(grid.cond.dtype)

    def kernel(keys, state, step):
        (x, slope), (time, signal, noise, image, spread, added, gain, again) = state, step
        x = x + added * random.normal(keys, x.shape[1:], x.dtype)
        guess = samplers.evaluate_denoiser(denoise, x, time, signal, noise, clip)
        euler = image * guess.x0 + spread * guess.noise
        return (jnp.where(again, x + gain * (guess.noise - slope), euler), guess.noise), None

    done = np.minimum(2 * np.arange(grid.num_steps + 1), len(steps[0]))
    return samplers.chain(
        kernel, tuple(steps), begin=lambda x: (x, jnp.zeros_like(x)), image=lambda state: state[0], done=done
    )


def _tables(grid: grids.Grid) -> tuple[ModuleType, grids.Grid]:
    """The module to calculate with, and the grid as its arrays: NumPy, in float64, unless the grid is traced."""
    if any(isinstance(table, jax.core.Tracer) for table in grid):
        return jnp, grids.Grid(*map(jnp.asarray, grid))
    return np, grids.Grid(*(np.asarray(table, np.float64) for table in grid))


def invert(denoise: Denoise, grid: grids.Grid, *, iterations: int = 3) -> Sample:
    """From images to the noise that DDIM with η = 0 makes them from, on the same grid: ``sample(key, x_0) -> x_T``.

    Each step solves x̄_t = x̄_s + (σ̄_t - σ̄_s) ε(x_t, t), the deterministic step read backwards, by that many fixed-point
    iterations from x̄_t = x̄_s: one is the usual inversion (Dhariwal & Nichol 2021, App. F), more make it exact (Pan et
    al. 2023) where σ̄ rises by no more than a few times in a step. Where it rises over eightfold from more than 1, and
    to where nothing of the image is left, the step is solved as x_t/σ_t = x_s/σ_s - (1/σ̄_s - 1/σ̄_t) x̂_0(x_t, t), which
    contracts as long as x̂_0 hardly depends on x_t there: so it does where a network predicts v or x_0. ``iterations``
    · K evaluations. Nothing is clipped.

    Args:
      denoise: ``(x, time) -> ε``, or a ``Prediction``.
      grid: of K steps.
      iterations: at least 1.

    Raises:
      ValueError: ``iterations`` < 1; or what is no grid, see ``grids.check``; or, when the chain runs, ε alone at a
        place with α = 0.
    """
    checks.count("iterations", iterations)
    grids.check(grid)
    denoise = samplers.telling(denoise, grid)
    back = slice(-2, None, -1)
    xp, (_, signal, noise) = _tables(grid)
    spread = grids.Grid(grid.cond, signal, noise).sigma_bar
    noisy = grids.is_steep(spread[:-1], spread[1:])[::-1]
    (signal, noise), (came, left) = (signal[back], noise[back]), (signal[:0:-1], noise[:0:-1])
    if xp is np and signal[-1] < MIN_ALPHA and not left[-1] > 0:
        raise ValueError("grid: expected a place between the image and where nothing of it is left; it has none")
    kept = xp.where(noisy, noise / xp.where(noisy, left, 1), signal / came)
    of_image = xp.where(noisy, signal - kept * came, 0)
    of_noise = xp.where(noisy, 0, noise - kept * left)
    done = np.tile(np.arange(iterations) == iterations - 1, grid.num_steps)
    tables = grid.cond[back], signal, noise, kept, of_image, of_noise
    steps = *(xp.repeat(table, iterations) for table in tables), done

    def kernel(keys, state, step):
        (x, base), (time, signal, noise, kept, of_image, of_noise, done) = state, step
        guess = samplers.evaluate_denoiser(denoise, x, time, signal, noise, False)
        x = kept * base + of_image * guess.x0 + of_noise * guess.noise
        return (x, jnp.where(done, x, base)), None

    done = iterations * np.arange(grid.num_steps + 1)
    return samplers.chain(kernel, steps, begin=lambda x: (x, x), image=lambda state: state[0], done=done)
