"""The places a chain visits: what the network is told there, and how much of x is image and how much noise.

Everywhere x = α x_0 + σ ε. A schedule keeps α² + σ² = 1 (Ho et al. 2020), Karras et al. 2022 keep α = 1; with x̄ = x/α
and σ̄ = σ/α the two are one, and every sampler is written once for both.
"""

import math
import warnings
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from genjax import checks
from genjax.diffusion.schedules import FAINT, Schedule, Table

Spacing = Literal["trailing", "leading", "linspace"]

RHO = 0.01, 1000.0
"""Where ρ of Karras' spacing may be: from nearly all steps at the ends to steps of one ratio, in range of floats."""


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
        """σ̄ = σ/α, the noise in x̄ = x/α; infinite where nothing of the image is left."""
        with np.errstate(divide="ignore"):
            return self.noise / self.signal


class Part(Grid):
    """What is left of a grid for a chain that begins at noised images, as ``editing.sdedit``'s, and not at noise."""

    __slots__ = ()


class StartWarning(UserWarning):
    """A chain begins at N(0, 1) where the law of x_t is another one. ``warnings.simplefilter("ignore", StartWarning)``
    silences it; a ``Part`` of a grid gives none."""


FAR = 0.005
"""Nats of each number by which the law of x_t may differ from N(0, 1) where a chain begins; then ᾱ is 0.01."""


def check_start(signal: Any, noise: Any, time: Any) -> None:
    """Warn where a chain that begins at N(0, 1) does not begin at the law of x_t.

    D(q(x_t)‖N(0, 1)) ≤ E D(q(x_t|x_0)‖N(0, 1)) = -½ log(1 - ᾱ_t) = ½ log(1 + α²/σ²) nats of each number, for data of
    second moment 1, as the divergence is convex. Nothing is said of places that are traced.

    Args:
      signal, noise: α and σ where the chain begins.
      time: of that place, for the message.
    """
    if checks.is_concrete(signal, noise) and (nats := 0.5 * math.log1p(float(signal / noise) ** 2)) > FAR:
        share = float(signal**2 / (signal**2 + noise**2))
        warnings.warn(
            f"the chain begins at {float(time):g}, where a share ᾱ = {share:.3g} of the image is left: up to "
            f"{nats:.2g} nats of each number from the noise it begins with, and samples are off by as much. Let times "
            "reach the last, as spacing='trailing' does; and take a schedule that ends in noise: "
            "linear_schedule(T, 0.1 / T, 20 / T), cosine_schedule, or zero_terminal of any",
            StartWarning,
            stacklevel=4,
        )


def check(grid: Grid) -> None:
    """Refuse what is no grid.

    Raises:
      ValueError: tables of different lengths, or of fewer than two places; numbers that are not finite or below 0; or
        σ/α does not fall from place to place, except that the last may be as the one before.
    """
    shapes = [np.shape(table) for table in grid]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0][0] < 2:
        raise ValueError(f"grid: expected three tables [K + 1] of at least two places, got the shapes {shapes}")
    if not checks.is_concrete(grid):
        return
    for name, table in grid._asdict().items():
        checks.finite(f"grid.{name}", table)
    signal, noise = np.asarray(grid.signal, np.float64), np.asarray(grid.noise, np.float64)
    spread = np.divide(noise, signal, out=np.full_like(noise, np.inf), where=signal >= FAINT)
    falls = np.all(spread[1:-1] < spread[:-2]) and spread[-1] <= spread[-2]
    if not (falls and np.all(signal >= 0) and np.all(noise >= 0)):
        raise ValueError(f"grid: expected α, σ >= 0 whose ratio σ/α falls from place to place, got σ/α = {spread}")
    if not noise[-2] > 0:
        raise ValueError("grid: expected noise at every place but the last, got σ = 0 before it")


STEEP = 8.0
"""How many times σ̄ may fall in one step, σ̄ < 1 counted as 1, for a formula in σ̄ to be of use: images are of size 1."""


def steep(before: Table, after: Table) -> Any:
    """Which steps, from σ̄ to σ̄, are too steep for a formula of higher order in σ̄."""
    return before > STEEP * after.clip(1)


def on_times(schedule: Schedule, times: Any, *, final: Literal["one", "first"] = "one") -> Grid:
    """The places at some times of a schedule, and the end.

    Args:
      schedule: of T steps.
      times: from noisy to clean; see ``timesteps``.
      final: what ᾱ is at the end: 1, the image itself, or that of time 0, where some noise is left.

    Raises:
      ValueError: times that are not whole, do not fall, or lie outside [0, T), or an unknown end.
    """
    times = np.asarray(times)
    falling = times.ndim == 1 and times.size and times.dtype.kind in "iu" and np.all(times[1:] < times[:-1])
    if not falling or not schedule.num_steps > times[0] >= times[-1] >= 0:
        raise ValueError(f"times: expected falling times in [0, {schedule.num_steps}), got {times.tolist()}")
    if final not in ("one", "first"):
        raise ValueError(f"final: expected 'one' or 'first', got {final!r}")
    xp = np if isinstance(schedule.alpha_bar, np.ndarray) else jnp
    last = xp.ones_like(schedule.alpha_bar[:1]) if final == "one" else schedule.alpha_bar[:1]
    alpha_bar = xp.concatenate([schedule.alpha_bar[times], last])
    return Grid(np.append(times, 0).astype(np.int64), xp.sqrt(alpha_bar), xp.sqrt(1 - alpha_bar))


def karras(num_steps: int, low: float = 0.002, high: float = 80.0, rho: float = 7.0) -> Grid:
    """σ_i = (σ_max^{1/ρ} + i/(K-1) (σ_min^{1/ρ} - σ_max^{1/ρ}))^ρ, σ_K = 0, α = 1 (Karras et al. 2022, eq. 5).

    The network is told σ.

    Raises:
      ValueError: ``num_steps`` < 1, or not 0 < low < high < ∞ (one step alone begins at ``high``), or ``rho`` ≤ 0.
    """
    noise = np.append(_karras(num_steps, low, high, rho), 0.0)
    return Grid(noise, np.ones(num_steps + 1), noise)


def karras_times(schedule: Schedule, num_steps: int, rho: float = 7.0) -> Int[np.ndarray, " _"]:
    """The times of a schedule whose σ̄ lie nearest to Karras' spacing between its ends: for a network of whole times.

    Raises:
      ValueError: ``num_steps`` < 1 or ``rho`` ≤ 0, a schedule whose last ᾱ is 0, or so many steps that times coincide.
    """
    if schedule.faint.size:
        raise ValueError("schedule: the last ᾱ is 0, so σ̄ has no end; space the times evenly instead")
    spread = np.asarray(schedule.noise, np.float64) / np.asarray(schedule.signal, np.float64)
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
    starts below T - 1, by as much as T // K, and by more where K does not divide T. "linspace" visits both ends.

    >>> [timesteps(1000, 4, s).tolist() for s in ("trailing", "leading", "linspace")]
    [[999, 749, 499, 249], [750, 500, 250, 0], [999, 666, 333, 0]]

    Raises:
      ValueError: ``num_steps`` outside [1, total], or an unknown spacing.
    """
    checks.count("total", total)
    if checks.count("num_steps", num_steps) > total:
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
    checks.count("num_steps", num_steps)
    if not (0 < low < high or num_steps == 1 and 0 < low <= high) or not high < math.inf:
        raise ValueError(f"low, high: expected 0 < low < high, got {low:g} and {high:g}")
    checks.within("rho", rho, *RHO)
    ends = high ** (1 / rho), low ** (1 / rho)
    return np.linspace(*ends, num_steps) ** rho
