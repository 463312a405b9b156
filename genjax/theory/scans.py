"""How ``markov.simulate`` repeats a kernel: the keys of the steps, and the memory of reverse mode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.types import Key, Output, State


def checkpointed_scan(step, state: State, streams: Any, segment: int) -> tuple[State, Output]:
    """A scan of scans, of which reverse mode keeps the states between segments, and inside one those between steps."""
    length = streams[0].shape[0]
    whole = length // segment * segment
    run = jax.checkpoint(lambda x, part: jax.lax.scan(jax.checkpoint(step), x, part))
    cut = jax.tree.map(lambda a: a[:whole].reshape(-1, segment, *a.shape[1:]), streams)
    state, outputs = jax.lax.scan(run, state, cut)
    outputs = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), outputs)
    if whole == length:
        return state, outputs
    state, rest = run(state, jax.tree.map(lambda a: a[whole:], streams))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, rest)


def num_steps(inputs: Any, named: int | None) -> int:
    """The number of steps, which the inputs tell, or who calls.

    Raises:
      ValueError: neither does, they disagree, or it is negative.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not all(shapes):
        raise ValueError(f"inputs: expected a leading axis in each, got the shapes {shapes}")
    lengths = {shape[0] for shape in shapes} | ({named} if named is not None else set())
    if len(lengths) != 1 or min(lengths) < 0:
        found = sorted(lengths) or "none"
        raise ValueError(f"length: inputs and length must name one number of steps, 0 or more; got {found}")
    return lengths.pop()


def step_keys(key: Key, length: int) -> Key:
    """Keys [length, *key.shape].

    Raises:
      ValueError: the key is not of ``jax.random.key``.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key: expected jax.random.key(seed), or an array of them, got {key.dtype}")
    split = lambda one: jax.random.split(one, length)
    for _ in range(key.ndim):
        split = jax.vmap(split)
    return jnp.moveaxis(split(key), -1, 0)
