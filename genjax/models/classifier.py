"""A small classifier of images, whose features measure how alike images are.

L = -log softmax(f(x))_y, nats, the cross-entropy of the labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.models import contracts
from genjax.nn import convnet, protocols
from genjax.theory import information
from genjax.types import Batch, Key, Loss, Metrics, Params, Pixels, Scalar


class Network(nn.Module):
    """Strided convolutions, a dense layer of ReLUs, whose outputs are the features, and the logits.

    Attributes:
      num_classes: number of classes.
      channels: channels of the convolutions, finest first.
      features: number of features.
    """

    num_classes: int
    channels: tuple[int, ...] = (16, 32)
    features: int = 64

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        checks.count("num_classes", self.num_classes)
        checks.counts("channels", self.channels)
        checks.count("features", self.features)
        super().__post_init__()

    def setup(self) -> None:
        """Define the layers."""
        self.trunk = convnet.Encoder(self.features, self.channels, (), activation=nn.relu)
        self.head = nn.Dense(self.num_classes)

    def __call__(self, images: Pixels) -> Float[Array, "b k"]:
        """Return the logits."""
        return self.head(self.trunk(images))

    def extract_features(self, images: Pixels) -> Float[Array, "b f"]:
        """Return the features."""
        return self.trunk(images)


class Classifier(NamedTuple):
    """A classifier as pure functions.

    Attributes:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image`` and ``label``; nothing is random.
        Metrics: ``accuracy``.
      logits: ``(params, images) -> [b k]``.
      features: ``(params, images) -> [b f]``.
      optimizer: ``(inner) -> inner``: any optimizer trains this model.
    """

    init: Callable[[Key], Params]
    loss: Loss
    logits: Callable[[Params, Any], Float[Array, "b k"]]
    features: Callable[[Params, Any], Float[Array, "b f"]]
    optimizer: contracts.MakeOptimizer


def build(network: Network, shape: tuple[int, int, int]) -> Classifier:
    """A classifier of images of a shape (h, w, c).

    Args:
      network: ``network(images) -> [b k]``, with the features of ``Network``.
      shape: (h, w, c) of an image.

    Raises:
      ValueError: the images do not halve as often as the network has convolutions.
    """
    checks.counts("shape", shape, length=3)
    convnet.halved(shape[:2], len(network.channels))
    protocols.output_shape("network", network, jnp.zeros((1, *shape)))

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)))["params"]

    def logits(params: Params, images: Any) -> Float[Array, "b k"]:
        images = checks.images("images", images, shape)
        return jnp.asarray(network.apply({"params": params}, images))

    def features(params: Params, images: Any) -> Float[Array, "b f"]:
        images = checks.images("images", images, shape)
        return jnp.asarray(network.apply({"params": params}, images, method="extract_features"))

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        output = logits(params, batch["image"])
        labels = checks.labels("label", batch.get("label"), network.num_classes, output.shape[0])
        target = jax.nn.one_hot(labels, network.num_classes)
        is_right = jnp.take_along_axis(target, jnp.argmax(output, -1)[:, None], 1)
        nats = information.cross_entropy_from_logits(target, output).mean()
        return nats, {"accuracy": is_right.mean(dtype=jnp.float32)}

    return Classifier(init=init, loss=loss, logits=logits, features=features, optimizer=contracts.unchanged)
