"""One compiled scan of a kernel as a sampler: what a chain carries, and which of its images are kept."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks, random
from genjax.diffusion.schedules import Table
from genjax.theory import markov
from genjax.types import Input, Kernel, Key

Arrays = Float[Array, "b ..."]


@runtime_checkable
class Sample(Protocol):
    """``sample(key, x_T) -> x_0``: a reverse chain."""

    def __call__(self, key: Key, x_T: Arrays, keep: Sequence[int] | None = None, *, segment: int | None = None):
        """Run the chain. Image i depends on (key, i, x_T[i]) only. It carries float32, whatever the network computes in
        and x_T comes in; float64 where x_T does.

        Args:
          key: one key, or one per image [b].
          x_T: where to start: standard normal noise [b ...].
          keep: numbers of steps done after which to keep the images; 0 keeps x_T itself.
          segment: for gradients through a long chain; see ``markov.simulate``.

        Returns:
          x_0 [b ...]; with ``keep``, the pair of x_0 and the kept images [len(keep) b ...].

        Raises:
          ValueError: x_T that is not of floating point, or not finite; ``keep`` that cannot be.
        """
        ...


def chain(
    kernel: Kernel,
    steps: Input,
    *,
    begin: Callable[[Arrays], Any] = lambda x: x,
    image: Callable[[Any], Arrays] = lambda state: state,
    scale: Table | None = None,
    done: Int[np.ndarray, " _"] | None = None,
) -> Sample:
    """The sampler that applies ``kernel(keys, state, step)`` along ``steps``, whose floats take the dtype it carries.

    That is x_T's, at least float32.

    Args:
      kernel: of one step.
      steps: tables with one entry for each.
      begin: the first state, of x_T/``scale``; that itself by default.
      image: x/``scale`` of a state.
      scale: what the kernel counts x in, after each number of the sampler's steps [K + 1]; 1 by default.
      done: how many of the kernel's steps are run after each number of the sampler's [K + 1]; as many by default.
    """
    length = jax.tree.leaves(steps)[0].shape[0]
    runs = np.arange(length + 1) if done is None else done

    def sample(key: Key, x_T: Any, keep: Sequence[int] | None = None, *, segment: int | None = None):
        checks.floats("x_T", x_T, "a chain begins at noise")
        x_T = jnp.asarray(x_T, jnp.promote_types(x_T.dtype, jnp.float32))
        keys = random.example_keys(key, x_T.shape[0])
        inputs = jax.tree.map(lambda table: _cast(table, x_T.dtype), steps)
        unit = None if scale is None else jnp.asarray(scale, x_T.dtype)
        start = begin(x_T if unit is None else x_T / unit[0])
        if keep is None:
            end, _ = markov.simulate(kernel, keys, start, inputs, segment=segment)
            return image(end) if unit is None else image(end) * unit[-1]

        slots = _slots(keep, runs)
        frames = jnp.zeros((len(keep), *x_T.shape), x_T.dtype).at[slots[0]].set(image(start), mode="drop")

        def recording(keys, state, step):
            inner, frames = state
            inner, _ = kernel(keys, inner, step[0])
            return (inner, frames.at[step[1]].set(image(inner), mode="drop")), None

        end, frames = markov.simulate(recording, keys, (start, frames), (inputs, slots[1:]), segment=segment)[0]
        if unit is None:
            return image(end), frames
        return image(end) * unit[-1], frames * unit[jnp.array(keep)].reshape(-1, *[1] * x_T.ndim)

    return sample


def _cast(table: Any, dtype) -> Array:
    if jnp.issubdtype(table.dtype, jnp.floating):
        return jnp.asarray(table, dtype)
    return jnp.asarray(table, table.dtype if table.dtype == bool else jnp.int32)


def _slots(keep: Sequence[int], runs: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    """For each number of the kernel's steps, where the images after it go; ``len(keep)`` is nowhere."""
    num_steps = len(runs) - 1
    whole = all(isinstance(count, int | np.integer) for count in keep)
    if not whole or len(set(keep)) < len(keep) or not all(0 <= count <= num_steps for count in keep):
        raise ValueError(f"keep: expected different numbers of steps from 0 to {num_steps}, got {tuple(keep)}")
    slots = np.full(runs[-1] + 1, len(keep), np.int32)
    slots[runs[list(keep)]] = np.arange(len(keep))
    return slots
