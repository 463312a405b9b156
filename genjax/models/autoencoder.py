"""The autoencoder (Hinton & Salakhutdinov 2006).

An encoder squeezes an image into a short code, and a decoder makes the image of it again:
    L = mean (x - x̂)² over pixels, x̂ = decode(encode(x)),
in units where black is 0 and white is 1. Images that are unlike the training images have a large error.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.models import contracts
from genjax.nn import protocols
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar


class Autoencoder(NamedTuple):
    """An autoencoder as pure functions.

    Attributes:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``; nothing is random.
      encode: ``(params, images) -> codes [b d]``.
      decode: ``(params, codes) -> images``.
      reconstruct: ``(params, images) -> images``.
      optimizer: ``(inner) -> inner``: any optimizer trains this model.
    """

    init: Callable[[Key], Params]
    loss: Loss
    encode: Callable[[Params, Any], Float[Array, "b d"]]
    decode: Callable[[Params, Any], Images]
    reconstruct: Callable[[Params, Any], Images]
    optimizer: contracts.MakeOptimizer


def reconstruction_error(images: Any, reconstructions: Any) -> Float[Array, " b"]:
    """Mean of (x - x̂)² over the pixels of each image, with black at 0 and white at 1: a score of how strange it is.

    Raises:
      ValueError: the two have different shapes, or are of bytes.
    """
    for name, x in (("images", images), ("reconstructions", reconstructions)):
        checks.floating(name, x, checks.SCALE)
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"reconstructions: expected the shape {images.shape} of the images, got {reconstructions.shape}"
        )
    return jnp.mean(((images - reconstructions) / 2) ** 2, (1, 2, 3))


def build(encoder: nn.Module, decoder: nn.Module, shape: tuple[int, int, int]) -> Autoencoder:
    """An autoencoder of two networks.

    Args:
      encoder: ``network(images) -> codes [b d]``; it is given the images with black at 0 and white at 1.
      decoder: ``network(codes) -> logits [b h w c]``; the image is 2 σ(logits) - 1.
      shape: (h, w, c) of an image.

    Raises:
      ValueError: the networks do not take images of this shape, or do not return them.
    """
    checks.counts("shape", shape, length=3)
    codes = protocols.output_shape("encoder", encoder, jnp.zeros((1, *shape)))
    output = protocols.output_shape("decoder", decoder, codes)
    if output.shape[1:] != shape:
        raise ValueError(f"decoder: expected images of shape {shape} back, got {output.shape[1:]}")
    latent_dim = codes.shape[-1]

    def init(key: Key) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        parts = encoder.init(encoder_key, jnp.zeros((1, *shape))), decoder.init(decoder_key, jnp.zeros((1, latent_dim)))
        return {"encoder": parts[0]["params"], "decoder": parts[1]["params"]}

    def encode(params: Params, images: Any) -> Float[Array, "b d"]:
        images = checks.images("images", images, shape)
        return jnp.asarray(encoder.apply({"params": params["encoder"]}, (images + 1) / 2))

    def decode(params: Params, codes: Any) -> Images:
        checks.vectors("codes", codes, latent_dim)
        return 2 * jax.nn.sigmoid(jnp.asarray(decoder.apply({"params": params["decoder"]}, codes))) - 1

    def reconstruct(params: Params, images: Any) -> Images:
        return decode(params, encode(params, images))

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        reconstructions = reconstruct(params, batch["image"])  # refuses what are no images
        return reconstruction_error(batch["image"], reconstructions).mean(), {}

    return Autoencoder(
        init=init, loss=loss, encode=encode, decode=decode, reconstruct=reconstruct, optimizer=contracts.unchanged
    )
