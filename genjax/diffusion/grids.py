"""The places a chain visits: what the network is told there, and how much of x is image and how much noise.

Everywhere x = α x_0 + σ ε. A schedule keeps α² + σ² = 1 (Ho et al. 2020), Karras et al. 2022 keep α = 1; with x̄ = x/α
and σ̄ = σ/α the two are one, and every sampler is written once for both.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from genjax.diffusion.schedules import Schedule, Table

Spacing = Literal["trailing", "leading", "linspace"]


class Grid(NamedTuple):
    """K + 1 places, from noisy to clean. Fields are [K + 1].

    Fields:
      time: what the network is told; that of the last is not asked for.
      signal: α.
      noise: σ; 0 at the last place, where all is image.
    """

    time: Table | Int[np.ndarray, " _"]
    signal: Table
    noise: Table

    @property
    def num_steps(self) -> int:
        """K."""
        return self.time.shape[0] - 1

    @property
    def spread(self) -> Table:
        """σ̄ = σ/α, the noise in x̄ = x/α."""
        return self.noise / self.signal


def on_times(schedule: Schedule, times: Int[np.ndarray, " _"], *, final: Literal["one", "first"] = "one") -> Grid:
    """The places at some times of a schedule, and the end.

    Args:
      schedule: of T steps.
      times: from noisy to clean; see ``timesteps``.
      final: what ᾱ is at the end: 1, the image itself, or that of time 0, where some noise is left.

    Raises:
      ValueError: times that do not fall, or lie outside [0, T), or an unknown end.
    """
    times = np.asarray(times)
    falling = times.ndim == 1 and times.size and np.all(np.diff(times) < 0)
    if not falling or not schedule.num_steps > times[0] >= times[-1] >= 0:
        raise ValueError(f"times: expected falling times in [0, {schedule.num_steps}), got {times.tolist()}")
    if final not in ("one", "first"):
        raise ValueError(f"final: expected 'one' or 'first', got {final!r}")
    xp = np if isinstance(schedule.alpha_bar, np.ndarray) else jnp
    last = xp.ones_like(schedule.alpha_bar[:1]) if final == "one" else schedule.alpha_bar[:1]
    alpha_bar = xp.concatenate([schedule.alpha_bar[times], last])
    return Grid(np.append(times, 0), xp.sqrt(alpha_bar), xp.sqrt(1 - alpha_bar))


def karras(num_steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Grid:
    """σ_i = (σ_max^{1/ρ} + i/(K-1) (σ_min^{1/ρ} - σ_max^{1/ρ}))^ρ, σ_K = 0, α = 1 (Karras et al. 2022, eq. 5).

    The network is told σ.

    Raises:
      ValueError: ``num_steps`` < 1, or not 0 < low <= high, or ``rho`` ≤ 0.
    """
    noise = np.append(_karras(num_steps, low, high, rho), 0.0)
    return Grid(noise, np.ones(num_steps + 1), noise)


def karras_times(schedule: Schedule, num_steps: int, rho: float = 7.0) -> Int[np.ndarray, " _"]:
    """The times of a schedule whose σ̄ lie nearest to Karras' spacing between its ends: for a network of whole times.

    Raises:
      ValueError: ``num_steps`` < 1 or ``rho`` ≤ 0, a schedule whose last ᾱ is 0, or so many steps that times coincide.
    """
    spread = np.asarray(schedule.noise, np.float64) / np.maximum(np.asarray(schedule.signal, np.float64), 1e-300)
    if not schedule.alpha_bar[-1] > 0:
        raise ValueError("schedule: the last ᾱ is 0, so σ̄ has no end; space the times evenly instead")
    wanted = _karras(num_steps, float(spread[0]), float(spread[-1]), rho)
    times = np.rint(np.interp(np.log(wanted), np.log(spread), np.arange(schedule.num_steps))).astype(np.int64)
    if len(distinct := np.unique(times)) < num_steps:
        raise ValueError(
            f"num_steps: {num_steps} places of Karras' spacing fall on {len(distinct)} of the schedule's "
            f"{schedule.num_steps} times; use at most {len(distinct)} steps, or even spacing"
        )
    return times


def timesteps(total: int, num_steps: int, spacing: Spacing) -> Int[np.ndarray, " _"]:
    """The times a short chain visits, from noisy to clean (Lin et al. 2024, Table 2).

    "trailing" ends the steps' intervals: it starts at the noisiest time T - 1. "leading" begins them: it visits 0 but
    starts below T - 1. "linspace" visits both ends.

    >>> [timesteps(1000, 4, s).tolist() for s in ("trailing", "leading", "linspace")]
    [[999, 749, 499, 249], [750, 500, 250, 0], [999, 666, 333, 0]]

    Raises:
      ValueError: ``num_steps`` outside [1, total], or an unknown spacing.
    """
    if not 1 <= num_steps <= total:
        raise ValueError(f"num_steps: expected 1 to {total}, the steps of the schedule; got {num_steps}")
    places = {
        "trailing": lambda: np.round(total - np.arange(num_steps) * (total / num_steps)) - 1,
        "leading": lambda: np.arange(num_steps)[::-1] * (total // num_steps),
        "linspace": lambda: np.round(np.linspace(0, total - 1, num_steps))[::-1],
    }
    if spacing not in places:
        raise ValueError(f"spacing: expected one of {', '.join(places)}; got {spacing!r}")
    return places[spacing]().astype(np.int64)


def _karras(num_steps: int, low: float, high: float, rho: float) -> Float[np.ndarray, " _"]:
    if num_steps < 1:
        raise ValueError(f"num_steps: expected at least 1, got {num_steps}")
    if not 0 < low <= high or not rho > 0:
        raise ValueError(f"low, high, rho: expected 0 < low <= high and rho > 0, got {low:g}, {high:g} and {rho:g}")
    ends = high ** (1 / rho), low ** (1 / rho)
    return np.linspace(*ends, num_steps) ** rho
