"""The variational autoencoder (Kingma & Welling 2014; Rezende et al. 2014).

Assumes z ~ N(0, I) and x|z from a decoder; an encoder gives q(z|x) = N(μ(x), diag σ²(x)). Minimises, in nats per image,
    L = E_q[-log p(x|z)] + β D(q(z|x)‖N(0, I)),
distortion plus rate: the negative evidence lower bound for β = 1 (other β: Higgins et al. 2017).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks, random
from genjax.models import contracts
from genjax.nn import protocols
from genjax.theory import gaussian, quadrature
from genjax.theory.gaussian import DiagGaussian
from genjax.theory.pixels import Likelihood
from genjax.types import Batch, Images, Key, Labels, Loss, Metrics, Number, Params, Scalar

Latents = Float[Array, "b d"]
Nats = Float[Array, " b"]


@runtime_checkable
class Encode(Protocol):
    """``(params, images, labels=None) -> q(z|x)``."""

    def __call__(self, params: Params, images: Any, labels: Labels | None = None) -> DiagGaussian:
        """Return q(z|x) of each image."""
        ...


@runtime_checkable
class Decode(Protocol):
    """``(params, z, labels=None) -> images``."""

    def __call__(self, params: Params, z: Any, labels: Labels | None = None) -> Images:
        """Return the means of p(x|z)."""
        ...


class VAE(NamedTuple):
    """A variational autoencoder as pure functions.

    Attributes:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``. The batch has ``image``; ``label`` if the networks are
        conditional; and may have ``beta`` [b], which takes the place of β. Metrics: ``distortion``, ``rate``, nats.
      encode: ``(params, images, labels=None) -> q(z|x)``.
      decode: ``(params, z, labels=None) -> images``: the means of p(x|z).
      sample: ``(key, params, num, labels=None) -> images``: the means of p(x|z) for z from the prior; image i depends
        on (key, i) only.
      log_weights: ``(key, params, batch, num_samples) -> [num_samples b]``: log p(x, z) - log q(z|x) for z from q;
        ``variational.elbo`` and ``variational.importance_weighted_bound`` make bounds of them.
      log_joint: ``(params, batch, z [b d]) -> [b]``: log p(x|z) + log p(z), nats.
      latent_dim: d.
      optimizer: ``(inner) -> inner``: any optimizer trains this model.
    """

    init: Callable[[Key], Params]
    loss: Loss
    encode: Encode
    decode: Decode
    sample: contracts.Sample
    log_weights: Callable[[Key, Params, Batch, int], Float[Array, "k b"]]
    log_joint: Callable[[Params, Batch, Any], Nats]
    latent_dim: int
    optimizer: contracts.MakeOptimizer


def rate(q: DiagGaussian, free_bits: Number = 0.0) -> Nats:
    """D(q(z|x)‖N(0, I)) of each image, nats; each latent counts at least ``free_bits`` nats (Kingma et al. 2016, C.8).

    The paper takes the maximum after averaging over a minibatch. Here every image has its own maximum, so that the
    result does not depend on how images are grouped in batches and spread over devices.

    Raises:
      ValueError: ``free_bits`` is negative or not finite.
    """
    checks.nonnegative("free_bits", free_bits)
    each = gaussian.kl_standard(DiagGaussian(q.mean[..., None], q.log_std[..., None]))
    return jnp.sum(jnp.maximum(each, free_bits), -1)


def elbo_terms(
    likelihood: Likelihood, output: Float[Array, "b h w m"], images: Images, q: DiagGaussian
) -> tuple[Nats, Nats]:
    """Distortion -log p(x|z) and rate D(q(z|x)‖N(0, I)) of each image, nats; the ELBO is minus their sum.

    Args:
      likelihood: p(x|z), a likelihood of ``theory.pixels``.
      output: the decoder's output for z from q.
      images: x.
      q: q(z|x).
    """
    return -likelihood.log_prob(output, images), rate(q)


def log_prior(z: Latents) -> Nats:
    """log N(z; 0, I), nats.

    >>> round(float(log_prior(jnp.zeros((1, 2)))[0]), 4)
    -1.8379
    """
    return gaussian.log_prob(DiagGaussian(jnp.zeros_like(z), jnp.zeros_like(z)), z)


def build(
    encoder: nn.Module,
    decoder: nn.Module,
    likelihood: Likelihood,
    shape: tuple[int, int, int],
    *,
    beta: Number = 1.0,
    free_bits: Number = 0.0,
) -> VAE:
    """A VAE of two networks and a distribution of pixels.

    Args:
      encoder: ``network(images, labels=None) -> [b 2d]``: μ, then log σ² of d latents. It is given the images with
        black at 0 and white at 1, as in the lecture notes, so that a mostly black image is mostly 0.
      decoder: ``network(z, labels=None) -> [b h w likelihood.num_outputs(c)]``.
      likelihood: p(x|z), a likelihood of ``theory.pixels``.
      shape: (h, w, c) of an image.
      beta: β ≥ 0.
      free_bits: nats of each latent that cost nothing to use.

    Raises:
      ValueError: the networks' outputs do not fit, or ``beta`` or ``free_bits`` is negative or not finite.
    """
    checks.counts("shape", shape, length=3)
    checks.nonnegative("beta", beta)
    checks.nonnegative("free_bits", free_bits)
    num_classes = contracts.num_classes(encoder)
    latent_dim = _latent_dim(encoder, decoder, (*shape[:2], likelihood.num_outputs(shape[2])), shape, num_classes)
    setup = _Setup(
        encoder=encoder, decoder=decoder, likelihood=likelihood, shape=shape, beta=beta, free_bits=free_bits,
        num_classes=num_classes, latent_dim=latent_dim,
    )  # fmt: skip
    return VAE(
        init=functools.partial(_init, setup),
        loss=functools.partial(_loss, setup),
        encode=functools.partial(_encode, setup),
        decode=functools.partial(_decode, setup),
        sample=functools.partial(_sample, setup),
        log_weights=functools.partial(_log_weights, setup),
        log_joint=functools.partial(_log_joint, setup),
        latent_dim=latent_dim,
        optimizer=contracts.unchanged,
    )


class _Setup(NamedTuple):
    """The arguments of ``build``, and what the networks say."""

    encoder: nn.Module
    decoder: nn.Module
    likelihood: Likelihood
    shape: tuple[int, int, int]
    beta: Number
    free_bits: Number
    num_classes: int
    latent_dim: int


def _latent_dim(
    encoder: nn.Module,
    decoder: nn.Module,
    outputs: tuple[int, int, int],
    shape: tuple[int, int, int],
    num_classes: int,
) -> int:
    """The number of latents of two networks that fit each other and the images."""
    if getattr(decoder, "num_classes", num_classes) != num_classes:
        raise ValueError(f"decoder: expected {num_classes} classes, as many as the encoder has")
    if (features := getattr(encoder, "features", 2)) < 2 or features % 2:
        expected = "at least 2 features, the mean and log-variance of a latent, and an even number of them"
        raise ValueError(f"encoder: expected {expected}; got {features}")
    labels = contracts.trial_labels(num_classes)
    latent_dim = protocols.output_shape("encoder", encoder, jnp.zeros((1, *shape)), labels).shape[-1] // 2
    output = protocols.output_shape("decoder", decoder, jnp.zeros((1, latent_dim)), labels)
    if output.shape[1:] != outputs:
        raise ValueError(f"decoder: expected outputs of shape {outputs}, got {output.shape[1:]}")
    return latent_dim


def _init(setup: _Setup, key: Key) -> Params:
    encoder_key, decoder_key = jax.random.split(key)
    labels = contracts.trial_labels(setup.num_classes)
    encoder = setup.encoder.init(encoder_key, jnp.zeros((1, *setup.shape)), labels)
    decoder = setup.decoder.init(decoder_key, jnp.zeros((1, setup.latent_dim)), labels)
    return {"encoder": encoder["params"], "decoder": decoder["params"]}


def _encode(setup: _Setup, params: Params, images: Any, labels: Labels | None = None) -> DiagGaussian:
    images = checks.images("images", images, setup.shape)
    labels = checks.labels("labels", labels, setup.num_classes, images.shape[0])
    output = jnp.asarray(setup.encoder.apply({"params": params["encoder"]}, (images + 1) / 2, labels))
    mean, log_variance = jnp.split(output, 2, -1)
    return DiagGaussian(mean, log_variance / 2)


def _output(setup: _Setup, params: Params, z: Latents, labels: Labels | None) -> Float[Array, "b h w m"]:
    """The decoder's output, the parameters of p(x|z)."""
    return jnp.asarray(setup.decoder.apply({"params": params["decoder"]}, z, labels))


def _decode(setup: _Setup, params: Params, z: Any, labels: Labels | None = None) -> Images:
    checks.vectors("z", z, setup.latent_dim)
    labels = checks.labels("labels", labels, setup.num_classes, np.shape(z)[0])
    return setup.likelihood.mean(_output(setup, params, z, labels))


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    images, labels = checks.images("images", batch["image"], setup.shape), contracts.labels(batch, setup.num_classes)
    q = _encode(setup, params, images, labels)
    z = gaussian.sample(random.example_keys(key, images.shape[0]), q)
    distortion, nats = elbo_terms(setup.likelihood, _output(setup, params, z, labels), images, q)
    beta = batch.get("beta", setup.beta)
    checks.nonnegative("beta", beta)
    metrics = {"distortion": distortion.mean(), "rate": nats.mean()}
    return jnp.mean(distortion + beta * rate(q, setup.free_bits)), metrics


def _sample(setup: _Setup, key: Key, params: Params, num: int, labels: Labels | None = None) -> Images:
    z = random.normal(random.example_keys(key, num), (setup.latent_dim,))
    return _decode(setup, params, z, labels)


def _log_joint(setup: _Setup, params: Params, batch: Batch, z: Any) -> Nats:
    checks.vectors("z", z, setup.latent_dim)
    prior = log_prior(z)
    output = _output(setup, params, z, contracts.labels(batch, setup.num_classes))
    return setup.likelihood.log_prob(output, batch["image"]) + prior


def _log_weights(setup: _Setup, key: Key, params: Params, batch: Batch, num_samples: int) -> Float[Array, "k b"]:
    checks.count("num_samples", num_samples)
    keys = random.example_keys(key, batch["image"].shape[0])
    q = _encode(setup, params, batch["image"], contracts.labels(batch, setup.num_classes))

    def log_weight(i: Any) -> Nats:
        z = gaussian.sample(jax.vmap(jax.random.fold_in, (0, None))(keys, i), q)
        return _log_joint(setup, params, batch, z) - gaussian.log_prob(q, z)

    return jax.lax.map(log_weight, jnp.arange(num_samples))


def log_evidence(
    model: VAE,
    params: Params,
    batch: Batch,
    *,
    num_points: int = 96,
    width: float | int = 5.0,
    tolerance: float | int = 1e-3,
) -> Float[Array, " b"]:
    """log p(x) of each image by quadrature over two latents, nats: exact but for the grid.

    log p(x) = log ∫ p(x|z) N(z; 0, I) dz, by the midpoint rule on a grid that finds the posterior of each image,
    however narrow, and is refined until the value converges (``theory.quadrature``); the error then falls exponentially
    with the number of points if p(x|z) is smooth.

    Args:
      model: model with two latents.
      params: parameters of the model.
      batch: ``image`` [b h w c], and ``label`` if the model is conditional.
      num_points: number of grid points in each direction.
      width: half the side of the square that is searched for the posterior, in standard deviations of the prior.
      tolerance: largest difference, in nats, from a grid of three times the spacing; far more than the error of the
        value.

    Returns:
      [b]; under ``jit``, NaN for an image whose value does not converge.

    Raises:
      ValueError: the model does not have two latents; or, outside ``jit``, the value of an image does not converge.
    """
    num = np.shape(batch["image"])[0]
    if model.latent_dim != 2:
        raise ValueError(f"model: expected two latents, for a grid over them; got {model.latent_dim}")
    integral = quadrature.log_integral(
        lambda z: model.log_joint(params, batch, z), num, width=width, num_points=num_points, tolerance=tolerance
    )
    if checks.is_concrete(integral) and not integral.converged.all():
        i = int(jnp.argmin(integral.converged))
        raise ValueError(
            f"num_points: {num_points} do not resolve the posterior of image {i}: its value, "
            f"{integral.log_value[i]:g}, moves by {integral.error[i]:g} nats between grids, more than {tolerance:g}; "
            "use more points"
        )
    return jnp.where(integral.converged, integral.log_value, jnp.nan)
