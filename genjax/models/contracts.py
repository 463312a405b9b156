"""Contracts between a model and its networks: classes, keys, and shapes found by a trace that computes nothing.

``genjax.nn.protocols`` says what a network offers. Every ``build`` asks for it here, so that all models ask alike.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from genjax import checks
from genjax.nn import protocols
from genjax.nn.protocols import num_classes, takes_keys
from genjax.types import Batch, Images, Key, Params

__all__ = [
    "Labels",
    "MakeOptimizer",
    "Optimizer",
    "Sample",
    "check_denoiser",
    "labels",
    "num_classes",
    "shape_of",
    "takes_keys",
    "trial_labels",
    "unchanged",
]

Labels = Int[Array, " b"]
"""Classes, one per example."""

Optimizer: TypeAlias = optax.GradientTransformation
"""An optimizer of optax; ``model.optimizer(inner)`` makes the optimizer of a model's parameters."""

MakeOptimizer = Callable[[Optimizer], Optimizer]
"""``(inner) -> optimizer`` of a model: ``inner``, with the running statistics of the model apart."""


@runtime_checkable
class Sample(Protocol):
    """``(key, params, num, labels=None) -> images``."""

    def __call__(self, key: Key, params: Params, num: int, labels: Any = None) -> Images:
        """Draw images; image i depends on (key, i) only."""
        ...


def shape_of(trial: Callable[[Key], Any]) -> Any:
    """Trace ``trial(key)`` for the shapes and dtypes of its result, without computing it.

    >>> shape_of(lambda key: jax.random.normal(key, (2, 3))).shape
    (2, 3)
    """
    return jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)))


def trial_labels(classes: int) -> Labels | None:
    """Make labels of one example, for ``init`` and traces; None for a model without labels."""
    return jnp.zeros(1, jnp.int32) if classes else None


def labels(batch: Batch, classes: int) -> Labels | None:
    """Check and return the labels of a batch; None for a model without labels.

    Args:
      batch: named arrays, with ``image``.
      classes: number of classes; 0 for a model without labels.

    Raises:
      ValueError: the batch has no labels, not one for each image, or a label is outside [0, classes).
    """
    if not classes:
        return None
    if "label" not in batch:
        raise ValueError("batch: a conditional model needs label, a class for each image; this data has none")
    return checks.labels("label", batch["label"], classes, np.shape(batch["image"])[0])


def unchanged(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return the optimizer as it is: the ``optimizer`` of a model without running statistics."""
    return inner


def check_denoiser(
    network: nn.Module, predict: Callable[[Params], Images], shape: tuple[int, int, int], cond: jax.Array
) -> None:
    """Refuse a network of a diffusion model with foreign variables, or with predictions of another shape.

    Args:
      network: network ``(x_t, cond) -> output``.
      predict: a prediction of one image by the network's parameters, ``(params) -> [1 h w c]``.
      shape: (h, w, c) of an image.
      cond: an example of the conditioning values [1].

    Raises:
      ValueError: the network has variables other than parameters or draws random numbers, see
        ``nn.protocols.output_shape``; or the shape that was expected and the shape that came.
    """
    inputs = jnp.zeros((1, *shape)), cond
    try:
        variables = shape_of(lambda key: network.init(key, *inputs))
        if set(variables) - {"params"}:
            protocols.output_shape("network", network, *inputs)  # raises
        output = jax.eval_shape(predict, variables.get("params", {})).shape
    except flax.errors.InvalidRngError:
        protocols.output_shape("network", network, *inputs)  # raises
        raise
    except TypeError as error:
        raise ValueError(f"network: expected a prediction of shape {shape}, like the images: {error}") from error
    if output != (1, *shape):
        raise ValueError(f"network: expected a prediction of shape {shape}, like the images; got {output[1:]}")
