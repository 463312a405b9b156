"""The forward process q and its posterior (Ho et al. 2020, §2)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from genjax import checks
from genjax.diffusion.schedules import Schedule, Table, Times, at, logarithm, root


class Posterior(NamedTuple):
    """A Gaussian over x_{t-1}.

    Attributes:
      mean: the mean [b ...].
      variance: the variance of every dimension [b 1 ...].
    """

    mean: Float[Array, "b ..."]
    variance: Float[Array, "..."]


def diffuse(schedule: Schedule, images: ArrayLike, t: Times, noise: ArrayLike) -> Float[Array, "b ..."]:
    """Jump to time t: x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, a draw from q(x_t|x_0) where ε ~ N(0, 1) (Ho et al. 2020, eq. 4).

    Args:
      schedule: the schedule of T steps.
      images: x_0.
      t: times in [0, T), one per image or one for all.
      noise: ε, in the shape of the images.

    Raises:
      ValueError: images or noise are not floating-point or not finite, or a time is outside [0, T).
    """
    images, noise = _numbers(images=images, noise=noise)
    return at(schedule.sqrt_alpha_bar, t, images) * images + at(schedule.sqrt_one_minus_alpha_bar, t, images) * noise


def q_step(schedule: Schedule, images: ArrayLike, t: Times, noise: ArrayLike) -> Float[Array, "b ..."]:
    """Take one noising step: x_t = √(1 - β_t) x_{t-1} + √β_t ε, a draw from q(x_t|x_{t-1}) (Ho et al. 2020, eq. 2).

    Raises:
      ValueError: see ``diffuse``.
    """
    images, noise = _numbers(images=images, noise=noise)
    return at(root(1 - schedule.beta), t, images) * images + at(root(schedule.beta), t, images) * noise


def posterior(schedule: Schedule, x0: ArrayLike, x_t: ArrayLike, t: Times) -> Posterior:
    """Compute q(x_{t-1}|x_t, x_0) = N(c_0 x_0 + c_t x_t, β̃_t) (Ho et al. 2020, eq. 6-7).

    c_0 = √ᾱ_{t-1} β_t / (1 - ᾱ_t),  c_t = √(1 - β_t) (1 - ᾱ_{t-1}) / (1 - ᾱ_t),  β̃_t = (1 - ᾱ_{t-1}) / (1 - ᾱ_t) β_t

    Raises:
      ValueError: see ``diffuse``.
    """
    x0, x_t = _numbers(x0=x0, x_t=x_t)
    beta, alpha_bar, alpha_bar_prev = schedule
    x0_weight = at(root(alpha_bar_prev) * beta / (1 - alpha_bar), t, x0)
    x_t_weight = at(root(1 - beta) * (1 - alpha_bar_prev) / (1 - alpha_bar), t, x_t)
    return Posterior(x0_weight * x0 + x_t_weight * x_t, at(schedule.posterior_variance, t, x_t))


def posterior_variance_clipped(schedule: Schedule) -> Table:
    """β̃_t with β̃_1 in place of β̃_0 = 0, which no likelihood can use (Nichol & Dhariwal 2021, §3.1)."""
    return _later_first(schedule.posterior_variance) if schedule.num_steps > 1 else schedule.beta


def fixed_large_variance(schedule: Schedule) -> Table:
    """β_t with β̃_1 in place of β_0: "fixed large" in the code of Ho et al. 2020."""
    beta, clipped = schedule.beta, posterior_variance_clipped(schedule)
    concatenate = np.concatenate if isinstance(beta, np.ndarray) else jnp.concatenate
    return concatenate([clipped[:1], beta[1:]])


def log_variance(schedule: Schedule, variance_interpolation: Float[Array, "b ..."], t: Times) -> Float[Array, "b ..."]:
    """Interpolate log σ² = v log β_t + (1 - v) log β̃_t, the learned variance (Nichol & Dhariwal 2021, eq. 15).

    Args:
      schedule: the schedule of T steps.
      variance_interpolation: v; 0 gives β̃_t, 1 gives β_t.
      t: times in [0, T).
    """
    min_log, max_log = (
        at(logarithm(table), t, variance_interpolation)
        for table in (posterior_variance_clipped(schedule), schedule.beta)
    )
    return min_log + variance_interpolation * (max_log - min_log)


def _numbers(**arrays: ArrayLike) -> list[Array]:
    for name, array in arrays.items():
        checks.floats(name, array)
    return [jnp.asarray(array) for array in arrays.values()]


def _later_first(table: Table) -> Table:
    concatenate = np.concatenate if isinstance(table, np.ndarray) else jnp.concatenate
    return concatenate([table[1:2], table[1:]])
