"""A small classifier of images: what it sees is a measure of images that knows what matters in them.

L = -log softmax(f(x))_y, nats, the cross-entropy of the labels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.nn import convnet
from genjax.theory import information
from genjax.types import Batch, Key, Loss, Params, Pixels


class Network(nn.Module):
    """Strided convolutions, a dense layer of ReLUs, whose numbers are the features, and the logits.

    Fields:
      num_classes: of the labels.
      channels: of the convolutions, finest first.
      features: of the dense layer.
    """

    num_classes: int
    channels: tuple[int, ...] = (16, 32)
    features: int = 64

    def __post_init__(self):
        """Refuse settings out of range."""
        checks.count("num_classes", self.num_classes)
        checks.counts("channels", self.channels)
        checks.count("features", self.features)
        super().__post_init__()

    def setup(self):
        """Make the layers."""
        self.trunk = convnet.Encoder(self.features, self.channels, (), activation=nn.relu)
        self.head = nn.Dense(self.num_classes)

    def __call__(self, images: Pixels) -> Float[Array, "b k"]:
        """Logits."""
        return self.head(self.trunk(images))

    def extract_features(self, images: Pixels) -> Float[Array, "b f"]:
        """Features."""
        return self.trunk(images)


class Classifier(NamedTuple):
    """A classifier as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image`` and ``label``; nothing is random.
        Metrics: ``accuracy``.
      logits: ``(params, images) -> [b k]``.
      features: ``(params, images) -> [b f]``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    logits: Callable[[Params, Any], Float[Array, "b k"]]
    features: Callable[[Params, Any], Float[Array, "b f"]]


def build(network: Network, shape: tuple[int, int, int]) -> Classifier:
    """A classifier of images of a shape (h, w, c).

    Raises:
      ValueError: the images do not halve as often as the network has convolutions.
    """

    def logits(params: Params, images: Any) -> Float[Array, "b k"]:
        images = checks.images("images", images, shape)
        return jnp.asarray(network.apply({"params": params}, images))

    def features(params: Params, images: Any) -> Float[Array, "b f"]:
        images = checks.images("images", images, shape)
        return jnp.asarray(network.apply({"params": params}, images, method="extract_features"))

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)))["params"]

    def loss(key: Key, params: Params, batch: Batch):
        found = logits(params, batch["image"])
        labels = checks.labels("label", batch.get("label"), network.num_classes, found.shape[0])
        truth = jax.nn.one_hot(labels, network.num_classes)
        right = jnp.take_along_axis(truth, jnp.argmax(found, -1)[:, None], 1)
        nats = information.cross_entropy_from_logits(truth, found).mean()
        return nats, {"accuracy": right.mean(dtype=jnp.float32)}

    checks.counts("shape", shape, length=3)
    convnet.halved(shape[:2], len(network.channels))
    return Classifier(init, loss, logits, features)
