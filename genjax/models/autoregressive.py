"""Autoregressive models of images: p(x) = Π_i p(x_i | x_1, ..., x_{i-1}), pixels in raster order.

For any causal network (``nn.pixelcnn``, ``nn.pixelrnn``) and any distribution of pixels. Training sees all at once:
    L = -log p(x) = -Σ_i log p(x_i | x_<i), nats per image, exact.
Sampling goes through the image once, with what each layer has seen kept in windows (van den Oord et al. 2016a, §3).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from genjax import checks, random
from genjax.theory import markov, pixels
from genjax.theory.pixels import Likelihood
from genjax.types import Batch, Images, Key, Loss, Number, Params

Mask = Shaped[Array | np.ndarray, "_ _"]
"""Truth values for the pixels of an image."""
Labels = Any
"""A class for each image: whole numbers [b]."""


class Autoregressive(NamedTuple):
    """An autoregressive model as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``, and ``label`` where the network is
        conditional; nothing is random. Metrics: ``bits_per_dim`` of discrete pixels.
      log_prob: ``(params, images, labels=None) -> [b]``, nats, exact.
      sample: ``(key, params, num, labels=None) -> images``; image i depends on (key, i) only.
      complete: ``(key, params, images, known, labels=None) -> images``: draws what is not known [h w].
    """

    init: Callable[[Key], Params]
    loss: Loss
    log_prob: Callable[..., Float[Array, " b"]]
    sample: Callable[..., Images]
    complete: Callable[..., Images]


def build(
    network: nn.Module, likelihood: Likelihood, shape: tuple[int, int, int], *, temperature: Number = 1.0
) -> Autoregressive:
    """An autoregressive model of a causal network and a distribution of pixels.

    Args:
      network: causal, with ``likelihood.num_outputs(c)`` outputs for each pixel; it sees the colours of a pixel
        one after the other (``colours`` = c), or gives the outputs for a whole pixel (``colours`` = 1).
      likelihood: of ``theory.pixels``.
      shape: (h, w, c) of an image.
      temperature: of samples; below 1 they are more typical and less varied.

    Raises:
      ValueError: the network's outputs do not fit, or the temperature is not positive.
    """
    checks.counts("shape", shape, length=3)
    h, w, c = shape
    num_classes = getattr(network, "num_classes", 0)
    sequential = network.colours > 1

    def apply(params: Params, *args, method=None):
        return network.apply({"params": params}, *args, method=method)

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)), jnp.zeros(1, jnp.int32) if num_classes else None)["params"]

    def check(images: Any) -> Images:
        if np.shape(images)[1:] != shape:
            raise ValueError(f"images: expected the shape {shape} the model was built for, got {np.shape(images)[1:]}")
        images = checks.images("images", images, shape)
        pixels.check_levels(images, likelihood.num_levels)
        return images

    def log_prob(params: Params, images: Any, labels: Labels | None = None) -> Float[Array, " b"]:
        images = check(images)
        labels = checks.labels("labels", labels, num_classes, images.shape[0])
        return likelihood.log_prob(apply(params, images, labels), images)

    def loss(key: Key, params: Params, batch: Batch):
        if num_classes and "label" not in batch:
            raise ValueError("batch: a conditional model needs label, a class for each image; this data has none")
        nats = -log_prob(params, batch["image"], batch["label"] if num_classes else None).mean()
        return nats, {"bits_per_dim": pixels.bits_per_dim(nats, shape)} if likelihood.num_levels else {}

    def generate(keys: Key, params: Params, given: Images, known: Mask, labels: Labels | None) -> Images:
        num = given.shape[0]
        embed = lambda pixels: apply(params, pixels, method="embed")

        def numbered(i) -> Key:
            """Keys of the pixels of a row, [w c num]."""
            places = (i * w * c + jnp.arange(w * c)).reshape(w, c)
            return jax.vmap(jax.vmap(lambda place: jax.vmap(jax.random.fold_in, (0, None))(keys, place)))(places)

        def pixel(_, state, step):
            cache, left = state
            pixel_keys, column, value, is_known = step
            here = jnp.zeros((num, c))
            for colour in range(c if sequential else 1):
                cache, out = apply(params, cache, left, embed(here), column, labels, method="pixel")
                drawn = likelihood.sample(pixel_keys[colour], likelihood.temper(out[:, None, None], temperature))[
                    :, 0, 0
                ]
                drawn = jnp.where(is_known, value, drawn)
                here = here.at[:, colour].set(drawn[:, colour]) if sequential else drawn
            return (cache, embed(here)), here

        def row(_, state, step):
            cache, above = state
            i, values, are_known = step
            cache = apply(params, cache, above, labels, method="start_row")
            columns = (numbered(i), jnp.arange(w), values.swapaxes(0, 1), are_known)
            (cache, _), line = markov.simulate(pixel, keys[0], (cache, jnp.zeros_like(above[:, 0])), columns)
            return (cache, embed(line.swapaxes(0, 1))), line

        start = (apply(params, num, w, method="cache"), jnp.zeros_like(embed(given[:, 0])))
        _, lines = markov.simulate(row, keys[0], start, (jnp.arange(h), given.swapaxes(0, 1), known))
        return lines.transpose(2, 0, 1, 3)

    def sample(key: Key, params: Params, num: int, labels: Labels | None = None) -> Images:
        labels = checks.labels("labels", labels, num_classes, num)
        nothing = jnp.zeros((h, w), bool)
        return generate(random.example_keys(key, num), params, jnp.zeros((num, *shape)), nothing, labels)

    def complete(key: Key, params: Params, images: Any, known: Mask, labels: Labels | None = None) -> Images:
        images = check(images)
        labels = checks.labels("labels", labels, num_classes, images.shape[0])
        if known.dtype != bool:
            raise ValueError(f"known: expected truth values, got {known.dtype}")
        known = jnp.asarray(known)
        if known.shape != (h, w):
            raise ValueError(f"known: expected the shape {(h, w)} of the images, got {known.shape}")
        check_prefix(known)
        return generate(random.example_keys(key, images.shape[0]), params, images, known, labels)

    trial_labels = jnp.zeros(1, jnp.int32) if num_classes else None
    trial = lambda key: apply(init(key), jnp.zeros((1, *shape)), trial_labels)
    outputs = jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)))
    if outputs.shape[1:] != (h, w, likelihood.num_outputs(c)):
        raise ValueError(f"network: expected {likelihood.num_outputs(c)} outputs a pixel, got {outputs.shape[-1]}")
    if network.colours not in (1, c) or (sequential and likelihood.joint):
        wanted = "1, as the likelihood gives a whole pixel" if likelihood.joint else f"1 or {c}"
        raise ValueError(f"network: expected colours {wanted}; got {network.colours}")
    checks.positive("temperature", temperature)
    return Autoregressive(init, loss, log_prob, sample, complete)


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
