"""U-Nets that predict noise: ``SimpleUNet`` of the lecture notes and ``UNet`` of the field.

``UNet`` is the network of Ho, Jain & Abbeel 2020 (arXiv:2006.11239, App. B): residual blocks with GroupNorm, attention
at low resolution, and a skip from every block. With its defaults it is their CIFAR-10 network, 35,746,307 parameters.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genjax.nn import convolution, dropout, embedding, normalization
from genjax.nn.simple_unet import SimpleUNet, check_size
from genjax.types import Images, Key

__all__ = ["SimpleUNet", "UNet"]

_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_ZERO = nn.initializers.zeros_init()


class UNet(nn.Module):
    """``network(x_t, t, keys) -> noise`` as in Ho et al. 2020; at the start of training it predicts zero.

    Fields:
      channels: of the finest level.
      multipliers: channels of each level over ``channels``; every level but the first halves the image.
      blocks: residual blocks of a level on the way down; one more on the way up.
      attention: heights at which every block is followed by attention; the coarsest level has one anyway.
      dropout: rate inside the blocks, active where keys are given.
      groups: of every GroupNorm; divides all channels.
      image_channels: of the image.
      epsilon: of GroupNorm.
      dtype: of the computation; parameters, normalisation, softmax and output stay float32.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (16,)
    dropout: float = 0.1
    groups: int = 32
    image_channels: int = 3
    epsilon: float = 1e-6
    dtype: Any = None

    @nn.compact
    def __call__(self, x_t: Images, t: Int[Array, " b"], keys: Key | None = None) -> Images:
        """Predict the noise in x_t.

        Args:
          x_t: noisy images; height and width divisible by 2^(levels - 1).
          t: time of each image.
          keys: for dropout, one per image; None drops nothing.

        Raises:
          ValueError: the image does not halve often enough, or ``groups`` do not divide the channels.
        """
        check_size(x_t, len(self.multipliers) - 1)
        if self.channels % self.groups:
            fix = f"use groups={math.gcd(self.groups, self.channels)}, or channels divisible by {self.groups}"
            raise ValueError(f"groups: expected a divisor of channels={self.channels}, got {self.groups}; {fix}")
        norm = functools.partial(normalization.GroupNorm, self.groups, epsilon=self.epsilon, dtype=self.dtype)
        conv = functools.partial(convolution.Conv, kernel_size=(3, 3), dtype=self.dtype, kernel_init=_UNIFORM)
        residual = functools.partial(_Residual, norm=norm, conv=conv, dropout=self.dropout, dtype=self.dtype)
        time = self._embed(t)

        def block(h: Images, level: int, name: str) -> Float[Array, "b h w features"]:
            h = residual(self.channels * self.multipliers[level], name=name)(h, time, keys)
            return _Attention(norm, self.dtype, name=f"{name}_attention")(h) if h.shape[1] in self.attention else h

        levels = range(len(self.multipliers))
        skips = [conv(self.channels, name="conv_in")(x_t)]
        for level in levels:
            if level > 0:
                skips.append(conv(skips[-1].shape[-1], strides=2, name=f"down_{level}")(skips[-1]))
            for i in range(self.blocks):
                skips.append(block(skips[-1], level, f"down_{level}_{i}"))
        h = residual(skips[-1].shape[-1], name="middle_0")(skips[-1], time, keys)
        h = _Attention(norm, self.dtype, name="middle_attention")(h)
        h = residual(h.shape[-1], name="middle_1")(h, time, keys)
        for level in reversed(levels):
            for i in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}")
            if level > 0:
                h = conv(h.shape[-1], name=f"up_{level}")(_double(h))
        h = conv(self.image_channels, kernel_init=_ZERO, name="conv_out")(nn.silu(norm(name="norm_out")(h)))
        return h.astype(jnp.promote_types(x_t.dtype, jnp.float32))

    def _embed(self, t: Int[Array, " b"]) -> Float[Array, "b time"]:
        """SiLU of the embedding that every block projects: waves, Dense, SiLU, Dense."""
        dense = functools.partial(nn.Dense, 4 * self.channels, dtype=self.dtype, kernel_init=_UNIFORM)
        time = dense(name="time_0")(embedding.sinusoidal(t, self.channels))
        return nn.silu(dense(name="time_1")(nn.silu(time)))


class _Residual(nn.Module):
    """x + conv(dropout(silu(norm(conv(silu(norm(x))) + time)))); the last convolution starts at zero."""

    features: int
    norm: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Images, time: Float[Array, "b time"], keys: Key | None) -> Float[Array, "b h w features"]:
        dense = functools.partial(nn.Dense, self.features, dtype=self.dtype, kernel_init=_UNIFORM)
        h = self.conv(self.features, name="conv_1")(nn.silu(self.norm(name="norm_1")(x)))
        h = h + dense(name="time")(time)[:, None, None]
        h = dropout.Dropout(self.dropout, name="dropout")(nn.silu(self.norm(name="norm_2")(h)), keys)
        h = self.conv(self.features, kernel_init=_ZERO, name="conv_2")(h)
        return h + (x if x.shape[-1] == self.features else dense(name="shortcut")(x))


class _Attention(nn.Module):
    """x + out(softmax(q kᵀ / √c) v): every pixel looks at all others with one head; the output starts at zero."""

    norm: Callable[..., nn.Module]
    dtype: Any

    @nn.compact
    def __call__(self, x: Images) -> Images:
        b, h, w, c = x.shape
        dense = functools.partial(nn.Dense, c, dtype=self.dtype, kernel_init=_UNIFORM)
        pixels = self.norm(name="norm")(x).reshape(b, h * w, c)
        query, key, value = (dense(name=name)(pixels) for name in ("query", "key", "value"))
        wide = jnp.promote_types(query.dtype, jnp.float32)
        weights = jax.nn.softmax(jnp.einsum("bqc,bkc->bqk", query, key, preferred_element_type=wide) * c**-0.5)
        mixed = jnp.einsum("bqk,bkc->bqc", weights.astype(value.dtype), value)
        return x + dense(kernel_init=_ZERO, name="out")(mixed).reshape(x.shape)


def _double(x: Images) -> Float[Array, "b 2*h 2*w c"]:
    """Every pixel four times: nearest-neighbour interpolation to twice the size."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
