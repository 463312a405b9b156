"""U-Nets that predict noise: ``SimpleUNet`` of the lecture notes, and ``UNet`` of Ho et al. and their successors.

``UNet`` is the network of Ho, Jain & Abbeel 2020 (arXiv:2006.11239, App. B): residual blocks with GroupNorm, attention
at low resolution, and a skip from every block. With its defaults it is their CIFAR-10 network, 35,746,307 parameters.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.nn import convolution, dropout, embedding, mlp, normalization
from genjax.nn.simple_unet import SimpleUNet, check_size
from genjax.types import Images, Key, Pixels

__all__ = ["SimpleUNet", "UNet"]

Features = Float[Array, "b h w features"]

_UNIFORM = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
_ZERO = nn.initializers.zeros_init()


class UNet(nn.Module):
    """``network(x_t, t, keys) -> noise`` as in Ho et al. 2020; at the start of training it predicts zero.

    Attributes:
      channels: number of channels of the finest level.
      channel_mults: channels of each level over ``channels``; every level but the first halves the image.
      num_res_blocks: residual blocks of a level on the way down; one more on the way up.
      attention_resolutions: heights at which attention follows every block; None means 16, if the image is ever that
        high.
      dropout: dropout rate inside the blocks, active if keys are given.
      groups: groups of every GroupNorm; a divisor of all channels.
      image_channels: channels of the output: those of the image, or twice as many for a learned variance.
      epsilon: ε of GroupNorm.
      dtype: dtype of the computation; parameters, normalisation, softmax and output stay float32.
      attention_down: levels with attention on the way down; None goes by ``attention_resolutions``.
      attention_up: levels with attention on the way up; None goes by ``attention_resolutions``.
      middle_attention: True for attention between the two middle blocks.
      head_channels: channels of each head of attention; None for a single head.
      down_padding: padding of the halving convolutions; ``"SAME"`` pads below and right, 1 all around.
      embed: embedding of time, ``embedding.sinusoidal`` or ``embedding.sinusoidal_cosine_first``.
      modulation: effect of time in a block: ``"add"`` adds it, ``"scale"`` scales and shifts (Nichol & Dhariwal 2021,
        §2).
      num_classes: number of classes of the labels; 0 for a network without labels.
      fourier: exponents n of the inputs sin(2^n π x_t) and cos(2^n π x_t) beside x_t, which tell the levels of a pixel
        apart (Kingma et al. 2021, arXiv:2107.00630, App. C).
    """

    channels: int = 128
    channel_mults: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] | None = None
    dropout: float | int = 0.1
    groups: int = 32
    image_channels: int = 3
    epsilon: float | int = 1e-6
    dtype: Any = None
    attention_down: tuple[int, ...] | None = None
    attention_up: tuple[int, ...] | None = None
    middle_attention: bool = True
    head_channels: int | None = None
    down_padding: convolution.Padding = "SAME"
    embed: Callable[[embedding.Times, int], Float[Array, "b features"]] = embedding.sinusoidal
    modulation: Literal["add", "scale"] = "add"
    num_classes: int = 0
    fourier: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the attributes."""
        checks.count("channels", self.channels)
        checks.counts("channel_mults", self.channel_mults, length=1)
        for name in ("num_res_blocks", "groups", "image_channels"):
            checks.count(name, getattr(self, name))
        checks.count("num_classes", self.num_classes, 0)
        checks.count("head_channels", 1 if self.head_channels is None else self.head_channels)
        checks.positive("epsilon", self.epsilon)
        checks.counts("attention_resolutions", () if self.attention_resolutions is None else self.attention_resolutions)
        for name in ("attention_down", "attention_up"):
            for level in getattr(self, name) or ():
                checks.integers(name, level, 0, len(self.channel_mults))
        checks.choice("modulation", self.modulation, ("add", "scale"))
        dropout.Dropout(self.dropout, parent=None)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x_t: Pixels, t: embedding.Times, keys: Key | None = None, labels: mlp.Labels | None = None
    ) -> Float[Array, "b h w outputs"]:
        """Predict the noise in x_t.

        Args:
          x_t: noisy images; height and width divisible by 2^(levels - 1).
          t: time of each image [b].
          keys: keys for dropout, one per image; None drops nothing.
          labels: classes [b]; None, or the number ``num_classes``, stands for no class.

        Raises:
          ValueError: the image does not halve often enough, never has a height of ``attention_resolutions``, or is of
            bytes; ``groups`` do not divide the channels; or a label is not among the classes.
        """
        checks.floating("x_t", x_t, checks.SCALE)
        check_size(x_t, len(self.channel_mults) - 1)
        attention_heights = self._attention_heights(x_t.shape[1])
        if self.channels % self.groups:
            fix = f"use groups={math.gcd(self.groups, self.channels)}, or channels divisible by {self.groups}"
            raise ValueError(f"groups: expected a divisor of channels={self.channels}, got {self.groups}; {fix}")
        norm = functools.partial(normalization.GroupNorm, self.groups, epsilon=self.epsilon, dtype=self.dtype)
        conv = functools.partial(convolution.Conv, kernel_size=(3, 3), dtype=self.dtype, kernel_init=_UNIFORM)
        residual = functools.partial(
            _Residual, norm=norm, conv=conv, dropout=self.dropout, dtype=self.dtype, modulation=self.modulation
        )
        attend = functools.partial(_Attention, norm, self.dtype, self.head_channels)
        time = self._embed(t, labels)

        def block(h: Images, level: int, name: str, attended: tuple[int, ...] | None) -> Features:
            h = residual(self.channels * self.channel_mults[level], name=name)(h, time, keys)
            here = h.shape[1] in attention_heights if attended is None else level in attended
            return attend(name=f"{name}_attention")(h) if here else h

        levels = range(len(self.channel_mults))
        waves = [wave(2**n * math.pi * x_t) for n in self.fourier for wave in (jnp.sin, jnp.cos)]
        skips = [conv(self.channels, name="conv_in")(jnp.concatenate([x_t, *waves], axis=-1))]
        for level in levels:
            if level > 0:
                skips.append(
                    conv(skips[-1].shape[-1], strides=2, padding=self.down_padding, name=f"down_{level}")(skips[-1])
                )
            for i in range(self.num_res_blocks):
                skips.append(block(skips[-1], level, f"down_{level}_{i}", self.attention_down))
        h = residual(skips[-1].shape[-1], name="middle_0")(skips[-1], time, keys)
        h = attend(name="middle_attention")(h) if self.middle_attention else h
        h = residual(h.shape[-1], name="middle_1")(h, time, keys)
        for level in reversed(levels):
            for i in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_{i}", self.attention_up)
            if level > 0:
                h = conv(h.shape[-1], name=f"up_{level}")(_double(h))
        h = conv(self.image_channels, kernel_init=_ZERO, name="conv_out")(nn.silu(norm(name="norm_out")(h)))
        return h.astype(jnp.promote_types(x_t.dtype, jnp.float32))

    def _attention_heights(self, height: int) -> tuple[int, ...]:
        """The heights with attention, for an image of this height."""
        if self.attention_resolutions is None:
            return (16,)
        heights = [height // 2**level for level in range(len(self.channel_mults))]
        if missing := sorted(set(self.attention_resolutions) - set(heights)):
            raise ValueError(
                f"attention_resolutions: expected heights that an image of height {height} comes to, which are "
                f"{', '.join(map(str, heights))}; got {', '.join(map(str, missing))}"
            )
        return self.attention_resolutions

    def _embed(self, t: embedding.Times, labels: mlp.Labels | None) -> Float[Array, "b time"]:
        """Embed time and label: sinusoids, Dense, SiLU, Dense, plus a vector of the label; then SiLU."""
        dense = functools.partial(nn.Dense, 4 * self.channels, dtype=self.dtype, kernel_init=_UNIFORM)
        time = dense(name="time_0")(self.embed(t, self.channels))
        time = dense(name="time_1")(nn.silu(time))
        if self.num_classes:
            labels = jnp.full(t.shape, self.num_classes) if labels is None else labels
            labels = checks.labels("labels", labels, self.num_classes + 1, t.shape[0])
            time = time + nn.Embed(self.num_classes + 1, time.shape[-1], dtype=self.dtype, name="labels")(labels)
        return nn.silu(time)


class _Residual(nn.Module):
    """Residual block, x + conv(dropout(silu(norm(conv(silu(norm(x))) + time)))); the last conv starts at zero."""

    features: int
    norm: Callable[..., nn.Module]
    conv: Callable[..., nn.Module]
    dropout: float | int
    dtype: Any
    modulation: Literal["add", "scale"]

    @nn.compact
    def __call__(self, x: Images, time: Float[Array, "b time"], keys: Key | None) -> Float[Array, "b h w features"]:
        dense = functools.partial(nn.Dense, features=self.features, dtype=self.dtype, kernel_init=_UNIFORM)
        h = self.conv(self.features, name="conv_1")(nn.silu(self.norm(name="norm_1")(x)))
        if self.modulation == "add":
            h = self.norm(name="norm_2")(h + dense(name="time")(time)[:, None, None])
        else:
            scale, shift = jnp.split(dense(features=2 * self.features, name="time")(time)[:, None, None], 2, axis=-1)
            h = self.norm(name="norm_2")(h) * (1 + scale) + shift
        h = dropout.Dropout(self.dropout, name="dropout")(nn.silu(h), keys)
        h = self.conv(self.features, kernel_init=_ZERO, name="conv_2")(h)
        return h + (x if x.shape[-1] == self.features else dense(name="shortcut")(x))


class _Attention(nn.Module):
    """Self-attention of all pixels, x + out(softmax(q kᵀ / √c) v), c channels a head; the output starts at zero."""

    norm: Callable[..., nn.Module]
    dtype: Any
    head_channels: int | None

    @nn.compact
    def __call__(self, x: Images) -> Images:
        b, h, w, c = x.shape
        dense = functools.partial(nn.Dense, c, dtype=self.dtype, kernel_init=_UNIFORM)
        pixels = self.norm(name="norm")(x).reshape(b, h * w, c)
        size = self.head_channels or c
        if c % size:
            raise ValueError(f"head_channels: expected a divisor of the {c} channels, got {size}")
        query, key, value = (
            dense(name=name)(pixels).reshape(b, h * w, c // size, size) for name in ("query", "key", "value")
        )
        score_dtype = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.einsum("bqnc,bknc->bnqk", query, key, preferred_element_type=score_dtype) * size**-0.5
        mixed = jnp.einsum("bnqk,bknc->bqnc", jax.nn.softmax(scores).astype(value.dtype), value).reshape(b, h * w, c)
        return x + dense(kernel_init=_ZERO, name="out")(mixed).reshape(x.shape)


def _double(x: Images) -> Float[Array, "b 2*h 2*w c"]:
    """Interpolate to twice the size by nearest neighbours: every pixel four times."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
