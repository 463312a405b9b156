"""Convolutional encoders and decoders: between images and vectors, and between images and maps of vectors."""

from collections.abc import Callable

import flax.linen as nn
from jaxtyping import Array, Float

from genjax import checks
from genjax.nn import convolution, mlp
from genjax.types import Pixels


class Encoder(nn.Module):
    """``network(images, labels=None) -> [b, features]``: strided convolutions, then one dense layer.

    Each convolution halves the image. Labels enter before the dense layers.

    Attributes:
      features: number of outputs.
      channels: output channels of the convolutions, finest first.
      hidden: widths of the dense layers before the last.
      num_classes: number of classes of the labels; 0 for a network without labels.
      activation: function of the output; None for a linear output.
    """

    features: int
    channels: tuple[int, ...] = (32, 64)
    hidden: tuple[int, ...] = (256,)
    num_classes: int = 0
    activation: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("features", self.features, 0)
        checks.counts("channels", self.channels)
        checks.counts("hidden", self.hidden)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Pixels, labels: mlp.Labels | None = None) -> Float[Array, "b features"]:
        """Encode images.

        Raises:
          ValueError: height and width are not divisible by 2^len(channels).
        """
        x = Down(self.channels, name="down")(images)
        x = mlp.with_labels(x.reshape(x.shape[0], -1), labels, self.num_classes)
        return mlp.dense(x, self.hidden, self.features, self.activation)


class Decoder(nn.Module):
    """``network(z, labels=None) -> [b, *shape]``: the mirror image of ``Encoder``.

    Attributes:
      shape: (h, w, m) of the output.
      channels: channels of the maps, finest first, as in the encoder.
      hidden: widths of the dense layers before the first map.
      num_classes: number of classes of the labels; 0 for a network without labels.
    """

    shape: tuple[int, int, int]
    channels: tuple[int, ...] = (32, 64)
    hidden: tuple[int, ...] = (256,)
    num_classes: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.counts("shape", self.shape, length=3)
        checks.counts("channels", self.channels, length=1)
        checks.counts("hidden", self.hidden)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Float[Array, "b d"], labels: mlp.Labels | None = None) -> Float[Array, "b h w m"]:
        """Decode vectors.

        Raises:
          ValueError: height and width are not divisible by 2^len(channels).
        """
        h, w = halved(self.shape[:2], len(self.channels))
        x = mlp.with_labels(z, labels, self.num_classes)
        x = mlp.dense(x, self.hidden, h * w * self.channels[-1], nn.relu)
        x = x.reshape(x.shape[0], h, w, self.channels[-1])
        return Up(self.channels, self.shape[-1], name="up")(x)


class MapEncoder(nn.Module):
    """``network(images) -> z [b h2 w2 features]``: strided convolutions and residual blocks (VQ-VAE, §4.1).

    Attributes:
      features: length of each vector of the map.
      channels: output channels of the strided convolutions, finest first.
      num_blocks: number of residual blocks at the resolution of the map.
    """

    features: int
    channels: tuple[int, ...] = (128, 256)
    num_blocks: int = 2

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("features", self.features)
        checks.counts("channels", self.channels, length=1)
        checks.count("num_blocks", self.num_blocks, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Pixels) -> Float[Array, "b h2 w2 features"]:
        """Encode images.

        Raises:
          ValueError: height and width are not divisible by 2^len(channels).
        """
        x = Down(self.channels, name="down")(images)
        x = Residual(self.num_blocks, max(self.channels[-1] // 4, 1), name="residual")(x)
        return convolution.Conv(self.features, (1, 1), name="out")(x)


class MapDecoder(nn.Module):
    """``network(z) -> [b h w outputs]``: the mirror image of ``MapEncoder``.

    Attributes:
      outputs: number of output channels.
      channels: channels of the maps, finest first, as in the encoder.
      num_blocks: number of residual blocks at the resolution of the map.
    """

    outputs: int
    channels: tuple[int, ...] = (128, 256)
    num_blocks: int = 2

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("outputs", self.outputs)
        checks.counts("channels", self.channels, length=1)
        checks.count("num_blocks", self.num_blocks, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Float[Array, "b h2 w2 d"]) -> Float[Array, "b h w outputs"]:
        """Decode maps."""
        x = convolution.Conv(self.channels[-1], (3, 3), padding=1, name="in")(z)
        x = Residual(self.num_blocks, max(self.channels[-1] // 4, 1), name="residual")(x)
        return Up(self.channels, self.outputs, name="up")(x)


class Down(nn.Module):
    """``network(images) -> maps``: one convolution of stride 2 and one ReLU for each entry of ``channels``."""

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.counts("channels", self.channels)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Pixels) -> Float[Array, "b h2 w2 f"]:
        """Halve the images len(channels) times.

        Raises:
          ValueError: height and width are not divisible by 2^len(channels).
        """
        checks.floating("images", x, checks.SCALE)
        halved(x.shape[1:3], len(self.channels))
        for i, features in enumerate(self.channels):
            x = nn.relu(convolution.Conv(features, (4, 4), 2, padding=1, name=f"conv_{i}")(x))
        return x


class Up(nn.Module):
    """``network(maps) -> [b h w m]``: the mirror image of ``Down``; the last layer has no ReLU."""

    channels: tuple[int, ...]
    outputs: int

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.counts("channels", self.channels, length=1)
        checks.count("outputs", self.outputs)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b h2 w2 f"]) -> Float[Array, "b h w m"]:
        """Double the maps len(channels) times."""
        widths = (*self.channels[-2::-1], self.outputs)
        for i, features in enumerate(widths):
            x = convolution.ConvTranspose(features, (4, 4), 2, padding=2, name=f"conv_{i}")(x)
            x = nn.relu(x) if i < len(widths) - 1 else x
        return x


class Residual(nn.Module):
    """x + 1×1(ReLU(3×3(ReLU(x)))), ``num_blocks`` times, as in the VQ-VAE (van den Oord et al. 2017, §4.1)."""

    num_blocks: int
    width: int

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("num_blocks", self.num_blocks, 0)
        checks.count("width", self.width)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b h w f"]) -> Float[Array, "b h w f"]:
        """Apply the blocks."""
        for i in range(self.num_blocks):
            y = convolution.Conv(self.width, (3, 3), padding=1, name=f"wide_{i}")(nn.relu(x))
            x = x + convolution.Conv(x.shape[-1], (1, 1), name=f"narrow_{i}")(nn.relu(y))
        return nn.relu(x)


def halved(size: tuple[int, ...], times: int) -> tuple[int, int]:
    """Height and width after this number of halvings.

    Raises:
      ValueError: height or width is not divisible by 2^times.
    """
    unit = 2**times
    if any(n % unit for n in size):
        near = tuple(max(1, round(n / unit)) * unit for n in size)
        raise ValueError(
            f"channels: {times} of them halve the image {times} times, and {size} is not divisible by {unit}; "
            f"use fewer channels, or images of {near}"
        )
    return size[0] // unit, size[1] // unit
