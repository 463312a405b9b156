"""Dropout with a key per example: the mask of an example does not depend on the batch or on the devices."""

import zlib

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax.types import Key


class Dropout(nn.Module):
    """Dropout, y = x · m / (1 - rate), m ~ Bernoulli(1 - rate) (Srivastava et al. 2014, scaled so that E y = x).

    The mask of example i comes from ``fold_in(keys[i], crc32(path of the module))``. Each dropout of a network has its
    own mask, and an example has the same masks in any batch and on any number of devices.

    Attributes:
      rate: probability of a zero, in [0, 1).
    """

    rate: float | int

    def __post_init__(self) -> None:
        """Check the rate."""
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate: expected 0 (nothing) to below 1, got {self.rate:g}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b ..."], keys: Key | None = None) -> Float[Array, "b ..."]:
        """Drop elements of x.

        Args:
          x: examples [b ...].
          keys: keys [b], one per example; None keeps everything.

        Raises:
          ValueError: the number of keys is not that of the examples.
        """
        if keys is None or self.rate == 0:
            return x
        if keys.shape != x.shape[:1]:
            raise ValueError(
                f"keys: expected {x.shape[0]}, one per example, got shape {keys.shape}; use random.example_keys"
            )
        name = zlib.crc32("/".join(self.path).encode())
        draw = lambda key: jax.random.bernoulli(jax.random.fold_in(key, name), 1 - self.rate, x.shape[1:])
        return jnp.where(jax.vmap(draw)(keys), x / (1 - self.rate), 0)
