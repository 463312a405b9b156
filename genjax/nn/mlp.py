"""Multilayer perceptrons: from images to vectors, from vectors to images, and between vectors."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from genjax import checks, lapack
from genjax.types import Pixels

Labels = Shaped[Array, " b"]
"""Classes of the examples, in [0, num_classes)."""


class Encoder(nn.Module):
    """``network(images, labels=None) -> [b, features]``: dense layers with ReLU between them.

    Attributes:
      features: number of outputs.
      hidden: widths of the hidden layers.
      num_classes: number of classes of the labels; 0 for a network without labels.
      activation: function of the output; None for a linear output.
    """

    features: int
    hidden: tuple[int, ...] = (256,)
    num_classes: int = 0
    activation: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("features", self.features, 0)
        checks.counts("hidden", self.hidden)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Pixels, labels: Labels | None = None) -> Float[Array, "b features"]:
        """Encode; ``labels`` are required if and only if there are classes."""
        checks.floating("images", images, checks.SCALE)
        x = with_labels(images.reshape(images.shape[0], -1), labels, self.num_classes)
        return dense(x, self.hidden, self.features, self.activation)


class Decoder(nn.Module):
    """``network(z, labels=None) -> [b, *shape]``: the mirror image of ``Encoder``.

    Attributes:
      shape: (h, w, m) of the output.
      hidden: widths of the hidden layers.
      num_classes: number of classes of the labels; 0 for a network without labels.
    """

    shape: tuple[int, int, int]
    hidden: tuple[int, ...] = (256,)
    num_classes: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.counts("shape", self.shape, length=3)
        checks.counts("hidden", self.hidden)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Float[Array, "b d"], labels: Labels | None = None) -> Float[Array, "b h w m"]:
        """Decode; ``labels`` are required if and only if there are classes."""
        x = dense(with_labels(z, labels, self.num_classes), self.hidden, math.prod(self.shape), None)
        return x.reshape(x.shape[0], *self.shape)


def with_labels(x: Float[Array, "b f"], labels: Labels | None, num_classes: int) -> Float[Array, "b g"]:
    """Append the one-hot labels to the vectors; see ``one_hot``."""
    classes = one_hot(labels, num_classes)
    return x if classes is None else jnp.concatenate([x, classes.astype(x.dtype)], -1)


def one_hot(labels: Labels | None, num_classes: int) -> Float[Array, "b classes"] | None:
    """Labels as one-hot vectors; None for a network without labels.

    Raises:
      ValueError: labels are missing for a network with classes, given for one without, or out of range.
    """
    checked = checks.labels("labels", labels, num_classes, 0 if labels is None else labels.size)
    return None if checked is None else jax.nn.one_hot(checked, num_classes)


def dense(
    x: Float[Array, "b f"], hidden: tuple[int, ...], features: int, activation: Callable[[Array], Array] | None
) -> Float[Array, "b g"]:
    """Apply dense layers of the widths ``hidden`` with ReLU, and a last one; for use inside a compact method."""
    checks.count("features", features)
    for width in hidden:
        x = nn.relu(nn.Dense(width)(x))
    x = nn.Dense(features)(x)
    return activation(x) if activation else x


class MLP(nn.Module):
    """``network(x [b i]) -> [b, features]``: dense layers with tanh between them and orthogonal initial weights.

    The initial weights are scaled by √2 in the hidden layers and by ``output_scale`` in the last. A small scale makes a
    policy begin with nearly equal probabilities (Andrychowicz et al. 2021, §3.2).

    Attributes:
      features: number of outputs.
      hidden: widths of the hidden layers.
      output_scale: scale of the last layer's initial weights.
    """

    features: int
    hidden: tuple[int, ...] = (64, 64)
    output_scale: float | int = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        checks.count("features", self.features)
        checks.counts("hidden", self.hidden)
        checks.positive("output_scale", self.output_scale)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        """Apply to vectors."""
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width, kernel_init=lapack.orthogonal(2**0.5))(x))
        return nn.Dense(self.features, kernel_init=lapack.orthogonal(self.output_scale))(x)
