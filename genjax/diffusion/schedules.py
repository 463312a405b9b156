"""Variance schedules: β_t, the noise of step t, and the product ᾱ_t = Π_{s ≤ t} (1 - β_s).

The tables are numpy float64, because 1 - ᾱ_t loses four digits in float32. Everything derived from the tables is
computed in float64 too and cast to the images' dtype last. A traced schedule (learned, or passed through ``jit``) works
as well, in its own precision.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from genjax import checks

Table = Float[np.ndarray, " t"] | Float[Array, " t"]
"""Numbers, one per time."""

Times = ArrayLike
"""Times, one for all examples or one per example: whole numbers in [0, T)."""

MAX_NUM_STEPS = 10**7
"""The largest T."""

MIN_ALPHA = 1e-30
"""The smallest √ᾱ that counts as a remainder of the image: float32 cannot divide by less."""


class Schedule(NamedTuple):
    """A variance schedule of T steps (Ho et al. 2020, §2). All tables are [t], float64.

    Attributes:
      beta: β_t, the variance added by step t, in (0, 1]; β_t = 1 leaves nothing of the image.
      alpha_bar: ᾱ_t, the share of the image's variance left at time t.
      alpha_bar_prev: ᾱ_{t-1}, with ᾱ_{-1} = 1.
    """

    beta: Table
    alpha_bar: Table
    alpha_bar_prev: Table

    @property
    def num_steps(self) -> int:
        """T."""
        return self.beta.shape[0]

    @property
    def sqrt_alpha_bar(self) -> Table:
        """√ᾱ_t, the factor of x_0 in x_t."""
        return root(self.alpha_bar)

    @property
    def sqrt_one_minus_alpha_bar(self) -> Table:
        """√(1 - ᾱ_t), the standard deviation of the noise in x_t."""
        return root(1 - self.alpha_bar)

    @property
    def snr(self) -> Table:
        """ᾱ_t / (1 - ᾱ_t), the signal-to-noise ratio in power (Kingma et al. 2021, eq. 3)."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @property
    def posterior_variance(self) -> Table:
        """β̃_t = (1 - ᾱ_{t-1}) / (1 - ᾱ_t) β_t of q(x_{t-1}|x_t, x_0) (Ho et al. 2020, eq. 7); 0 at t = 0."""
        return (1 - self.alpha_bar_prev) / (1 - self.alpha_bar) * self.beta

    @property
    def zero_snr_times(self) -> Int[np.ndarray, " _"]:
        """The times at which nothing of the image is left: the last or none. A traced schedule counts as without."""
        known = checks.is_concrete(self.alpha_bar)
        return np.flatnonzero(np.asarray(self.sqrt_alpha_bar) < MIN_ALPHA) if known else np.zeros(0, int)


def from_beta(beta: Any) -> Schedule:
    """Make the schedule with these noise variances.

    Args:
      beta: β_t [t], in (0, 1].

    Raises:
      ValueError: a variance is outside (0, 1], there is none, or ᾱ is 0 before the last time.
    """
    checks.real("beta", beta)
    beta = np.asarray(beta, np.float64)
    if beta.ndim != 1 or not beta.size:
        raise ValueError(f"beta: expected a vector of at least one variance, got shape {beta.shape}")
    if not (np.all(beta > 0) and np.all(beta <= 1)):
        raise ValueError(f"beta: expected variances in (0, 1], got values from {beta.min():g} to {beta.max():g}")
    with np.errstate(divide="ignore"):
        alpha_bar = np.exp(np.cumsum(np.log1p(-beta)))
    if (empty := np.flatnonzero(alpha_bar[:-1] < MIN_ALPHA**2)).size:
        raise ValueError(
            f"beta: nothing of the image is left at time {empty[0]} already, of {len(beta)}; "
            "give fewer steps or smaller variances, as linear_schedule(T, 0.1 / T, 20 / T)"
        )
    return Schedule(beta, alpha_bar, np.concatenate([[1.0], alpha_bar[:-1]]))


def linear_schedule(num_steps: int, first: float = 1e-4, last: float = 0.02) -> Schedule:
    """Make the schedule of β_t from ``first`` to ``last`` in equal steps (Ho et al. 2020, §4: T = 1000, 1e-4, 0.02).

    For another T the ends must change, or x_{T-1} is not noise: 0.1/T and 20/T keep ᾱ_{T-1}, as the code of Nichol &
    Dhariwal 2021 does.

    >>> float(linear_schedule(1000).alpha_bar[-1])  # doctest: +ELLIPSIS
    4.0358...e-05

    Raises:
      ValueError: ``num_steps`` < 1, or ``first`` and ``last`` do not satisfy 0 < first <= last < 1.
    """
    checks.count("num_steps", num_steps, 1, MAX_NUM_STEPS)
    if not 0 < first <= last < 1:
        raise ValueError(f"first, last: expected 0 < first <= last < 1, got {first:g} and {last:g}")
    return from_beta(np.linspace(first, last, num_steps))


def cosine_schedule(num_steps: int, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Make the cosine schedule of Nichol & Dhariwal 2021, §3.2.

    ᾱ_t = f(t + 1) / f(0),  f(t) = cos²(π/2 · (t/T + s) / (1 + s)),  β_t ≤ ``max_beta``

    Args:
      num_steps: T.
      offset: s, which keeps the first β_t from being too small.
      max_beta: the upper limit of β_t.

    Raises:
      ValueError: ``num_steps`` < 1, ``offset`` < 0, or ``max_beta`` outside (0, 1).
    """
    checks.count("num_steps", num_steps, 1, MAX_NUM_STEPS)
    if not 0 <= offset < np.inf or not 0 < max_beta < 1:
        raise ValueError(f"expected offset >= 0 and 0 < max_beta < 1, got {offset:g} and {max_beta:g}")
    angle = (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset) * np.pi / 2
    alpha_bar = np.cos(angle) ** 2
    return from_beta(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def sigmoid_schedule(
    num_steps: int, start: float = -3.0, end: float = 3.0, temperature: float = 1.0, max_beta: float = 0.999
) -> Schedule:
    """Make the sigmoid schedule of Chen 2023, Algorithm 1.

    ᾱ_t = (σ(e/τ) - σ((s + (e - s)(t + 1)/T)/τ)) / (σ(e/τ) - σ(s/τ)),  β_t ≤ ``max_beta``,  σ the logistic function

    Args:
      num_steps: T.
      start: s, the argument of the sigmoid where the noise begins.
      end: e, the argument of the sigmoid where only noise is left.
      temperature: τ.
      max_beta: the upper limit of β_t.

    Raises:
      ValueError: ``num_steps`` < 1, ``start`` >= ``end``, ``temperature`` ≤ 0, or ``max_beta`` outside (0, 1).
    """
    checks.count("num_steps", num_steps, 1, MAX_NUM_STEPS)
    if not -np.inf < start < end < np.inf or not 0 < temperature < np.inf or not 0 < max_beta < 1:
        raise ValueError(
            "expected start < end, temperature > 0 and 0 < max_beta < 1, "
            f"got {start:g}, {end:g}, {temperature:g} and {max_beta:g}"
        )
    argument = (start + (end - start) * np.arange(num_steps + 1) / num_steps) / temperature
    value = 0.5 * (1 + np.tanh(argument / 2))
    alpha_bar = (value[-1] - value) / max(value[-1] - value[0], 1e-300)
    if not np.all(np.diff(alpha_bar) < 0):
        raise ValueError(
            f"start, end, temperature: {start:g}, {end:g} and {temperature:g} leave steps without noise, where the "
            "sigmoid is flat; bring the ends nearer to 0 or raise the temperature"
        )
    return from_beta(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def rescale_zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Stretch a schedule so that ᾱ_{T-1} = 0 and ᾱ_0 stays: the last x_t is pure noise (Lin et al. 2024, Alg. 1).

    √ᾱ'_t = (√ᾱ_t - √ᾱ_{T-1}) √ᾱ_0 / (√ᾱ_0 - √ᾱ_{T-1}). At the last time the noise does not determine x_0, so the
    network must predict v or x_0.

    Raises:
      ValueError: the schedule has one step alone, or is traced.
    """
    if not checks.is_concrete(schedule):
        raise ValueError("schedule: expected known numbers, got a traced schedule; rescale it outside jit")
    if schedule.num_steps < 2:
        raise ValueError("schedule: expected at least 2 steps, as the first keeps its noise and the last is all noise")
    alpha = np.sqrt(schedule.alpha_bar)
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha_bar = alpha**2
    return from_beta(1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]]))


def at(table: Table, t: Times, like: Float[Array, "..."]) -> Float[Array, "..."]:
    """Look up a table at times t, in the dtype of ``like`` and in a shape that multiplies ``like``.

    Args:
      table: the table [t], float64.
      t: a single time, or one per example [b]; whole numbers in [0, T).
      like: an array [b ...].

    Raises:
      ValueError: a time is not a whole number, or is known and outside [0, T) (inside ``jit`` the value there is NaN);
        or ``like`` is not of floating point.
    """
    checks.integers("t", t, 0, num := table.shape[0])
    checks.floating("like", like)
    times = jnp.asarray(t)
    inside = jnp.where(times < 0, num, times)  # else -1 would be the last
    values = jnp.asarray(table, like.dtype).at[inside].get(mode="fill", fill_value=jnp.nan)
    return values.reshape(values.shape + (1,) * (like.ndim - values.ndim))


def logarithm(table: Table) -> Table:
    """Take the logarithm of every entry, in the precision of the table; -∞ for 0.

    Raises:
      ValueError: an entry is below 0 or NaN.
    """
    checks.within("table", table, 0)
    return np.log(table, dtype=_precision(table)) if isinstance(table, np.ndarray) else jnp.log(table)


def root(table: Array | np.ndarray) -> Array | np.ndarray:
    """Take the square root of every entry, in the precision of the table; the slope at a traced 0 is 0.

    Raises:
      ValueError: an entry is below 0 or NaN.
    """
    checks.within("table", table, 0)
    if isinstance(table, np.ndarray):
        return np.sqrt(table, dtype=_precision(table))
    positive = table > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, table, 1)), 0)


def _precision(table: np.ndarray) -> np.dtype:
    """The dtype of a table of floats, and float64 for a table of whole numbers."""
    return table.dtype if table.dtype.kind == "f" else np.dtype(np.float64)
