"""Grids of a reverse chain: the conditioning value of the network, the image scale α and the noise level σ by place.

Everywhere x = α x_0 + σ ε. A schedule keeps α² + σ² = 1 (Ho et al. 2020); Karras et al. 2022 keep α = 1. With x̄ = x/α
and σ̄ = σ/α the two are the same process, and every sampler is written once for both.
"""

import math
import warnings
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from genjax import checks
from genjax.diffusion.schedules import MIN_ALPHA, Schedule, Table

Spacing = Literal["trailing", "leading", "linspace"]

RHO_RANGE = 0.01, 1000.0
"""Range of ρ in Karras' spacing: from nearly all steps at the ends to steps of one ratio, in the range of floats."""

MAX_START_NATS = 0.005
"""Largest divergence of x_t from N(0, 1), in nats per dimension, that starts a chain without a warning; ᾱ = 0.01."""

STEEP = 8.0
"""Largest ratio of σ̄ before and after a step for a formula in σ̄. Images are of size 1, so σ̄ < 1 counts as 1."""


class Grid(NamedTuple):
    """K + 1 places of a chain, from noisy to clean. All tables are [K + 1].

    Attributes:
      cond: conditioning value of the network (a time, σ or γ); the last entry is unused.
      alpha: α, the factor of x_0.
      sigma: σ, the standard deviation of the noise; 0 at the last place leaves the image alone.
    """

    cond: Table | Int[np.ndarray, " _"]
    alpha: Table
    sigma: Table

    @property
    def num_steps(self) -> int:
        """K."""
        return self.cond.shape[0] - 1

    @property
    def sigma_bar(self) -> Table:
        """σ̄ = σ/α, the noise in x̄ = x/α; infinite where nothing of the image is left."""
        with np.errstate(divide="ignore"):
            return self.sigma / self.alpha


class PartialGrid(Grid):
    """The rest of a grid, for a chain that starts from noised images (``editing.sdedit``) and not from noise."""

    __slots__ = ()


class StartWarning(UserWarning):
    """A chain starts at N(0, 1), but x_t there has another distribution.

    ``warnings.simplefilter("ignore", StartWarning)`` silences the warning; a ``PartialGrid`` causes none.
    """


def check_start(alpha: Any, sigma: Any, cond: Any) -> None:
    """Warn if x_t at the start of a chain differs from N(0, 1), where the chain starts.

    D(q(x_t)‖N(0, 1)) ≤ E D(q(x_t|x_0)‖N(0, 1)) = -½ log(1 - ᾱ_t) = ½ log(1 + α²/σ²) nats per dimension, for data of
    second moment 1, as the divergence is convex. Traced values are not checked.

    Args:
      alpha: α at the start.
      sigma: σ at the start.
      cond: conditioning value at the start, for the message.
    """
    if checks.is_concrete(alpha, sigma) and (nats := 0.5 * math.log1p(float(alpha / sigma) ** 2)) > MAX_START_NATS:
        alpha_bar = float(alpha**2 / (alpha**2 + sigma**2))
        warnings.warn(
            f"the chain begins at {float(cond):g}, where a share ᾱ = {alpha_bar:.3g} of the image is left: up to "
            f"{nats:.2g} nats of each number from the noise it begins with, and samples are off by as much. Let times "
            "reach the last, as spacing='trailing' does; and take a schedule that ends in noise: "
            "linear_schedule(T, 0.1 / T, 20 / T), cosine_schedule, or rescale_zero_terminal_snr of any",
            StartWarning,
            stacklevel=4,
        )


def check(grid: Grid) -> None:
    """Refuse three tables that are not a grid.

    Raises:
      ValueError: tables differ in length, or have fewer than two places; a number is not finite or below 0; or σ/α does
        not fall from place to place (the last may equal the one before).
    """
    shapes = [np.shape(table) for table in grid]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or shapes[0][0] < 2:
        raise ValueError(f"grid: expected three tables [K + 1] of at least two places, got the shapes {shapes}")
    if not checks.is_concrete(grid):
        return
    for name, table in grid._asdict().items():
        checks.finite(f"grid.{name}", table)
    alpha, sigma = np.asarray(grid.alpha, np.float64), np.asarray(grid.sigma, np.float64)
    sigma_bar = np.divide(sigma, alpha, out=np.full_like(sigma, np.inf), where=alpha >= MIN_ALPHA)
    falls = np.all(sigma_bar[1:-1] < sigma_bar[:-2]) and sigma_bar[-1] <= sigma_bar[-2]
    if not (falls and np.all(alpha >= 0) and np.all(sigma >= 0)):
        raise ValueError(f"grid: expected α, σ >= 0 whose ratio σ/α falls from place to place, got σ/α = {sigma_bar}")
    if not sigma[-2] > 0:
        raise ValueError("grid: expected noise at every place but the last, got σ = 0 before it")


def places(grid: Grid, index: Any) -> Grid:
    """Select places of a grid.

    Args:
      grid: the grid of K steps.
      index: a slice, or whole numbers [n].
    """
    return Grid(*(table[index] for table in grid))


def is_steep(before: Table, after: Table) -> Any:
    """Tell which steps from one σ̄ to the next are too steep for a formula of higher order in σ̄.

    Args:
      before: σ̄ before each step [K].
      after: σ̄ after each step [K].

    Returns:
      Truth values [K].
    """
    return before > STEEP * after.clip(1)


def on_times(schedule: Schedule, times: Any, *, final: Literal["one", "first"] = "one") -> Grid:
    """Make the grid of some times of a schedule, and the end.

    Args:
      schedule: the schedule of T steps.
      times: whole numbers in [0, T), from noisy to clean; see ``timesteps``.
      final: ᾱ at the end: "one" is 1, the image itself; "first" is ᾱ_0, which leaves some noise.

    Raises:
      ValueError: times are not whole, do not fall, or lie outside [0, T); or ``final`` is unknown.
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


def karras(num_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Grid:
    """Make the grid of Karras et al. 2022, eq. 5; the network is conditioned on σ.

    σ_i = (σ_max^{1/ρ} + i/(K-1) (σ_min^{1/ρ} - σ_max^{1/ρ}))^ρ,  σ_K = 0,  α = 1

    Args:
      num_steps: K. A single step begins at ``sigma_max``.
      sigma_min: σ_min, the last noise level above 0.
      sigma_max: σ_max, the first noise level.
      rho: ρ, in [0.01, 1000]; larger values put more steps at small σ.

    Raises:
      ValueError: ``num_steps`` < 1, ``rho`` is out of range, or 0 < ``sigma_min`` < ``sigma_max`` < ∞ does not hold.
    """
    sigma = np.append(_karras(num_steps, sigma_min, sigma_max, rho), 0.0)
    return Grid(sigma, np.ones(num_steps + 1), sigma)


def karras_times(schedule: Schedule, num_steps: int, rho: float = 7.0) -> Int[np.ndarray, " _"]:
    """Find the times of a schedule whose σ̄ lie nearest to Karras' spacing, for a network of whole times.

    Args:
      schedule: the schedule of T steps; its first and last σ̄ are the ends of the spacing.
      num_steps: K, the number of times.
      rho: ρ, in [0.01, 1000].

    Raises:
      ValueError: ``num_steps`` < 1, ``rho`` is out of range, the last ᾱ is 0, or two of the times coincide.
    """
    if schedule.zero_snr_times.size:
        raise ValueError("schedule: the last ᾱ is 0, so σ̄ has no end; space the times evenly instead")
    alpha = np.asarray(schedule.sqrt_alpha_bar, np.float64)
    sigma_bar = np.asarray(schedule.sqrt_one_minus_alpha_bar, np.float64) / alpha
    spacing = _karras(num_steps, float(sigma_bar[0]), float(sigma_bar[-1]), rho)
    times = np.rint(np.interp(np.log(spacing), np.log(sigma_bar), np.arange(schedule.num_steps))).astype(np.int64)
    if len(distinct := np.unique(times)) < num_steps:
        raise ValueError(
            f"num_steps: {num_steps} places of Karras' spacing fall on {len(distinct)} of the schedule's "
            f"{schedule.num_steps} times; use at most {len(distinct)} steps, or even spacing"
        )
    return times


def timesteps(total: int, num_steps: int, spacing: Spacing) -> Int[np.ndarray, " _"]:
    """Choose the times of a short chain, from noisy to clean (Lin et al. 2024, Table 2).

    "trailing" takes the ends of the steps' intervals: it starts at the noisiest time T - 1. "leading" takes the
    beginnings: it visits 0 but starts below T - 1, by as much as T // K, and by more where K does not divide T.
    "linspace" visits both ends.

    >>> [timesteps(1000, 4, s).tolist() for s in ("trailing", "leading", "linspace")]
    [[999, 749, 499, 249], [750, 500, 250, 0], [999, 666, 333, 0]]

    Args:
      total: T, the steps of the schedule.
      num_steps: K, the number of times.
      spacing: the name of the spacing.

    Raises:
      ValueError: ``num_steps`` is outside [1, total], or the spacing is unknown.
    """
    checks.count("total", total)
    if checks.count("num_steps", num_steps) > total:
        raise ValueError(f"num_steps: expected 1 to {total}, the steps of the schedule; got {num_steps}")
    spacings = {
        "trailing": lambda: np.round(total - np.arange(num_steps) * (total / num_steps)) - 1,
        "leading": lambda: np.arange(num_steps)[::-1] * (total // num_steps),
        "linspace": lambda: np.round(np.linspace(0, total - 1, num_steps))[::-1],
    }
    if spacing not in spacings:
        raise ValueError(f"spacing: expected one of {', '.join(spacings)}; got {spacing!r}")
    return spacings[spacing]().astype(np.int64)


def _karras(num_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Float[np.ndarray, " _"]:
    checks.count("num_steps", num_steps)
    rises = 0 < sigma_min < sigma_max or num_steps == 1 and 0 < sigma_min <= sigma_max
    if not rises or not sigma_max < math.inf:
        raise ValueError(
            f"sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, got {sigma_min:g} and {sigma_max:g}"
        )
    checks.within("rho", rho, *RHO_RANGE)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.linspace(*ends, num_steps) ** rho
