"""How ``markov.simulate`` repeats a kernel: the keys of the steps, and the memory of reverse mode."""

from typing import Any

import jax
import jax.numpy as jnp

from genjax.types import Key, Output, State


def in_segments(step, state: State, streams: Any, segment: int) -> tuple[State, Output]:
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


def streams(key: Key, length: int) -> Key:
    """Keys [length, *key.shape]."""
    split = lambda one: jax.random.split(one, length)
    for _ in range(key.ndim):
        split = jax.vmap(split)
    return jnp.moveaxis(split(key), -1, 0)
