"""Keys: one per example, and one stream for each use within a training run.

One rule serves the whole library: wherever a function takes a key for a batch, it also takes an array of keys, one per
example. A single key stands for the array ``fold_in(key, 0), fold_in(key, 1), ...``, so example i draws the same noise
in a batch of 1, 8 or 64, and on 1, 2 or 8 devices.

A training run has one key. Step i of the run uses ``fold_in(key, i)``; everything else has a ``Stream`` of its own, far
above the numbers of steps.
"""

import enum
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer, Shaped, UInt32

from genjax import checks
from genjax.types import Key


@enum.unique
class Stream(enum.IntEnum):
    """Streams of keys within a run, by number: the registry of the whole project.

    Attributes:
      DATA: orders of the epochs.
      INIT: initial parameters.
      HELDOUT: evaluation on held-out data.
      BATCH: random numbers of a batch that are not rows: a policy's rollouts, or the shift of stratified times. A run
        has at most one of the two.
      CARRY: initial state that goes on between batches, such as the environments.
    """

    DATA = 0xFFFFFFFF
    INIT = 0xFFFFFFFE
    HELDOUT = 0xFFFFFFFD
    BATCH = 0xFFFFFFFC
    CARRY = 0xFFFFFFFB


def stream(key: Key, name: Stream) -> Key:
    """Key of a stream of the run with this key.

    >>> bool(stream(jax.random.key(0), Stream.DATA) == jax.random.fold_in(jax.random.key(0), 2**32 - 1))
    True
    """
    return jax.random.fold_in(key, int(name))


def example_keys(key: Key, num: Any, first: int | Int[Array, ""] = 0) -> Key:
    """Keys of the examples ``first, ..., first + num - 1``; an array of ``num`` keys passes unchanged.

    Args:
      key: single key, or an array of keys [num].
      num: number of examples.
      first: number of the first example; must be 0 if ``key`` is an array.

    Raises:
      ValueError: ``key`` is an array of another length, or no key; or there are no examples.
    """
    _check_key(key)
    checks.count("num", num)
    if key.ndim:
        if key.shape != (num,):
            raise ValueError(f"key: expected one key or {num} of them, one per example; got keys of shape {key.shape}")
        return key
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(num))


def device_axis(axis_name: str | None) -> tuple[int, int | Int[Array, ""]]:
    """Number of devices along a mapped axis, and the number of this device; (1, 0) without an axis."""
    return (1, 0) if axis_name is None else (jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name))


def split(keys: Key, num: int) -> tuple[Key, ...]:
    """``num`` independent keys from each key: ``noise_keys, time_keys = split(keys, 2)``; any shape of ``keys``."""
    _check_key(keys)
    checks.count("num", num)
    streams = jax.vmap(lambda key: jax.random.split(key, num))(keys.reshape(-1))
    return tuple(streams[:, i].reshape(keys.shape) for i in range(num))


def normal(keys: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Float[Array, "b *shape"]:
    """Standard normal noise of ``shape`` for each of the keys [b]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(keys)


def permute(key: Key, index: Shaped[Array, " b"], size: int) -> Integer[Array, " b"]:
    """The images of the indices under a random permutation of ``range(size)``, which is never built.

    A Feistel network on the smallest power of two ≥ ``size``, walked until it lands inside (Black & Rogaway 2002,
    "Ciphers with arbitrary finite domains", method 2). Cost O(b): a data cursor can jump anywhere in any epoch.

    Args:
      key: key of the permutation; another key is another permutation.
      index: numbers in [0, size).
      size: length of the permutation, 1 to 2³⁰.

    Raises:
      ValueError: ``size`` or an index is out of range.
    """
    if not 1 <= size <= 1 << 30:
        raise ValueError(f"size: expected 1 to 2**30, got {size}")
    checks.integers("index", index, 0, size)
    bits = max(2, math.ceil(math.log2(size)))
    low = bits // 2
    high = bits - low
    round_keys = jax.random.bits(key, (8,), jnp.uint32)

    def encipher(x: UInt32[Array, " b"]) -> UInt32[Array, " b"]:
        for i in range(0, 8, 2):
            left, right = x >> low, x & ((1 << low) - 1)
            left = left ^ (_mix(right ^ round_keys[i]) & ((1 << high) - 1))
            right = right ^ (_mix(left ^ round_keys[i + 1]) & ((1 << low) - 1))
            x = (left << low) | right
        return x

    outside = lambda x: x >= size
    walk = lambda x: jnp.where(outside(x), encipher(x), x)
    first = encipher(index.astype(jnp.uint32))
    return jax.lax.while_loop(lambda x: jnp.any(outside(x)), walk, first).astype(index.dtype)


def _check_key(key: Key) -> None:
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key: expected a typed key, as jax.random.key(0), got {key.dtype}{list(key.shape)}")


def _mix(x: UInt32[Array, " b"]) -> UInt32[Array, " b"]:
    """The finaliser of MurmurHash3 (Appleby 2011): every input bit reaches every output bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
