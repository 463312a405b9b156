"""The U-Net of the lecture notes: two convolutions a level, one skip, no attention.

After Ronneberger et al. 2015 (arXiv:1505.04597), with the time added in each block; 62,438,883 parameters for RGB.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.nn import convolution, embedding, normalization
from genjax.types import Images, Key, Pixels

Norm = Literal["batch", "group"]
"""Normalisation of a channel: over the batch and the image, or over the image and a group of channels."""


class SimpleUNet(nn.Module):
    """``network(x_t, t) -> noise``: the "simple U-Net" of the lecture notes.

    Attributes:
      channels: number of channels of each level, finest first; every level halves the image.
      image_channels: channels of the image.
      time_features: features of the embedding of time.
      norm: normalisation. ``"batch"`` uses the statistics of the batch, in sampling too, because the lecture notes
        never leave the training mode of BatchNorm: an image depends on the rest of the batch and on the device.
        ``"group"`` is GroupNorm with 8 groups: as many parameters, and every image for itself.
      dtype: dtype of the computation; parameters, normalisation and output stay float32.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    image_channels: int = 3
    time_features: int = 32
    norm: Norm = "batch"
    dtype: Any = None

    def __post_init__(self) -> None:
        """Check the attributes."""
        checks.counts("channels", self.channels, length=1)
        checks.count("image_channels", self.image_channels)
        checks.count("time_features", self.time_features)
        checks.choice("norm", self.norm, ("batch", "group"))
        super().__post_init__()

    @nn.compact
    def __call__(self, x_t: Pixels, t: embedding.Times, keys: Key | None = None) -> Float[Array, "b h w outputs"]:
        """Predict the noise in x_t.

        Args:
          x_t: noisy images; height and width divisible by 2^(levels - 1).
          t: time of each image [b].
          keys: ignored; the network has no dropout.

        Raises:
          ValueError: the image does not halve often enough, or 8 groups do not divide the channels.
        """
        checks.floating("x_t", x_t, checks.SCALE)
        check_size(x_t, len(self.channels) - 1)
        time = embedding.sinusoidal(t, self.time_features)
        time = nn.relu(nn.Dense(self.time_features, dtype=self.dtype, name="time")(time))
        x = convolution.Conv(self.channels[0], (3, 3), padding=1, dtype=self.dtype, name="conv_in")(x_t)
        skips = []
        for i, channels in enumerate(self.channels[1:]):
            x = _Block(channels, self.norm, self.dtype, name=f"down_{i}")(x, time)
            x = convolution.Conv(channels, (4, 4), 2, padding=1, dtype=self.dtype, name=f"down_{i}_transform")(x)
            skips.append(x)
        for i, channels in enumerate(self.channels[-2::-1]):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = _Block(channels, self.norm, self.dtype, name=f"up_{i}")(x, time)
            x = convolution.ConvTranspose(channels, (4, 4), 2, padding=2, dtype=self.dtype, name=f"up_{i}_transform")(x)
        x = convolution.Conv(self.image_channels, (1, 1), dtype=self.dtype, name="conv_out")(x)
        return x.astype(jnp.promote_types(x_t.dtype, jnp.float32))


class _Block(nn.Module):
    """Two convolutions with the time added between, each normalised after its ReLU."""

    features: int
    norm: Norm
    dtype: Any

    @nn.compact
    def __call__(self, x: Images, time: Float[Array, "b time"]) -> Float[Array, "b h w features"]:
        conv = lambda i: convolution.Conv(self.features, (3, 3), padding=1, dtype=self.dtype, name=f"conv_{i}")
        h = self.normalise(1)(nn.relu(conv(1)(x)))
        h = h + nn.relu(nn.Dense(self.features, dtype=self.dtype, name="time")(time))[:, None, None]
        return self.normalise(2)(nn.relu(conv(2)(h)))

    def normalise(self, i: int) -> nn.Module:
        if self.norm == "batch":
            return normalization.BatchNorm(dtype=self.dtype, name=f"norm_{i}")
        if self.features % 8:
            raise ValueError(
                f"channels: expected multiples of 8, the groups of GroupNorm, got {self.features}; round up"
            )
        return normalization.GroupNorm(8, epsilon=1e-5, dtype=self.dtype, name=f"norm_{i}")


def check_size(x: Pixels, halvings: int) -> None:
    """Refuse images whose height or width cannot be halved this often.

    Raises:
      ValueError: the size, and the nearest size that fits.
    """
    unit, size = 2**halvings, x.shape[1:3]
    if any(n % unit for n in size):
        near = tuple(max(1, round(n / unit)) * unit for n in size)
        raise ValueError(f"x_t: expected height and width divisible by {unit}, got {size}; resize or pad to {near}")
