"""Samplers: a reverse chain as three functions, and the one scan that runs it.

``init`` makes the state of x_T, ``step`` takes the state from one place of the chain to the next, and ``output`` reads
the images off a state. A call runs all K steps as one compiled scan, and reports what is kept on the way. Callers with
other plans (another loop, an early stop, a look at every state) take the steps themselves:

>>> import jax, numpy as np
>>> halve = make_sampler(lambda keys, x, place: 0.5 * x + 0 * place, np.zeros(3))
>>> x_T, key = jnp.ones((2, 1)), jax.random.key(0)
>>> state = halve.init(x_T)
>>> for keys, place in halve.steps(key, x_T):
...     state = halve.step(keys, state, place)
>>> bool((halve.output(state) == halve(key, x_T)).all())
True
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks, random
from genjax.theory import markov, scans
from genjax.types import Input, Key, State

Arrays = Float[Array, "b ..."]


@runtime_checkable
class Sample(Protocol):
    """A reverse chain as a function, ``sample(key, x_T) -> x_0``."""

    def __call__(self, key: Key, x_T: Arrays, keep: Sequence[int] | None = None, *, segment: int | None = None) -> Any:
        """Run the chain. Image i depends on (key, i, x_T[i]) only.

        The chain computes in float32, whatever dtype the network and x_T have, or in float64 if x_T has float64.

        Args:
          key: a single key, or one per image [b].
          x_T: the start of the chain: standard normal noise [b ...].
          keep: step counts after which images are kept; 0 keeps x_T.
          segment: length of the segments that a gradient recomputes; see ``markov.simulate``.

        Returns:
          x_0 [b ...]; with ``keep``, the pair of x_0 and the kept images [len(keep) b ...].

        Raises:
          ValueError: x_T is not of floating point or not finite; or ``keep`` has repeated or impossible step counts.
        """
        ...


@dataclasses.dataclass(frozen=True, eq=False)  # no NamedTuple: jit takes functions that hash by identity
class Sampler:
    """A reverse chain of K steps: a ``Sample`` whose steps can also be taken one by one.

    Attributes:
      init: initial state, ``(x_T) -> state``.
      step: the step of the chain, ``(keys [b], state, place) -> state``.
      output: images of a state, ``(state) -> images``.
      places: input of each step, a tree of tables with leading axis K.
    """

    init: Callable[[Arrays], State]
    step: Callable[[Key, State, Input], State]
    output: Callable[[State], Arrays]
    places: Input

    @property
    def num_steps(self) -> int:
        """K."""
        return jax.tree.leaves(self.places)[0].shape[0]

    def steps(self, key: Key, x_T: Any) -> Iterator[tuple[Key, Input]]:
        """Iterate over the keys and the place of each step, the same as in a call.

        Args:
          key: a single key, or one per image [b].
          x_T: the start of the chain, for the number of images and the dtype.
        """
        keys = scans.step_keys(random.example_keys(key, x_T.shape[0]), self.num_steps)
        places = _cast(self.places, _dtype(x_T))
        return ((keys[k], jax.tree.map(lambda table: table[k], places)) for k in range(self.num_steps))  # noqa: B023

    def __call__(self, key: Key, x_T: Any, keep: Sequence[int] | None = None, *, segment: int | None = None) -> Any:
        """Run all steps as one scan; see ``Sample``."""
        state, keys = self.init(x_T), random.example_keys(key, x_T.shape[0])
        places, dtype = _cast(self.places, _dtype(x_T)), _dtype(x_T)
        if keep is None:
            kernel = lambda keys, state, place: (self.step(keys, state, place), None)
            return self.output(markov.simulate(kernel, keys, state, places, segment=segment)[0])

        slots = _slots(keep, self.num_steps)
        frames = jnp.zeros((len(keep), *x_T.shape), dtype).at[slots[0]].set(self.output(state), mode="drop")

        def recording(keys: Key, carry: State, inputs: Input) -> tuple[State, None]:
            (state, frames), (place, slot) = carry, inputs
            state = self.step(keys, state, place)
            return (state, frames.at[slot].set(self.output(state), mode="drop")), None

        carry, inputs = (state, frames), (places, slots[1:])
        state, frames = markov.simulate(recording, keys, carry, inputs, segment=segment)[0]
        return self.output(state), frames


def make_sampler(
    step: Callable[[Key, State, Input], State],
    places: Input,
    *,
    init: Callable[[Arrays], State] = lambda x: x,
    output: Callable[[State], Arrays] = lambda state: state,
) -> Sampler:
    """Make a sampler, whose ``init`` checks x_T and takes it to at least float32.

    Args:
      step: the step of the chain, ``(keys [b], state, place) -> state``; floats of ``place`` come in the chain's dtype.
      places: input of each step, a tree of tables with leading axis K.
      init: state of x_T; x_T itself by default.
      output: images of a state; the state itself by default.
    """

    def checked_init(x_T: Any) -> State:
        checks.floats("x_T", x_T, "a chain begins at noise")
        return init(jnp.asarray(x_T, _dtype(x_T)))

    return Sampler(checked_init, step, output, places)


def _dtype(x_T: Any) -> Any:
    return jnp.promote_types(x_T.dtype, jnp.float32)


def _cast(places: Input, dtype: Any) -> Input:
    """Cast tables of floats to a dtype, and whole numbers to int32."""

    def cast(table: Any) -> Array:
        if jnp.issubdtype(table.dtype, jnp.floating):
            return jnp.asarray(table, dtype)
        return jnp.asarray(table, table.dtype if table.dtype == bool else jnp.int32)

    return jax.tree.map(cast, places)


def _slots(keep: Sequence[int], num_steps: int) -> Int[np.ndarray, " _"]:
    """The index in ``keep`` of each step count from 0 to ``num_steps``; ``len(keep)`` for counts that are not kept."""
    whole = all(isinstance(count, int | np.integer) for count in keep)
    if not whole or len(set(keep)) < len(keep) or not all(0 <= count <= num_steps for count in keep):
        raise ValueError(f"keep: expected different numbers of steps from 0 to {num_steps}, got {tuple(keep)}")
    slots = np.full(num_steps + 1, len(keep), np.int32)
    slots[list(keep)] = np.arange(len(keep))
    return slots
