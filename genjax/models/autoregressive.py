"""Autoregressive models of images: p(x) = Π_i p(x_i | x_1, ..., x_{i-1}), pixels in raster order.

For any causal network (``nn.pixelcnn``, ``nn.pixelrnn``) and any distribution of pixels. Training sees all at once:
    L = -log p(x) = -Σ_i log p(x_i | x_<i), nats per image, exact.
Sampling goes through the image once; each layer keeps a window of its earlier outputs (van den Oord et al. 2016a, §3).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from genjax import checks, random
from genjax.models import contracts
from genjax.nn import protocols
from genjax.theory import pixels
from genjax.theory.pixels import Likelihood
from genjax.types import Batch, Images, Key, Labels, Loss, Metrics, Number, Params, Scalar

Mask = Shaped[Array | np.ndarray, "_ _"]
"""Truth values for the pixels of an image."""


class Autoregressive(NamedTuple):
    """An autoregressive model as pure functions.

    Attributes:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``, and ``label`` if the network is
        conditional; nothing is random. Metrics: ``bits_per_dim`` of discrete pixels.
      log_prob: ``(params, images, labels=None) -> [b]``, nats, exact.
      sample: ``(key, params, num, labels=None) -> images``; image i depends on (key, i) only.
      complete: ``(key, params, images, known, labels=None) -> images``: draws the pixels that are not known [h w].
      optimizer: ``(inner) -> inner``: any optimizer trains this model.
    """

    init: Callable[[Key], Params]
    loss: Loss
    log_prob: Callable[..., Float[Array, " b"]]
    sample: contracts.Sample
    complete: Callable[..., Images]
    optimizer: contracts.MakeOptimizer


def generate(
    network: Any,
    likelihood: Likelihood,
    keys: Key,
    params: Params,
    given: Images,
    known: Mask,
    labels: Labels | None = None,
    temperature: Number = 1.0,
) -> Images:
    """Draw images pixel by pixel, in one scan over rows of scans over columns; each layer computes each number once.

    Colour j of pixel i (in raster order, of c colours) has the key ``fold_in(key of the image, i c + j)``.

    Args:
      network: causal network, a ``nn.protocols.CausalNetwork``.
      likelihood: p(x_i | x_<i), a likelihood of ``theory.pixels``.
      keys: keys [b] of the images.
      params: parameters of the network.
      given: images [b h w c] with the known pixels.
      known: mask [h w] of pixels that are taken from ``given``; a beginning of the raster order (``check_prefix``).
      labels: classes [b] for a conditional network.
      temperature: temperature of the distribution of a pixel.
    """
    h, w, c = given.shape[1:]
    drawing = _Drawing(
        network=network, likelihood=likelihood, params=params, labels=labels, keys=keys, temperature=temperature
    )
    start = (drawing.apply(given.shape[0], w, method="cache"), jnp.zeros_like(drawing.embed(given[:, 0])))
    rows = (jnp.arange(h), given.swapaxes(0, 1), jnp.asarray(known))
    return jax.lax.scan(functools.partial(_row, drawing), start, rows)[1].transpose(2, 0, 1, 3)


class _Drawing(NamedTuple):
    """Everything that stays the same while images are drawn."""

    network: Any
    likelihood: Likelihood
    params: Params
    labels: Labels | None
    keys: Key
    temperature: Number

    def apply(self, *args: Any, method: str) -> Any:
        return self.network.apply({"params": self.params}, *args, method=method)

    def embed(self, pixels: Float[Array, "... c"]) -> Float[Array, "... i"]:
        return self.apply(pixels, method="embed")


def _row(drawing: _Drawing, state: tuple[Any, Any], row: Any) -> tuple[tuple[Any, Any], Float[Array, "w b c"]]:
    """A step of the scan over rows, from the caches and the embedded row above."""
    cache, above = state
    i, values, is_known = row
    w, c = values.shape[1:]
    numbers = (i * w * c + jnp.arange(w * c)).reshape(w, c)
    fold_in = lambda number: jax.vmap(jax.random.fold_in, (0, None))(drawing.keys, number)
    cache = drawing.apply(cache, above, drawing.labels, method="start_row")
    columns = (jax.vmap(jax.vmap(fold_in))(numbers), jnp.arange(w), values.swapaxes(0, 1), is_known)
    start = (cache, jnp.zeros_like(above[:, 0]))
    (cache, _), line = jax.lax.scan(functools.partial(_pixel, drawing), start, columns)
    return (cache, drawing.embed(line.swapaxes(0, 1))), line


def _pixel(drawing: _Drawing, state: tuple[Any, Any], pixel: Any) -> tuple[tuple[Any, Any], Float[Array, "b c"]]:
    """A step of the scan over columns, from the caches and the embedded pixel to the left."""
    cache, left = state
    keys, column, value, is_known = pixel
    here = jnp.zeros(value.shape)
    for colour in range(drawing.network.colours):
        inputs = (cache, left, drawing.embed(here), column, drawing.labels)
        cache, output = drawing.apply(*inputs, method="pixel")
        tempered = drawing.likelihood.temper(output[:, None, None], drawing.temperature)
        drawn = drawing.likelihood.sample(keys[colour], tempered)[:, 0, 0]
        drawn = jnp.where(is_known, value, drawn)
        here = here.at[:, colour].set(drawn[:, colour]) if drawing.network.colours > 1 else drawn
    return (cache, drawing.embed(here)), here


def build(
    network: nn.Module, likelihood: Likelihood, shape: tuple[int, int, int], *, temperature: Number = 1.0
) -> Autoregressive:
    """An autoregressive model of a causal network and a distribution of pixels.

    Args:
      network: ``nn.protocols.CausalNetwork`` with ``likelihood.num_outputs(c)`` outputs for each pixel. With
        ``colours`` = c it sees the colours of a pixel one after the other; with ``colours`` = 1 its outputs are for a
        whole pixel.
      likelihood: p(x_i | x_<i), a likelihood of ``theory.pixels``.
      shape: (h, w, c) of an image.
      temperature: temperature of samples; below 1 they are more typical and less varied.

    Raises:
      ValueError: the network's outputs do not fit, or the temperature is not positive.
    """
    _check(network, likelihood, shape, temperature)
    num_classes, empty = contracts.num_classes(network), jnp.zeros(shape[:2], bool)
    draw = functools.partial(generate, network, likelihood, temperature=temperature)

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)), contracts.trial_labels(num_classes))["params"]

    def log_prob(params: Params, images: Any, labels: Labels | None = None) -> Float[Array, " b"]:
        images = _check_images(images, shape, likelihood)
        labels = checks.labels("labels", labels, num_classes, images.shape[0])
        return likelihood.log_prob(network.apply({"params": params}, images, labels), images)

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        nats = -log_prob(params, batch["image"], contracts.labels(batch, num_classes)).mean()
        return nats, {"bits_per_dim": pixels.bits_per_dim(nats, shape)} if likelihood.num_levels else {}

    def sample(key: Key, params: Params, num: int, labels: Labels | None = None) -> Images:
        labels = checks.labels("labels", labels, num_classes, num)
        return draw(random.example_keys(key, num), params, jnp.zeros((num, *shape)), empty, labels)

    def complete(key: Key, params: Params, images: Any, known: Mask, labels: Labels | None = None) -> Images:
        images = _check_images(images, shape, likelihood)
        labels = checks.labels("labels", labels, num_classes, images.shape[0])
        _check_mask(known, shape)
        return draw(random.example_keys(key, images.shape[0]), params, images, known, labels)

    return Autoregressive(
        init=init, loss=loss, log_prob=log_prob, sample=sample, complete=complete, optimizer=contracts.unchanged
    )


def _check(network: Any, likelihood: Likelihood, shape: tuple[int, int, int], temperature: Number) -> None:
    """Refuse numbers out of range, and a network that is not causal or does not fit the likelihood and the images."""
    checks.counts("shape", shape, length=3)
    checks.positive("temperature", temperature)
    h, w, c = shape
    protocols.check_causal("network", network)
    labels = contracts.trial_labels(contracts.num_classes(network))
    output = protocols.output_shape("network", network, jnp.zeros((1, *shape)), labels)
    if output.shape[1:] != (h, w, likelihood.num_outputs(c)):
        raise ValueError(f"network: expected {likelihood.num_outputs(c)} outputs a pixel, got {output.shape[-1]}")
    if network.colours not in (1, c) or (network.colours > 1 and likelihood.joint):
        expected = "1, as the likelihood gives a whole pixel" if likelihood.joint else f"1 or {c}"
        raise ValueError(f"network: expected colours {expected}; got {network.colours}")


def _check_images(images: Any, shape: tuple[int, int, int], likelihood: Likelihood) -> Images:
    """The images as an array, refused unless they have the model's shape and levels."""
    if np.shape(images)[1:] != shape:
        raise ValueError(f"images: expected the shape {shape} the model was built for, got {np.shape(images)[1:]}")
    images = checks.images("images", images, shape)
    pixels.check_levels(images, likelihood.num_levels)
    return images


def _check_mask(known: Mask, shape: tuple[int, int, int]) -> None:
    """Refuse a mask that is not of truth values, or not of the shape of the images, or no prefix."""
    if known.dtype != bool:
        raise ValueError(f"known: expected truth values, got {known.dtype}")
    if known.shape != shape[:2]:
        raise ValueError(f"known: expected the shape {shape[:2]} of the images, got {known.shape}")
    check_prefix(known)


def check_prefix(known: Mask) -> None:
    """Refuse a mask that is no beginning of the raster order; does nothing inside ``jit``.

    Raises:
      ValueError: naming the first pixel that is known after one that is not.
    """
    if not checks.is_concrete(known):
        return
    flat = np.asarray(known).reshape(-1)
    first = int(np.argmin(flat)) if not flat.all() else flat.size
    if flat[first:].any():
        row, column = divmod(first + int(np.argmax(flat[first:])), known.shape[1])
        raise ValueError(
            f"known: pixel ({row}, {column}) is known after one that is not; pixels are drawn in raster order, "
            "each given those before it, so only a beginning can be known: whole rows, and the left part of the next"
        )
