"""Optimal choices from the errors of a denoiser: the variance of every step, and the times of a short chain."""

from typing import Any

import numpy as np
from jaxtyping import Int

from genjax import checks
from genjax.diffusion.schedules import Schedule, Table


def optimal_timesteps(schedule: Schedule, squared_error: Any, num_steps: int) -> Int[np.ndarray, " _"]:
    """Find the times, noisy to clean, of the short chain with the least variational bound (Watson et al. 2021).

    With the posterior's variance a jump from t to s costs ½ (SNR_s - SNR_t) E|x_0 - x̂_0(x_t)|² (Kingma et al. 2021,
    eq. 13): a table of squared errors prices all jumps, and dynamic programming finds the cheapest way from T - 1 to 0.

    Args:
      schedule: the schedule of T steps.
      squared_error: E|x_0 - x̂_0|² at each time [t], as ``VLB.squared_error`` averaged over images.
      num_steps: K, the number of times, 2 to T (1 if T = 1).

    Raises:
      ValueError: ``num_steps`` is outside [2, T]; or errors are not finite, below 0, or not one for each time.
    """
    total = schedule.num_steps
    checks.count("num_steps", num_steps, min(2, total), total)
    _errors(schedule, squared_error)
    snr = np.asarray(schedule.snr, np.float64)
    price = 0.5 * (snr[:, None] - snr) * np.asarray(squared_error, np.float64)  # from the column's time to the row's
    price = np.where(np.tri(total, k=-1, dtype=bool).T, price, np.inf)
    cost, previous = np.where(np.arange(total) == total - 1, 0.0, np.inf), []
    for _ in range(num_steps - 1):
        through = price + cost
        previous.append(through.argmin(1))
        cost = through.min(1)
    times = [0]
    for table in reversed(previous):
        times.append(int(table[times[-1]]))
    return np.asarray(times[::-1], np.int64)


def optimal_variance(schedule: Schedule, noise_squared: Any = None, *, squared_error: Any = None) -> Table:
    """Compute σ_t² = β̃_t + c_0² E|x_0 - x̂_0|², optimal among variances that ignore x_t (Bao et al. 2022, eq. 9).

    The error is (1 - ᾱ_t)/ᾱ_t (1 - E ε̂²) if ε̂ is the mean of ε given x_t. The upper limit (1 - ᾱ_t)/ᾱ_t is the error of
    x_t/√ᾱ_t as an estimate of x_0.

    Args:
      schedule: the schedule of T steps.
      noise_squared: E ε̂(x_t, t)² per dimension [t]; 1 if the network knows nothing of the image.
      squared_error: E|x_0 - x̂_0(x_t, t)|² per dimension [t], in place of ``noise_squared``, as ``VLB.squared_error``/d;
        needed if nothing of the image is left at the last time.

    Raises:
      ValueError: both or neither are given; numbers are not finite, below 0, or not one for each time; or
        ``noise_squared`` is given and the last ᾱ is 0.
    """
    if (noise_squared is None) == (squared_error is None):
        raise ValueError("expected either noise_squared or squared_error")
    with np.errstate(divide="ignore"):
        limit = 1 / np.asarray(schedule.snr, np.float64)
    if squared_error is None:
        if (empty := schedule.zero_snr_times).size:
            raise ValueError(
                f"noise_squared: nothing of the image is left at time {empty[0]}, ᾱ = 0, so noise tells no "
                "variance there; give squared_error"
            )
        _errors(schedule, noise_squared, "noise_squared")
        squared_error = limit * np.clip(1 - np.asarray(noise_squared, np.float64), 0, 1)
    _errors(schedule, squared_error)
    weight = schedule.alpha_bar_prev**0.5 * schedule.beta / (1 - schedule.alpha_bar)
    return schedule.posterior_variance + weight**2 * np.minimum(np.asarray(squared_error, np.float64), limit)


def _errors(schedule: Schedule, table: Any, name: str = "squared_error") -> None:
    if np.shape(table) != (schedule.num_steps,):
        raise ValueError(f"{name}: expected one for each of {schedule.num_steps} times, got {np.shape(table)}")
    checks.finite(name, table)
    checks.within(name, table, 0)
