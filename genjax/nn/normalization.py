"""Normalisation of images by statistics of the batch at hand, without running averages.

y = γ (x - μ) / √(σ² + ε) + β, with γ and β for each channel. The variance takes two passes; float32 at least.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from genjax import checks
from genjax.types import Images


class BatchNorm(nn.Module):
    """Batch normalisation: μ, σ² of each channel over the batch and the image (Ioffe & Szegedy 2015).

    The examples of a batch depend on each other.

    Attributes:
      epsilon: ε.
      dtype: type of the result; None for the type of the input.
    """

    epsilon: float | int = 1e-5
    dtype: Any = None

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.positive("epsilon", self.epsilon)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Normalise x."""
        return _normalise(self, x, lambda x: x.mean((0, 1, 2)))


class GroupNorm(nn.Module):
    """Group normalisation: μ, σ² of each group of neighbouring channels over the image (Wu & He 2018).

    Equal to ``flax.linen.GroupNorm`` with ``use_fast_variance=False``.

    Attributes:
      num_groups: number of groups, a divisor of the number of channels.
      epsilon: ε.
      dtype: type of the result; None for the type of the input.
    """

    num_groups: int
    epsilon: float | int = 1e-6
    dtype: Any = None

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("num_groups", self.num_groups)
        checks.positive("epsilon", self.epsilon)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Normalise x.

        Raises:
          ValueError: the number of groups does not divide the number of channels.
        """
        b, _, _, c = x.shape
        if c % self.num_groups:
            raise ValueError(f"num_groups: expected a divisor of the {c} channels, got {self.num_groups}")
        size = c // self.num_groups

        def mean(x: Images) -> Array:
            groups = x.mean((1, 2)).reshape(b, self.num_groups, size).mean(axis=2)
            return jnp.repeat(groups, size, axis=1)[:, None, None]

        return _normalise(self, x, mean)


def _normalise(module: BatchNorm | GroupNorm, x: Images, mean: Callable[[Images], Array]) -> Images:
    scale = module.param("scale", nn.initializers.ones_init(), x.shape[-1:])
    bias = module.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - mean(wide)
    y = centred * (jax.lax.rsqrt(mean(jnp.square(centred)) + module.epsilon) * scale) + bias
    return y.astype(module.dtype or x.dtype)
