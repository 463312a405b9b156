"""Objectives of a denoiser: errors of the prediction, weighted by time.

An objective is a function ``(schedule, prediction, target, x_t, t) -> [b]`` of two predictions of the same x_t. Errors
of ε, x_0 and v are one error in three units: |ε - ε̂|² = SNR |x_0 - x̂_0|² and |v - v̂|² = (SNR + 1) |x_0 - x̂_0|².
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
"""The error of a prediction against its target, element by element."""

Parameterization = Literal["noise", "x0", "v"]


def simple(distance: Distance, parameterization: Parameterization = "noise", weights: Table | None = None) -> Objective:
    """Make the mean distance between prediction and target, uniform over times (Ho et al. 2020, eq. 14).

    Args:
      distance: the error of an element: |·|², |·|, ...
      parameterization: the quantity that is compared: ε (Ho et al. 2020), x_0, or v (Salimans & Ho 2022).
      weights: a weight for each time [t]; 1 by default.

    Raises:
      ValueError: the parameterization is unknown; or weights are not finite, below 0, or not one for each time.
    """
    convert = _converter(parameterization)
    if weights is not None:
        checks.finite("weights", weights)
        checks.within("weights", weights, 0)

    def objective(
        schedule: Schedule, prediction: Prediction, target: Prediction, x_t: Arrays, t: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        error = distance(convert(schedule, prediction, t), convert(schedule, target, t))
        mean = error.mean(axis=tuple(range(1, error.ndim)))
        if weights is not None and weights.shape != (schedule.num_steps,):
            raise ValueError(f"weights: expected one for each of {schedule.num_steps} times, got {weights.shape}")
        return mean if weights is None else mean * at(weights, t, mean)

    return objective


def min_snr(schedule: Schedule, parameterization: Parameterization = "noise", gamma: float = 5.0) -> Table:
    """Compute min-SNR-γ weights: the x_0-error counts min(SNR, γ) times (Hang et al. 2023).

    The weight of an error in ε is min(SNR, γ)/SNR, in x_0 min(SNR, γ), in v min(SNR, γ)/(SNR + 1).

    >>> from genjax import diffusion
    >>> bool(np.all(min_snr(diffusion.linear_schedule(10), "noise") <= 1))
    True

    Args:
      schedule: the schedule of T steps.
      parameterization: the quantity that the loss compares.
      gamma: γ.

    Raises:
      ValueError: ``gamma`` ≤ 0, or the parameterization is unknown.
    """
    if not gamma > 0:
        raise ValueError(f"gamma: expected a positive ratio of signal and noise, such as 5; got {gamma:g}")
    _converter(parameterization)
    xp = np if isinstance(schedule.snr, np.ndarray) else jnp
    units = {"noise": schedule.snr, "x0": xp.ones_like(schedule.snr), "v": schedule.snr + 1}[parameterization]
    clipped = xp.minimum(schedule.snr, gamma)
    return clipped / xp.where(units > 0, units, 1) if parameterization == "noise" else clipped / units


def vlb(variance: likelihood.Variance = "small", num_levels: int = 256) -> Objective:
    """Make T times the term of the variational bound at time t, in nats per dimension.

    The mean over t is the bound without the prior (Ho et al. 2020, eq. 5; Nichol & Dhariwal 2021, eq. 4).

    Args:
      variance: variance of the reverse steps; unused for a prediction with a learned variance.
      num_levels: levels of a pixel; 0 for continuous pixels.

    Raises:
      ValueError: ``num_levels`` is 1 or below 0; or, when the objective is called, see ``likelihood.vlb_term``.
    """
    if checks.count("num_levels", num_levels, 0) == 1:
        raise ValueError("num_levels: expected 0, for continuous pixels, or at least 2; got 1")

    def objective(
        schedule: Schedule, prediction: Prediction, target: Prediction, x_t: Arrays, t: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        nats = likelihood.vlb_term(schedule, prediction, target.x0, x_t, t, variance=variance, num_levels=num_levels)
        return schedule.num_steps * nats / target.x0[0].size

    return objective


def hybrid(first: Objective, variance: likelihood.Variance = "small", scale: float = 1e-3) -> Objective:
    """Make L_simple + λ L_vlb, where L_vlb trains the variance alone (Nichol & Dhariwal 2021, eq. 16, λ = 0.001).

    Args:
      first: the objective that trains the mean; gradients of L_vlb stop at the mean.
      variance: variance of the reverse steps, for a prediction without a learned variance.
      scale: λ.

    Raises:
      ValueError: ``scale`` is not finite or below 0.
    """
    checks.finite("scale", scale)
    checks.within("scale", scale, 0)
    variational = vlb(variance)

    def objective(
        schedule: Schedule, prediction: Prediction, target: Prediction, x_t: Arrays, t: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        fixed_mean = Prediction(
            *jax.lax.stop_gradient((prediction.x0, prediction.noise)), prediction.variance_interpolation
        )
        return first(schedule, prediction, target, x_t, t) + scale * variational(schedule, fixed_mean, target, x_t, t)

    return objective


def _converter(name: Parameterization) -> Callable[[Schedule, Prediction, Int[Array, " b"]], Arrays]:
    converters: dict[str, Callable[..., Arrays]] = {
        "noise": lambda s, p, t: p.noise,
        "x0": lambda s, p, t: p.x0,
        "v": predictions.to_v,
    }
    if name not in converters:
        raise ValueError(f"parameterization: expected one of {', '.join(converters)}; got {name!r}")
    return converters[name]
