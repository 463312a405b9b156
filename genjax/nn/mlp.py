"""Fully connected networks between images and vectors."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from genjax import checks, lapack
from genjax.types import Pixels

Labels = Shaped[Array, " b"]
"""A class for each example, in [0, num_classes)."""


class Encoder(nn.Module):
    """``network(images, labels=None) -> [b, features]``: dense layers with ReLU between them.

    Fields:
      features: of the output.
      hidden: widths of the hidden layers.
      num_classes: of the labels that the output depends on; 0 for none.
      activation: of the output; None for a linear one.
    """

    features: int
    hidden: tuple[int, ...] = (256,)
    num_classes: int = 0
    activation: Callable[[Array], Array] | None = None

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("features", self.features, 0)
        checks.counts("hidden", self.hidden)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: Pixels, labels: Labels | None = None) -> Float[Array, "b features"]:
        """Encode; ``labels`` are wanted iff there are classes."""
        checks.floating("images", images, checks.SCALE)
        x = with_labels(images.reshape(images.shape[0], -1), labels, self.num_classes)
        return dense(x, self.hidden, self.features, self.activation)


class Decoder(nn.Module):
    """``network(z, labels=None) -> [b, *shape]``: the mirror image of ``Encoder``.

    Fields:
      shape: (h, w, m) of the output.
      hidden: widths of the hidden layers.
      num_classes: of the labels that the output depends on; 0 for none.
    """

    shape: tuple[int, int, int]
    hidden: tuple[int, ...] = (256,)
    num_classes: int = 0

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.counts("shape", self.shape, length=3)
        checks.counts("hidden", self.hidden)
        checks.count("num_classes", self.num_classes, 0)
        super().__post_init__()

    @nn.compact
    def __call__(self, z: Float[Array, "b d"], labels: Labels | None = None) -> Float[Array, "b h w m"]:
        """Decode; ``labels`` are wanted iff there are classes."""
        x = dense(with_labels(z, labels, self.num_classes), self.hidden, math.prod(self.shape), None)
        return x.reshape(x.shape[0], *self.shape)


def with_labels(x: Float[Array, "b f"], labels: Labels | None, num_classes: int) -> Float[Array, "b g"]:
    """The vectors with their classes, one-hot, behind them; see ``one_hot``."""
    found = one_hot(labels, num_classes)
    return x if found is None else jnp.concatenate([x, found.astype(x.dtype)], -1)


def one_hot(labels: Labels | None, num_classes: int) -> Float[Array, "b classes"] | None:
    """The classes of examples, where a network wants them.

    Raises:
      ValueError: labels are wanted and missing, or given and not wanted; or one is not among the classes.
    """
    found = checks.labels("labels", labels, num_classes, 0 if labels is None else labels.size)
    return None if found is None else jax.nn.one_hot(found, num_classes)


def dense(
    x: Float[Array, "b f"], hidden: tuple[int, ...], features: int, activation: Callable[[Array], Array] | None
) -> Float[Array, "b g"]:
    """Dense layers of the widths ``hidden`` with ReLU, and one more; for use inside a compact method."""
    checks.count("features", features)
    for width in hidden:
        x = nn.relu(nn.Dense(width)(x))
    x = nn.Dense(features)(x)
    return activation(x) if activation else x


class Tanh(nn.Module):
    """``network(x [b i]) -> [b, features]``: dense layers with tanh between them, orthogonal at the start.

    Hidden layers are scaled by √2 and the last by ``scale``: small for a policy that should begin by choosing evenly
    (Andrychowicz et al. 2021, §3.2).

    Fields:
      features: of the output.
      hidden: widths of the hidden layers.
      scale: of the last layer's initial weights.
    """

    features: int
    hidden: tuple[int, ...] = (64, 64)
    scale: float | int = 1.0

    def __post_init__(self):
        """Refuse numbers that cannot be."""
        checks.count("features", self.features)
        checks.counts("hidden", self.hidden)
        checks.positive("scale", self.scale)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        """Apply to vectors."""
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width, kernel_init=lapack.orthogonal(2**0.5))(x))
        return nn.Dense(self.features, kernel_init=lapack.orthogonal(self.scale))(x)
