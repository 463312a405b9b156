"""Solvers of the probability flow, of its noisy relative, and of the flow backwards; of higher order than DDIM.

With x̄ = x/α and σ̄ = σ/α the flow is dx̄/dσ̄ = ε(x̄): Euler's method for it is ``samplers.ddim_on_grid``. With λ = log α/σ
the flow is linear except for x̂_0, and DPM-Solver++ integrates the linear part exactly.

Tables of a known grid are float64. A traced grid, such as a learned one, is differentiated.
"""

import math
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks, random
from genjax.diffusion import grids, samplers
from genjax.diffusion.chains import Sampler, make_sampler
from genjax.diffusion.pseudo import pndm
from genjax.diffusion.samplers import Clip, Denoise
from genjax.diffusion.schedules import MIN_ALPHA, Table, root
from genjax.types import Key

__all__ = ["dpm_solver", "dpm_solver_sde", "heun", "invert", "pndm"]
Arrays = Float[Array, "b ..."]
MAX_STEP_RATIO = 2.0
"""Largest ratio of a step in λ to the step before for a formula that looks back on the step before."""


def dpm_solver(denoise: Denoise, grid: grids.Grid, *, clip: Clip = True) -> Sampler:
    """Make DPM-Solver++(2M) (Lu et al. 2022b, Algorithm 2), of second order: K evaluations.

    x_s = σ_s/σ_t x_t - α_s (e^{-h} - 1) D,  D = x̂_0 + h/(2 h') (x̂_0 - x̂_0'),  h = λ_s - λ_t

    with the previous prediction x̂_0' and the previous step h'. D = x̂_0, of first order, in the first step, in a last
    step that leaves no noise, in a step from where nothing of the image is left, and if h > 2 h', as at the end of
    leading times: there x̂_0 would be extrapolated far (Lu et al., §3.4, lower the order in the last steps).

    Args:
      denoise: denoiser, ``(x, cond) -> ε`` or a ``Prediction``.
      grid: the grid of K steps.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: see ``samplers.prepare``.
    """
    denoise, table = samplers.prepare(denoise, grid), _multistep(grid, 1)
    return _two_step(denoise, grid, table._replace(std=np.zeros(grid.num_steps)), clip)


def dpm_solver_sde(denoise: Denoise, grid: grids.Grid, *, clip: Clip = True) -> Sampler:
    """Make SDE-DPM-Solver++(2M) (Lu et al. 2022b, eq. 19): the reverse diffusion, with noise in every step.

    x_s = σ_s/σ_t e^{-h} x_t + α_s (1 - e^{-2h}) D + σ_s √(1 - e^{-2h}) z,  D and h as in ``dpm_solver``

    Args:
      denoise: denoiser, ``(x, cond) -> ε`` or a ``Prediction``.
      grid: the grid of K steps.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: see ``samplers.prepare``.
    """
    denoise = samplers.prepare(denoise, grid)
    return _two_step(denoise, grid, _multistep(grid, 2), clip)


class _Multistep(NamedTuple):
    """Coefficients [K] of x_s = shrink · x_t + gain (x̂_0 + extrapolation (x̂_0 - x̂_0')) + std · z."""

    shrink: Table
    gain: Table
    extrapolation: Table
    std: Table


def _multistep(grid: grids.Grid, power: int) -> _Multistep:
    """The coefficients with a factor 1 - e^{-power·h} of x̂_0: power 1 for the flow, 2 for the diffusion."""
    xp, (_, alpha, sigma) = _tables(grid)
    ratio = sigma[1:] / alpha[1:] * alpha[:-1] / sigma[:-1]  # e^-h; α = 0 at the first place at most
    jumps = ratio <= 0  # from where nothing of the image is left, or to where no noise is left
    h = -xp.log(xp.where(jumps, 1, ratio))
    previous_h = xp.concatenate([xp.ones(1), xp.where(jumps, 1, h)[:-1]])
    second_order = xp.concatenate([xp.zeros(1), xp.where(jumps, 0, 1)[:-1]]) * (h <= MAX_STEP_RATIO * previous_h)
    share = 1 - ratio**power
    shrink = sigma[1:] / sigma[:-1] * ratio ** (power - 1)
    return _Multistep(shrink, alpha[1:] * share, second_order * h / (2 * previous_h), sigma[1:] * root(share))


def _two_step(denoise: Denoise, grid: grids.Grid, table: _Multistep, clip: Clip) -> Sampler:
    def step(keys: Key, state: tuple[Arrays, Arrays], place: Any) -> tuple[Arrays, Arrays]:
        (x, previous_x0), (here, table) = state, place
        x0 = samplers.evaluate_denoiser(denoise, x, here, clip).x0
        extrapolated = x0 + table.extrapolation * (x0 - previous_x0)
        z = random.normal(keys, x.shape[1:], x.dtype)
        return table.shrink * x + table.gain * extrapolated + table.std * z, x0

    here = grids.places(grid, slice(-1))
    return make_sampler(step, (here, table), init=lambda x: (x, x), output=lambda state: state[0])


class _HeunStep(NamedTuple):
    """Tables [K] of Heun's method.

    Attributes:
      start: place of the first evaluation, with the noise that churn has added.
      end: place of the second evaluation.
      added_noise: standard deviation of the noise that churn adds.
      half_step: factor of the difference of the two slopes.
      second_order: False for a step of one evaluation.
    """

    start: grids.Grid
    end: grids.Grid
    added_noise: Table
    half_step: Table
    second_order: Table


def heun(
    denoise: Denoise,
    grid: grids.Grid,
    *,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
    clip: Clip = True,
) -> Sampler:
    """Make Heun's method with churn (Karras et al. 2022, Algorithm 2), of second order: 2K - 1 evaluations.

    Before a step noise is added up to σ̂ = (1 + γ) σ̄, γ = min(S_churn/K, √2 - 1) if S_tmin ≤ σ̄ ≤ S_tmax. The step from
    σ̂ then averages the slopes at both ends, except a step that ends without noise: its second slope is infinite.

    Where σ̄ falls over eightfold to still more than 1, and from where nothing of the image is left, the step is Heun's
    method for the same flow in x/σ and α/σ. There the slope is x̂_0 and stays finite, while σ̄ is too large to average
    slopes in.

    Args:
      denoise: denoiser, ``(x, cond) -> ε`` or a ``Prediction``.
      grid: the grid of K steps. A traced grid is taken to end without noise.
      s_churn: S_churn; 0 is deterministic. More needs a network conditioned on σ, as on ``grids.karras``.
      s_tmin: S_tmin, the lowest noise level with churn.
      s_tmax: S_tmax, the highest noise level with churn.
      s_noise: S_noise, the standard deviation of the added noise.
      clip: clipping of x̂_0; True clips to [-1, 1].

    Raises:
      ValueError: ``s_churn`` or ``s_noise`` is below 0; ``s_tmin`` is above ``s_tmax``; churn is asked for and the
        network is not conditioned on σ; or see ``samplers.prepare``.
    """
    if not s_churn >= 0:
        raise ValueError(f"s_churn: expected 0 (deterministic) or more, got {s_churn:g}")
    if not s_tmin <= s_tmax or not 0 <= s_noise < math.inf:
        limits = f"{s_tmin:g}, {s_tmax:g} and {s_noise:g}"
        raise ValueError(f"s_tmin, s_tmax, s_noise: expected s_tmin <= s_tmax and s_noise >= 0, got {limits}")
    denoise = samplers.prepare(denoise, grid)
    xp, (_, alpha, sigma) = _tables(grid)
    if s_churn and (xp is jnp or not np.array_equal(grid.cond, grid.sigma_bar)):
        raise ValueError("s_churn: expected a grid whose network is told σ, as karras(); leave s_churn at 0 otherwise")
    sigma_bar = grids.Grid(grid.cond, alpha, sigma).sigma_bar
    inside = (sigma_bar >= s_tmin) & (sigma_bar <= s_tmax)
    gamma = min(s_churn / grid.num_steps, 2**0.5 - 1)
    raised = xp.where(inside, sigma_bar * (1 + gamma), sigma_bar)
    start, end = grids.places(grid, slice(-1)), grids.places(grid, slice(1, None))
    added = xp.zeros(grid.num_steps)
    if s_churn:
        start = grids.Grid(raised[:-1], start.alpha, (raised * alpha)[:-1])
        added = (s_noise * alpha * (raised**2 - sigma_bar**2) ** 0.5)[:-1]

    before, after = raised[:-1], sigma_bar[1:]
    steep = grids.is_steep(before, after)
    in_sigma_bar = 0.5 * (after - xp.where(steep, after, before)) * alpha[1:]
    half_step = xp.where(steep, -0.5 * sigma[1:] * (1 - after / before), in_sigma_bar)
    second_order = np.ones(grid.num_steps, bool)
    second_order[-1] = not (xp is jnp or not sigma[-1])

    def step(keys: Key, x: Arrays, place: Any) -> Arrays:
        if s_churn:
            x = x + place.added_noise * random.normal(keys, x.shape[1:], x.dtype)
        x0, noise, _ = samplers.evaluate_denoiser(denoise, x, place.start, clip)
        x_euler = place.end.alpha * x0 + place.end.sigma * noise

        def x_heun(x_euler: Arrays) -> Arrays:
            next_noise = samplers.evaluate_denoiser(denoise, x_euler, place.end, clip).noise
            return x_euler + place.half_step * (next_noise - noise)

        return jax.lax.cond(place.second_order, x_heun, lambda x_euler: x_euler, x_euler)

    return make_sampler(step, _HeunStep(start, end, added, half_step, second_order))


def _tables(grid: grids.Grid) -> tuple[ModuleType, grids.Grid]:
    """The module for calculations, and the grid as arrays of it: NumPy in float64, or ``jax.numpy`` if traced."""
    if any(isinstance(table, jax.core.Tracer) for table in grid):
        return jnp, grids.Grid(*map(jnp.asarray, grid))
    return np, grids.Grid(*(np.asarray(table, np.float64) for table in grid))


def invert(denoise: Denoise, grid: grids.Grid, *, iterations: int = 3) -> Sampler:
    """Make DDIM inversion, ``sample(key, x_0) -> x_T``: the noise from which DDIM with η = 0 makes the images.

    Each step solves x̄_t = x̄_s + (σ̄_t - σ̄_s) ε(x_t, t), the deterministic step read backwards, by fixed-point iterations
    from x̄_t = x̄_s. One iteration is the usual inversion (Dhariwal & Nichol 2021, App. F); more make it exact (Pan et
    al. 2023) if σ̄ rises by no more than a few times in a step. If σ̄ rises over eightfold from more than 1, and to where
    nothing of the image is left, the equation is x_t/σ_t = x_s/σ_s - (1/σ̄_s - 1/σ̄_t) x̂_0(x_t, t). That one contracts as
    long as x̂_0 hardly depends on x_t there, as in a network that predicts v or x_0. Nothing is clipped.

    Args:
      denoise: denoiser, ``(x, cond) -> ε`` or a ``Prediction``.
      grid: the grid of K steps.
      iterations: iterations of a step, at least 1; ``iterations`` · K evaluations in all.

    Raises:
      ValueError: ``iterations`` < 1; the tables are not a grid, see ``grids.check``; or see
        ``samplers.require_prediction``.
    """
    checks.count("iterations", iterations)
    grids.check(grid)
    denoise = samplers.require_prediction(denoise, grid)
    xp, (_, alpha, sigma) = _tables(grid)
    sigma_bar = grids.Grid(grid.cond, alpha, sigma).sigma_bar
    steep = grids.is_steep(sigma_bar[:-1], sigma_bar[1:])[::-1]
    start, end = (
        grids.places(grids.Grid(grid.cond, alpha, sigma), i) for i in (slice(None, 0, -1), slice(-2, None, -1))
    )
    if xp is np and end.alpha[-1] < MIN_ALPHA and not start.sigma[-1] > 0:
        raise ValueError("grid: expected a place between the image and where nothing of it is left; it has none")
    x_weight = xp.where(steep, end.sigma / xp.where(steep, start.sigma, 1), end.alpha / start.alpha)
    x0_weight = xp.where(steep, end.alpha - x_weight * start.alpha, 0)
    noise_weight = xp.where(steep, 0, end.sigma - x_weight * start.sigma)

    def step(keys: Key, x: Arrays, place: Any) -> Arrays:
        end, x_weight, x0_weight, noise_weight = place

        def iteration(i: Any, x_t: Arrays) -> Arrays:
            x0, noise, _ = samplers.evaluate_denoiser(denoise, x_t, end, False)
            return x_weight * x + x0_weight * x0 + noise_weight * noise

        return jax.lax.fori_loop(0, iterations, iteration, x)

    return make_sampler(step, (end, x_weight, x0_weight, noise_weight))
