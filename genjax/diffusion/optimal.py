"""What the errors of a denoiser tell a chain: the best variance of every step, and the best steps of a short one."""

from typing import Any

import numpy as np
from jaxtyping import Int

from genjax import checks
from genjax.diffusion.schedules import Schedule, Table


def sub_schedule(schedule: Schedule, squared_error: Any, num_steps: int) -> Int[np.ndarray, " _"]:
    """The times, noisy to clean, of the chain of ``num_steps`` steps with the least bound (Watson et al. 2021).

    With the posterior's variance a jump from t to s costs ½ (SNR_s - SNR_t) E|x_0 - x̂_0(x_t)|² (Kingma et al. 2021,
    eq. 13): a table of squared errors prices all jumps, and dynamic programming finds the cheapest way from T - 1 to 0.

    Args:
      schedule: of T steps.
      squared_error: [t], from ``Bound.squared_error``, averaged over images.
      num_steps: K, times to visit, 2 to T; 1 of 1.

    Raises:
      ValueError: ``num_steps`` outside [2, T], or an error for another number of times, not finite or below 0.
    """
    total = schedule.num_steps
    checks.count("num_steps", num_steps, min(2, total), total)
    _errors(schedule, squared_error)
    snr = np.asarray(schedule.snr, np.float64)
    price = 0.5 * (snr[:, None] - snr) * np.asarray(squared_error, np.float64)  # from the column's time to the row's
    price = np.where(np.tri(total, k=-1, dtype=bool).T, price, np.inf)
    cost, came = np.where(np.arange(total) == total - 1, 0.0, np.inf), []
    for _ in range(num_steps - 1):
        through = price + cost
        came.append(through.argmin(1))
        cost = through.min(1)
    times = [0]
    for step in reversed(came):
        times.append(int(step[times[-1]]))
    return np.asarray(times[::-1], np.int64)


def optimal_variance(schedule: Schedule, noise_squared: Any = None, *, squared_error: Any = None) -> Table:
    """σ_t² = β̃_t + c_0² E|x_0 - x̂_0|²: the best that does not depend on x_t (Bao et al. 2022, eq. 9).

    The error is (1 - ᾱ_t)/ᾱ_t (1 - E ε̂²) where ε̂ is the mean of ε given x_t, and no more than (1 - ᾱ_t)/ᾱ_t, which has
    who takes x_t/√ᾱ_t for x_0.

    Args:
      schedule: of T steps.
      noise_squared: E ε̂(x_t, t)² per dimension, [t]; 1 where the network knows nothing of the image.
      squared_error: in its place E|x_0 - x̂_0(x_t, t)|² per dimension, [t], as ``Bound.squared_error`` over d has it;
        the only one that tells where nothing of the image is left.

    Raises:
      ValueError: both or none are given; numbers for other times, not finite or below 0; or ``noise_squared`` where the
        last ᾱ is 0.
    """
    if (noise_squared is None) == (squared_error is None):
        raise ValueError("expected either noise_squared or squared_error")
    with np.errstate(divide="ignore"):
        most = 1 / np.asarray(schedule.snr, np.float64)
    if squared_error is None:
        if schedule.faint.size:
            raise ValueError(
                f"noise_squared: nothing of the image is left at time {schedule.faint[0]}, ᾱ = 0, so noise tells no "
                "variance there; give squared_error"
            )
        _errors(schedule, noise_squared, "noise_squared")
        squared_error = most * np.clip(1 - np.asarray(noise_squared, np.float64), 0, 1)
    _errors(schedule, squared_error)
    weight = schedule.alpha_bar_prev**0.5 * schedule.beta / (1 - schedule.alpha_bar)
    return schedule.posterior_variance + weight**2 * np.minimum(np.asarray(squared_error, np.float64), most)


def _errors(schedule: Schedule, table: Any, name: str = "squared_error") -> None:
    if np.shape(table) != (schedule.num_steps,):
        raise ValueError(f"{name}: expected one for each of {schedule.num_steps} times, got {np.shape(table)}")
    checks.finite(name, table)
    checks.within(name, table, 0)
