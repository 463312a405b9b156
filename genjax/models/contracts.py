"""The contract between a model and its networks: classes, keys, and shapes found by a trial that computes nothing.

A network says by ``num_classes`` that it takes labels, and by an argument ``keys`` that it takes a key per example, for
dropout. Every ``build`` asks here, so that all models ask alike.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from genjax import checks
from genjax.types import Batch, Images, Key, Params

Labels = Int[Array, " b"]
"""A class for each example."""

Optimizer: TypeAlias = optax.GradientTransformation
"""An optimizer of optax; ``model.optimizer(inner)`` makes the optimizer of a model's parameters."""


@runtime_checkable
class Sample(Protocol):
    """``(key, params, num, labels=None) -> images``."""

    def __call__(self, key: Key, params: Params, num: int, labels: Any = None) -> Images:
        """Draw images; image i depends on (key, i) only."""
        ...


def shape_of(trial: Callable[[Key], Any]) -> Any:
    """The shapes and dtypes of ``trial(key)``, which is traced and not computed.

    >>> shape_of(lambda key: jax.random.normal(key, (2, 3))).shape
    (2, 3)
    """
    return jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)))


def takes_keys(network: nn.Module) -> bool:
    """True if the network's ``__call__`` takes ``keys``, one per example, for dropout."""
    return "keys" in inspect.signature(type(network).__call__).parameters


def num_classes(network: nn.Module) -> int:
    """The number of classes that a network has labels for; 0 for a network without labels."""
    return getattr(network, "num_classes", 0)


def trial_labels(classes: int) -> Labels | None:
    """The labels of one example, for ``init`` and trials; None for a model without labels."""
    return jnp.zeros(1, jnp.int32) if classes else None


def labels(batch: Batch, classes: int) -> Labels | None:
    """The labels of a batch, checked; None for a model without labels.

    Args:
      batch: named arrays, ``image`` among them.
      classes: number of classes; 0 for a model without labels.

    Raises:
      ValueError: the batch has no labels, not one for each image, or one outside [0, classes).
    """
    if not classes:
        return None
    if "label" not in batch:
        raise ValueError("batch: a conditional model needs label, a class for each image; this data has none")
    return checks.labels("label", batch["label"], classes, np.shape(batch["image"])[0])


def check_output(image: Callable[[Key], Images], shape: tuple[int, int, int]) -> None:
    """Refuse a network whose prediction does not have the shape of an image.

    Args:
      image: ``(key) -> [1 h w c]``, a prediction of a network with fresh parameters.
      shape: (h, w, c) of an image.

    Raises:
      ValueError: the shape that was expected and the shape that came.
    """
    try:
        output = shape_of(image).shape
    except TypeError as error:
        raise ValueError(f"network: expected a prediction of shape {shape}, like the images: {error}") from error
    if output != (1, *shape):
        raise ValueError(f"network: expected a prediction of shape {shape}, like the images; got {output[1:]}")
