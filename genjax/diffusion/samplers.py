"""Reverse chains, each one ``lax.scan`` of a kernel ``(keys, x_t, step) -> x_s``, for any callable predicting noise."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import random
from genjax.diffusion import predictions, process
from genjax.diffusion.schedules import Schedule, Table, at
from genjax.theory import markov
from genjax.types import Input, Kernel, Key

Arrays = Float[Array, "b ..."]
Denoise = Callable[[Arrays, Int[Array, " b"]], Arrays | predictions.Prediction]
"""``(x_t, t) -> ε``, or the ``Prediction`` of image and noise."""

Spacing = Literal["trailing", "leading", "linspace"]


@runtime_checkable
class Sample(Protocol):
    """``sample(key, x_T) -> x_0``: a reverse chain."""

    def __call__(self, key: Key, x_T: Arrays, keep: Sequence[int] | None = None):
        """Run the chain. Image i depends on (key, i, x_T[i]) only.

        Args:
          key: one key, or one per image [b].
          x_T: where to start: standard normal noise [b ...].
          keep: numbers of steps done after which to keep the images; 0 keeps x_T itself.

        Returns:
          x_0 [b ...]; with ``keep``, the pair of x_0 and the kept images [len(keep) b ...].
        """
        ...


def chain(kernel: Kernel, steps: Input) -> Sample:
    """The sampler that applies ``kernel(keys, x, step)`` along ``steps``, whose floats take the dtype of x_T."""
    num_steps = jax.tree.leaves(steps)[0].shape[0]

    def sample(key: Key, x_T: Arrays, keep: Sequence[int] | None = None):
        keys = random.per_example(key, x_T.shape[0])
        cast = lambda a: jnp.asarray(a, x_T.dtype if jnp.issubdtype(a.dtype, jnp.floating) else jnp.int32)
        inputs = jax.tree.map(cast, steps)
        if keep is None:
            return markov.simulate(kernel, keys, x_T, inputs)[0]

        slots = _slots(keep, num_steps)
        frames = jnp.zeros((len(keep), *x_T.shape), x_T.dtype).at[slots[0]].set(x_T, mode="drop")

        def recording(keys, state, step):
            x, frames = state
            x, _ = kernel(keys, x, step[0])
            return (x, frames.at[step[1]].set(x, mode="drop")), None

        return markov.simulate(recording, keys, (x_T, frames), (inputs, slots[1:]))[0]

    return sample


def ancestral(
    denoise: Denoise,
    schedule: Schedule,
    *,
    variance: Literal["small", "large"] | Table = "small",
    clip: bool = True,
) -> Sample:
    """The reverse chain of DDPM (Ho et al. 2020, Algorithm 2): T steps, one evaluation of ``denoise`` each.

    x_{t-1} = c_0 x̂_0 + c_t x_t + σ_t z,  z ~ N(0, 1), no noise at the last step; x̂_0 from the predicted noise.

    Args:
      denoise: ``(x_t, t) -> ε``, with t an int array [b].
      schedule: of T steps.
      variance: σ_t²: "small" is β̃_t, optimal for data at one point; "large" is β_t, optimal for N(0, 1) data (§3.2);
        or a table [T] of variances. A prediction that brings its own variance overrides it.
      clip: clip x̂_0 to [-1, 1], the range of images.

    Raises:
      ValueError: ``variance`` is neither of the names nor a table [T].
    """
    deviation = _variances(schedule, variance) ** 0.5

    def kernel(keys, x, t):
        times = jnp.broadcast_to(t, x.shape[:1])
        guess = predictions.read(schedule, denoise(x, times), x, times)
        mean = process.posterior(schedule, _clip(guess.x0, clip), x, t).mean
        spread = at(deviation, t, x)
        if guess.fraction is not None:
            spread = jnp.exp(0.5 * process.log_variance(schedule, guess.fraction, t))
        return mean + jnp.where(t > 0, spread, 0) * random.normal(keys, x.shape[1:], x.dtype), None

    return chain(kernel, np.arange(schedule.num_steps)[::-1])


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    *,
    num_steps: int,
    eta: float = 0.0,
    spacing: Spacing = "trailing",
    clip: bool = True,
) -> Sample:
    """Denoising diffusion implicit models on a sub-grid of times (Song et al. 2021, eq. 12 and 16).

    x_s = √ᾱ_s x̂_0 + √(1 - ᾱ_s - σ²) ε̂ + σ z,  σ² = η² (1 - ᾱ_s) / (1 - ᾱ_t) · (1 - ᾱ_t / ᾱ_s)

    where s follows t on the grid and ᾱ = 1 after the last step. Where x̂_0 is clipped, ε̂ is the noise that goes with it.

    Args:
      denoise: ``(x_t, t) -> ε``, with t an int array [b].
      schedule: of T steps.
      num_steps: evaluations of ``denoise``, 1 to T.
      eta: 0 is deterministic; 1 on all T steps is ``ancestral`` with small variance.
      spacing: which times; see ``timesteps``.
      clip: clip x̂_0 to [-1, 1].

    Raises:
      ValueError: ``num_steps`` outside [1, T], ``eta`` outside [0, 1], or an unknown spacing.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected 0 (deterministic) to 1 (ancestral), got {eta:g}")
    times = timesteps(schedule.num_steps, num_steps, spacing)
    xp = np if isinstance(schedule.alpha_bar, np.ndarray) else jnp
    now = schedule.alpha_bar[times]
    after = xp.concatenate([now[1:], xp.ones_like(now[:1])])
    variance = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
    steps = times, after**0.5, xp.sqrt(1 - after - variance), variance**0.5

    def kernel(keys, x, step):
        t, signal, direction, deviation = step
        t = jnp.broadcast_to(t, x.shape[:1])
        guess = predictions.read(schedule, denoise(x, t), x, t)
        if clip:
            guess = predictions.from_x0(schedule, _clip(guess.x0, clip), x, t)
        noise = random.normal(keys, x.shape[1:], x.dtype)
        return signal * guess.x0 + direction * guess.noise + deviation * noise, None

    return chain(kernel, steps)


def timesteps(total: int, num_steps: int, spacing: Spacing) -> Int[np.ndarray, " t"]:
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
    grids = {
        "trailing": lambda: np.round(total - np.arange(num_steps) * (total / num_steps)) - 1,
        "leading": lambda: np.arange(num_steps)[::-1] * (total // num_steps),
        "linspace": lambda: np.round(np.linspace(0, total - 1, num_steps))[::-1],
    }
    if spacing not in grids:
        raise ValueError(f"spacing: expected one of {', '.join(grids)}; got {spacing!r}")
    return grids[spacing]().astype(np.int64)


def _variances(schedule: Schedule, variance: Literal["small", "large"] | Table) -> Table:
    named = {"small": schedule.posterior_variance, "large": schedule.beta}
    table = named.get(variance) if isinstance(variance, str) else variance
    if table is None or table.shape != schedule.beta.shape:
        raise ValueError(
            f"variance: expected 'small', 'large' or a table of {schedule.num_steps} variances; got {variance!r}"
        )
    return table


def _clip(x0: Arrays, clip: bool) -> Arrays:
    return jnp.clip(x0, -1, 1) if clip else x0


def _slots(keep: Sequence[int], num_steps: int) -> Int[np.ndarray, " t"]:
    """For each number of steps done, where its images go; ``len(keep)`` is nowhere."""
    if len(set(keep)) < len(keep) or not all(0 <= count <= num_steps for count in keep):
        raise ValueError(f"keep: expected different numbers of steps from 0 to {num_steps}, got {tuple(keep)}")
    slots = np.full(num_steps + 1, len(keep), np.int32)
    slots[list(keep)] = np.arange(len(keep))
    return slots
