"""Pure functions between bytes and model inputs, for use inside the training step."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from genjax import random
from genjax.types import Key


def scale(images: UInt8[Array | np.ndarray, "*shape"], dtype: Any = jnp.float32) -> Float[Array, "*shape"]:
    """Scale bytes to [-1, 1]: x / 127.5 - 1 (Ho 2020 §3.3), computed in at least float32.

    Args:
      images: levels 0 to 255, of any shape.
      dtype: type of the result; ``to_uint8`` recovers every level from float16 and bfloat16 too.
    """
    wide = jnp.asarray(images).astype(jnp.promote_types(dtype, jnp.float32))
    return (wide / 127.5 - 1).astype(dtype)


def to_uint8(images: Float[Array | np.ndarray, "*shape"]) -> UInt8[Array, "*shape"]:
    """Round 127.5 (x + 1) to bytes, x clipped to [-1, 1]; ``to_uint8(scale(u)) == u`` for all 256 levels."""
    wide = jnp.asarray(images).astype(jnp.promote_types(images.dtype, jnp.float32))
    return jnp.round(jnp.clip((wide + 1) * 127.5, 0, 255)).astype(jnp.uint8)


def binarize(keys: Key, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Draw pixels, 1 with probability (x + 1) / 2, else -1: dynamic binarisation (Salakhutdinov & Murray 2008).

    Args:
      keys: single key, or keys [b] of the examples (see ``genjax.random``).
      images: images in [-1, 1].
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype))
    drawn = uniform(random.example_keys(keys, images.shape[0]))
    return jnp.where(drawn < (images + 1) / 2, 1.0, -1.0).astype(images.dtype)


def flip(keys: Key, images: Shaped[Array | np.ndarray, "b h w c"]) -> Shaped[Array, "b h w c"]:
    """Mirror each image left to right with probability 1/2.

    Args:
      keys: single key, or keys [b] of the examples (see ``genjax.random``); the coin of example i depends on its key
        only.
      images: images of any dtype.
    """
    images = jnp.asarray(images)
    mirrored = jax.vmap(jax.random.bernoulli)(random.example_keys(keys, len(images)))
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
