"""What training a denoiser may minimise: an error of what is predicted, weighted by time.

An objective is a function ``(schedule, guess, truth, x_t, t) -> [b]`` of two predictions of the same x_t. Errors of ε,
x_0 and v are one error in three units: |ε - ε̂|² = SNR |x_0 - x̂_0|² and |v - v̂|² = (SNR + 1) |x_0 - x̂_0|².
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks
from genjax.diffusion import likelihood, predictions
from genjax.diffusion.predictions import Prediction
from genjax.diffusion.schedules import Schedule, Table, at

Arrays = Float[Array, "b ..."]
Objective = Callable[[Schedule, Prediction, Prediction, Arrays, Int[Array, " b"]], Float[Array, " b"]]
Distance = Callable[[Arrays, Arrays], Arrays]
"""An error of a prediction against its target, element by element."""

Target = Literal["noise", "x0", "v"]


def simple(distance: Distance, target: Target = "noise", weights: Table | None = None) -> Objective:
    """The mean distance between what is predicted and its target, each time weighted alike (Ho et al. 2020, eq. 14).

    Args:
      distance: of the elements: |·|², |·|, ...
      target: what is compared: ε (Ho et al. 2020), x_0, or v (Salimans & Ho 2022).
      weights: [t]; 1 by default.

    Raises:
      ValueError: an unknown target; or weights that are not finite, below 0, or of another number of times.
    """
    read = _target(target)
    if weights is not None:
        checks.finite("weights", weights)
        checks.within("weights", weights, 0)

    def objective(schedule: Schedule, guess: Prediction, truth: Prediction, x_t: Arrays, t) -> Float[Array, " b"]:
        error = distance(read(schedule, guess, t), read(schedule, truth, t))
        mean = error.mean(axis=tuple(range(1, error.ndim)))
        if weights is not None and weights.shape != (schedule.num_steps,):
            raise ValueError(f"weights: expected one for each of {schedule.num_steps} times, got {weights.shape}")
        return mean if weights is None else mean * at(weights, t, mean)

    return objective


def min_snr(schedule: Schedule, target: Target = "noise", gamma: float = 5.0) -> Table:
    """Weights that count the x_0-error min(SNR, γ) times: min(SNR, γ) over the units of the target (Hang et al. 2023).

    >>> from genjax import diffusion
    >>> bool(np.all(min_snr(diffusion.linear_schedule(10), "noise") <= 1))
    True

    Raises:
      ValueError: γ ≤ 0, or an unknown target.
    """
    if not gamma > 0:
        raise ValueError(f"gamma: expected a positive ratio of signal and noise, such as 5; got {gamma:g}")
    _target(target)
    xp = np if isinstance(schedule.snr, np.ndarray) else jnp
    units = {"noise": schedule.snr, "x0": xp.ones_like(schedule.snr), "v": schedule.snr + 1}[target]
    clipped = xp.minimum(schedule.snr, gamma)
    return clipped / xp.where(units > 0, units, 1) if target == "noise" else clipped / units


def vlb(variance: likelihood.Variance = "small", num_levels: int = 256) -> Objective:
    """T times the term of the variational bound at time t, nats per dimension: its mean over t is the bound without
    its prior (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, eq. 4).

    Args:
      variance: of the reverse steps; not looked at where the prediction brings its own.
      num_levels: of the pixels.

    Raises:
      ValueError: ``num_levels`` of 1 or below 0; or, when it is called, as ``likelihood.term``.
    """
    if checks.count("num_levels", num_levels, 0) == 1:
        raise ValueError("num_levels: expected 0, for continuous pixels, or at least 2; got 1")

    def objective(schedule: Schedule, guess: Prediction, truth: Prediction, x_t: Arrays, t) -> Float[Array, " b"]:
        nats = likelihood.term(schedule, guess, truth.x0, x_t, t, variance=variance, num_levels=num_levels)
        return schedule.num_steps * nats / truth.x0[0].size

    return objective


def hybrid(first: Objective, variance: likelihood.Variance = "small", scale: float = 1e-3) -> Objective:
    """L_simple + λ L_vlb, where the bound teaches the variance alone: its mean is held fixed (Nichol & Dhariwal 2021,
    eq. 16, λ = 0.001).

    Args:
      first: what teaches the mean.
      variance: of the reverse steps, where the prediction brings none.
      scale: λ.

    Raises:
      ValueError: λ that is not finite or below 0.
    """
    checks.finite("scale", scale)
    checks.within("scale", scale, 0)
    bound = vlb(variance)

    def objective(schedule: Schedule, guess: Prediction, truth: Prediction, x_t: Arrays, t) -> Float[Array, " b"]:
        still = Prediction(*jax.lax.stop_gradient((guess.x0, guess.noise)), guess.fraction)
        return first(schedule, guess, truth, x_t, t) + scale * bound(schedule, still, truth, x_t, t)

    return objective


def _target(name: Target) -> Callable[[Schedule, Prediction, Int[Array, " b"]], Arrays]:
    known = {"noise": lambda s, p, t: p.noise, "x0": lambda s, p, t: p.x0, "v": predictions.to_v}
    if name not in known:
        raise ValueError(f"target: expected one of {', '.join(known)}; got {name!r}")
    return known[name]
