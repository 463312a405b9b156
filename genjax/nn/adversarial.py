"""The two players of a GAN: fully connected for images of any size, convolutional for images that can be halved.

The convolutional pair is DCGAN's (Radford et al. 2016), with group normalisation in place of batch normalisation in the
generator and no normalisation in the discriminator. So no image depends on another image of its batch, and a gradient
penalty is that of each image.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.nn import convnet, convolution, mlp, normalization, spectral
from genjax.types import Images, Pixels

SLOPE = 0.2  # leaky ReLU below zero (Radford et al. 2016)


class Generator(nn.Module):
    """``network(z, labels=None) -> images`` in [-1, 1].

    Attributes:
      shape: (h, w, c) of an image.
      hidden: widths of dense layers; without ``channels`` they lead to the image.
      channels: channels of transposed convolutions of stride 2, finest first; empty for a fully connected network.
      num_classes: number of classes of the labels; 0 for none.
      bounded: True if the image is tanh of the output; otherwise pixels are any real numbers.
    """

    shape: tuple[int, int, int]
    hidden: tuple[int, ...] = (256, 256)
    channels: tuple[int, ...] = ()
    num_classes: int = 0
    bounded: bool = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.counts("shape", self.shape, length=3)
        checks.counts("hidden", self.hidden)
        checks.counts("channels", self.channels)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Float[Array, "b d"], labels: mlp.Labels | None = None) -> Images:
        """Generate images.

        Raises:
          ValueError: the image does not halve as often as there are channels.
        """
        x = mlp.with_labels(z, labels, self.num_classes)
        if not self.channels:
            x = mlp.dense(x, self.hidden, math.prod(self.shape), None).reshape(-1, *self.shape)
            return jnp.tanh(x) if self.bounded else x
        h, w = convnet.halved(self.shape[:2], len(self.channels))
        x = mlp.dense(x, self.hidden, h * w * self.channels[-1], None).reshape(-1, h, w, self.channels[-1])
        for i, features in enumerate((*self.channels[-2::-1], self.shape[-1])):
            x = nn.relu(normalization.GroupNorm(min(8, x.shape[-1]), name=f"norm_{i}")(x))
            x = convolution.ConvTranspose(features, (4, 4), 2, padding=2, name=f"conv_{i}")(x)
        return jnp.tanh(x) if self.bounded else x


class Discriminator(nn.Module):
    """``network(images, labels=None) -> [b 1]``, a logit; labels by projection (Miyato & Koyama 2018, eq. 3).

    Attributes:
      hidden: widths of dense layers before the logit.
      channels: channels of convolutions of stride 2, finest first; empty for a fully connected network.
      num_classes: number of classes of the labels; 0 for none.
      spectral: True to divide every kernel by its largest singular value (``nn.spectral``).
    """

    hidden: tuple[int, ...] = (256, 256)
    channels: tuple[int, ...] = ()
    num_classes: int = 0
    spectral: bool = False

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.counts("hidden", self.hidden)
        checks.counts("channels", self.channels)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Pixels, labels: mlp.Labels | None = None) -> Float[Array, "b 1"]:
        """Return a logit for each image.

        Raises:
          ValueError: the image does not halve as often as there are channels.
        """
        checks.floating("images", images, checks.SCALE)
        conv, dense = (spectral.Conv, spectral.Dense) if self.spectral else (convolution.Conv, nn.Dense)
        convnet.halved(images.shape[1:3], len(self.channels))
        x = images
        for i, features in enumerate(self.channels):
            x = nn.leaky_relu(conv(features, (4, 4), strides=2, padding=1, name=f"conv_{i}")(x), SLOPE)
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.hidden):
            x = nn.leaky_relu(dense(width, name=f"dense_{i}")(x), SLOPE)
        logit = dense(1, name="logit")(x)
        classes = mlp.one_hot(labels, self.num_classes)
        if classes is None:
            return logit
        return logit + jnp.sum(dense(x.shape[-1], name="classes")(classes) * x, -1, keepdims=True)
