"""Normalisation of images by the statistics at hand: no running averages, no state, two passes for an exact variance.

y = γ (x - μ) / √(σ² + ε) + β, with γ, β for each channel; computed in float32 at least.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.types import Images


class BatchNorm(nn.Module):
    """μ, σ² of each channel over the batch and the image (Ioffe & Szegedy 2015): examples depend on each other.

    Fields:
      epsilon: ε.
      dtype: of the result; None follows the input.
    """

    epsilon: float | int = 1e-5
    dtype: Any = None

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.positive("epsilon", self.epsilon)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Normalise x."""
        return _normalise(self, x, lambda x: x.mean((0, 1, 2)))


class GroupNorm(nn.Module):
    """μ, σ² of each group of neighbouring channels over the image (Wu & He 2018): every example for itself.

    Equal to ``flax.linen.GroupNorm`` with ``use_fast_variance=False``.

    Fields:
      groups: how many; divides the channels.
      epsilon: ε.
      dtype: of the result; None follows the input.
    """

    groups: int
    epsilon: float | int = 1e-6
    dtype: Any = None

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("groups", self.groups)
        checks.positive("epsilon", self.epsilon)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Images) -> Images:
        """Normalise x.

        Raises:
          ValueError: the groups do not divide the channels.
        """
        b, _, _, c = x.shape
        if c % self.groups:
            raise ValueError(f"groups: expected a divisor of the {c} channels, got {self.groups}")
        size = c // self.groups

        def mean(x: Images):
            groups = x.mean((1, 2)).reshape(b, self.groups, size).mean(axis=2)
            return jnp.repeat(groups, size, axis=1)[:, None, None]

        return _normalise(self, x, mean)


def _normalise(module: BatchNorm | GroupNorm, x: Images, mean) -> Images:
    scale = module.param("scale", nn.initializers.ones_init(), x.shape[-1:])
    bias = module.param("bias", nn.initializers.zeros_init(), x.shape[-1:])
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - mean(wide)
    y = centred * (jax.lax.rsqrt(mean(jnp.square(centred)) + module.epsilon) * scale) + bias
    return y.astype(module.dtype or x.dtype)
