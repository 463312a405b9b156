"""Parts of ``markov.simulate``: keys of the steps, and a scan that saves memory in reverse mode."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.types import Key, Output, State


def checkpointed_scan(
    step: Callable[[State, Any], tuple[State, Output]], state: State, inputs: tuple[Key, Any], segment: int
) -> tuple[State, Output]:
    """A scan of scans: reverse mode stores the states between segments, and within one segment those between steps."""
    length = inputs[0].shape[0]
    end = length // segment * segment
    run = jax.checkpoint(lambda x, part: jax.lax.scan(jax.checkpoint(step), x, part))
    segments = jax.tree.map(lambda a: a[:end].reshape(-1, segment, *a.shape[1:]), inputs)
    state, outputs = jax.lax.scan(run, state, segments)
    outputs = jax.tree.map(lambda a: a.reshape(end, *a.shape[2:]), outputs)
    if end == length:
        return state, outputs
    state, rest = run(state, jax.tree.map(lambda a: a[end:], inputs))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, rest)


def num_steps(inputs: Any, length: int | None) -> int:
    """Number of steps, from the leading axis of the inputs or from ``length``.

    Raises:
      ValueError: both are None, they disagree, or ``length`` is negative.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not all(shapes):
        raise ValueError(f"inputs: expected a leading axis in each, got the shapes {shapes}")
    lengths = {shape[0] for shape in shapes} | ({length} if length is not None else set())
    if len(lengths) != 1 or min(lengths) < 0:
        got = sorted(lengths) or "none"
        raise ValueError(f"length: inputs and length must name one number of steps, 0 or more; got {got}")
    return lengths.pop()


def step_keys(key: Key, length: int) -> Key:
    """Keys of the steps [length, *key.shape].

    Raises:
      ValueError: ``key`` is no typed key.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key: expected jax.random.key(seed), or an array of them, got {key.dtype}")
    split = lambda key: jax.random.split(key, length)
    for _ in range(key.ndim):
        split = jax.vmap(split)
    return jnp.moveaxis(split(key), -1, 0)
