"""The vector-quantised variational autoencoder (van den Oord, Vinyals & Kavukcuoglu 2017).

An encoder makes a map of vectors z of an image, each vector is replaced by the nearest entry e of a codebook, and a
decoder gives p(x|e). With sg for "no gradient", and per pixel and per code respectively, minimises (eq. 3)
    L = -log p(x|e) + |sg(z) - e|² + β |z - sg(e)|²,
where the decoder's gradient passes e as if it were z. Images become maps of indices, for a prior to learn.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genjax import checks, statistics
from genjax.models import contracts
from genjax.models.codebooks import Codebook, ema_codebook, gradient_codebook
from genjax.nn import protocols, quantizer
from genjax.theory import information
from genjax.theory.pixels import Likelihood
from genjax.types import Batch, Images, Key, Loss, Metrics, Number, Params, Scalar

__all__ = ["VQVAE", "Codebook", "build", "commitment_loss", "ema_codebook", "gradient_codebook", "perplexity"]

Indices = Int[Array, "b h2 w2"]
"""A map of entries of the codebook for each image."""


class VQVAE(NamedTuple):
    """A VQ-VAE as pure functions.

    Attributes:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``; nothing is random. Metrics:
        ``distortion`` (nats per pixel and channel), ``commitment``, ``perplexity`` of the batch's indices.
      encode: ``(params, images) -> indices [b h2 w2]``.
      decode: ``(params, indices) -> images``, the means of p(x|indices). Draws of a prior over indices become samples.
      reconstruct: ``(params, images) -> images``.
      log_prob: ``(params, images, indices) -> [b]``: log p(x|indices), nats; with a prior's log p(indices) it makes the
        length of a two-part code.
      optimizer: ``(inner) -> GradientTransformation``: ``inner`` for the networks and for a codebook of gradients;
        running means have their own descent.
    """

    init: Callable[[Key], Params]
    loss: Loss
    encode: Callable[[Params, Any], Indices]
    decode: Callable[[Params, Any], Images]
    reconstruct: Callable[[Params, Any], Images]
    log_prob: Callable[[Params, Any, Any], Float[Array, " b"]]
    optimizer: contracts.MakeOptimizer


def commitment_loss(z: Float[Array, "... d"], entries: Float[Array, "... d"]) -> Scalar:
    """The mean of |z - sg(e)|² (eq. 3, third term without β); ``entries`` are constants here."""
    return jnp.mean(jnp.sum((z - entries) ** 2, -1))


def perplexity(indices: Int[Array, "..."], size: int) -> Scalar:
    """exp of the entropy of the entries' use: the number of entries that are in use, if all were used alike.

    >>> round(float(perplexity(jnp.array([0, 1, 0, 1]), 8)), 4)
    2.0
    """
    return jnp.exp(information.entropy(quantizer.usage(indices, size)))


def build(
    encoder: nn.Module,
    decoder: nn.Module,
    codebook: Codebook,
    likelihood: Likelihood,
    shape: tuple[int, int, int],
    *,
    commitment: Number = 0.25,
) -> VQVAE:
    """A VQ-VAE of two networks and a codebook.

    Args:
      encoder: ``network(images) -> z [b h2 w2 d]``.
      decoder: ``network(z) -> [b h w likelihood.num_outputs(c)]``.
      codebook: ``ema_codebook(size)`` or ``gradient_codebook(size)``.
      likelihood: p(x|e), a likelihood of ``theory.pixels``.
      shape: (h, w, c) of an image.
      commitment: β of eq. 3.

    Raises:
      ValueError: the networks' outputs do not fit, or ``commitment`` is negative or not finite.
    """
    checks.counts("shape", shape, length=3)
    checks.nonnegative("commitment", commitment)
    z = protocols.output_shape("encoder", encoder, jnp.zeros((1, *shape)))
    output = protocols.output_shape("decoder", decoder, z)
    outputs = (*shape[:2], likelihood.num_outputs(shape[2]))
    if output.shape[1:] != outputs:
        raise ValueError(f"decoder: expected outputs of shape {outputs}, got {output.shape[1:]}")
    setup = _Setup(
        encoder=encoder, decoder=decoder, codebook=codebook, likelihood=likelihood, shape=shape, commitment=commitment,
        map_size=z.shape[1:3],
    )  # fmt: skip
    return VQVAE(
        init=functools.partial(_init, setup),
        loss=functools.partial(_loss, setup),
        encode=functools.partial(_encode, setup),
        decode=functools.partial(_decode, setup),
        reconstruct=lambda params, images: _decode(setup, params, _encode(setup, params, images)),
        log_prob=functools.partial(_log_prob, setup),
        optimizer=functools.partial(_optimizer, codebook),
    )


class _Setup(NamedTuple):
    """The arguments of ``build``, and the size of a map of indices."""

    encoder: nn.Module
    decoder: nn.Module
    codebook: Codebook
    likelihood: Likelihood
    shape: tuple[int, int, int]
    commitment: Number
    map_size: tuple[int, int]


def _init(setup: _Setup, key: Key) -> Params:
    encoder_key, codebook_key, decoder_key = jax.random.split(key, 3)
    z, variables = setup.encoder.init_with_output(encoder_key, jnp.zeros((1, *setup.shape)))
    params = {
        "encoder": variables["params"],
        "codebook": setup.codebook.init(codebook_key, z.shape[-1]),
        "decoder": setup.decoder.init(decoder_key, z)["params"],
    }
    return statistics.mark(params, _running_means(setup.codebook, params))


def _running_means(codebook: Codebook, params: Params) -> dict[statistics.Path, float]:
    """Paths and rates of the codebook's running means; none for a codebook of gradients."""
    return {} if codebook.decay is None else {("codebook", name): 1 - codebook.decay for name in params["codebook"]}


def _encoder_output(setup: _Setup, params: Params, images: Images) -> Float[Array, "b h2 w2 d"]:
    return jnp.asarray(setup.encoder.apply({"params": params["encoder"]}, images))


def _decoder_output(setup: _Setup, params: Params, entries: Float[Array, "b h2 w2 d"]) -> Float[Array, "b h w m"]:
    return jnp.asarray(setup.decoder.apply({"params": params["decoder"]}, entries))


def _encode(setup: _Setup, params: Params, images: Any) -> Indices:
    images = checks.images("images", images, setup.shape)
    return quantizer.nearest(setup.codebook.vectors(params["codebook"]), _encoder_output(setup, params, images))


def _entries(setup: _Setup, params: Params, indices: Any) -> Float[Array, "b h2 w2 d"]:
    vectors = setup.codebook.vectors(params["codebook"])
    checks.integers("indices", indices, 0, vectors.shape[0])
    if np.shape(indices)[1:] != setup.map_size:
        raise ValueError(f"indices: expected maps of shape {setup.map_size}, got {np.shape(indices)[1:]}")
    checks.min_rows("indices", indices)
    return vectors[jnp.asarray(indices)]


def _decode(setup: _Setup, params: Params, indices: Any) -> Images:
    return setup.likelihood.mean(_decoder_output(setup, params, _entries(setup, params, indices)))


def _log_prob(setup: _Setup, params: Params, images: Any, indices: Any) -> Float[Array, " b"]:
    images = checks.images("images", images, setup.shape)
    return setup.likelihood.log_prob(_decoder_output(setup, params, _entries(setup, params, indices)), images)


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    images = checks.images("images", batch["image"], setup.shape)
    statistics.require(params, _running_means(setup.codebook, params))
    z = _encoder_output(setup, params, images)
    vectors = jax.lax.stop_gradient(setup.codebook.vectors(params["codebook"]))
    indices = quantizer.nearest(vectors, jax.lax.stop_gradient(z))
    output = _decoder_output(setup, params, quantizer.straight_through(z, vectors[indices]))
    distortion = -setup.likelihood.log_prob(output, images).mean() / (setup.shape[0] * setup.shape[1] * setup.shape[2])
    commitment = commitment_loss(z, vectors[indices])
    constant_z = jax.lax.stop_gradient(z).reshape(-1, z.shape[-1])
    codebook_update = setup.codebook.loss(params["codebook"], constant_z, indices.reshape(-1))
    metrics = {
        "distortion": distortion,
        "commitment": commitment,
        "perplexity": perplexity(indices, vectors.shape[0]),
    }
    return distortion + codebook_update + setup.commitment * commitment, metrics


def _optimizer(codebook: Codebook, inner: contracts.Optimizer) -> contracts.Optimizer:
    return inner if codebook.decay is None else statistics.optimizer({"network": inner}, lambda path: "network")
