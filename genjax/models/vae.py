"""The variational autoencoder (Kingma & Welling 2014; Rezende et al. 2014).

Assumes z ~ N(0, I) and x|z from a decoder; an encoder gives q(z|x) = N(μ(x), diag σ²(x)). Minimises, in nats per image,
    L = E_q[-log p(x|z)] + β D(q(z|x)‖N(0, I)),
distortion plus rate: the negative evidence lower bound for β = 1 (other β: Higgins et al. 2017).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks, random
from genjax.theory import gaussian, quadrature
from genjax.theory.gaussian import DiagGaussian
from genjax.theory.pixels import Likelihood
from genjax.types import Batch, Images, Key, Loss, Number, Params

Labels = Any
"""A class for each image: whole numbers [b]."""


@runtime_checkable
class Encode(Protocol):
    """``(params, images, labels=None) -> q(z|x)``."""

    def __call__(self, params: Params, images: Any, labels: Labels | None = None) -> DiagGaussian: ...  # noqa: D102


@runtime_checkable
class Decode(Protocol):
    """``(params, z, labels=None) -> images``, the mean of p(x|z)."""

    def __call__(  # noqa: D102
        self, params: Params, z: Any, labels: Labels | None = None
    ) -> Images: ...


@runtime_checkable
class Sample(Protocol):
    """``(key, params, num, labels=None) -> images``."""

    def __call__(self, key: Key, params: Params, num: int, labels: Labels | None = None) -> Images: ...  # noqa: D102


class VAE(NamedTuple):
    """A variational autoencoder as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (scalar, metrics)``. The batch has ``image``; ``label`` where the networks are
        conditional; and may have ``beta`` [b], which takes the place of β. Metrics: ``distortion``, ``rate``, nats.
      encode: ``(params, images, labels=None) -> q(z|x)``.
      decode: ``(params, z, labels=None) -> images``: the means of p(x|z).
      sample: ``(key, params, num, labels=None) -> images``: the means at draws of the prior; image i depends on
        (key, i) only.
      log_weights: ``(key, params, batch, num_samples) -> [num_samples b]``: log p(x, z) - log q(z|x) of draws of q;
        ``variational.elbo`` and ``variational.importance_weighted_bound`` make bounds of them.
      log_joint: ``(params, batch, z [b d]) -> [b]``: log p(x|z) + log p(z), nats.
      latent_dim: d.
    """

    init: Callable[[Key], Params]
    loss: Loss
    encode: Encode
    decode: Decode
    sample: Sample
    log_weights: Callable[[Key, Params, Batch, int], Float[Array, "k b"]]
    log_joint: Callable[[Params, Batch, Any], Float[Array, " b"]]
    latent_dim: int


def rate(q: DiagGaussian, free_bits: Number = 0.0) -> Float[Array, " b"]:
    """D(q(z|x)‖N(0, I)) of each image, nats; each latent counts at least ``free_bits`` nats (Kingma et al. 2016, C.8).

    The paper takes the maximum after averaging over a minibatch; here every image has its own, so that it does not
    matter how images are grouped in batches and spread over devices.

    Raises:
      ValueError: ``free_bits`` is negative or not finite.
    """
    checks.nonnegative("free_bits", free_bits)
    each = gaussian.kl_standard(DiagGaussian(q.mean[..., None], q.log_std[..., None]))
    return jnp.sum(jnp.maximum(each, free_bits), -1)


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
      encoder: ``network(images, labels=None) -> [b 2d]``: μ, then log σ² of d latents; it is given the images with
        black at 0 and white at 1, as the notes have them, so that a mostly black image is mostly 0.
      decoder: ``network(z, labels=None) -> [b h w likelihood.num_outputs(c)]``.
      likelihood: of ``theory.pixels``.
      shape: (h, w, c) of an image.
      beta: β ≥ 0.
      free_bits: nats of each latent that cost nothing to use.

    Raises:
      ValueError: the networks' outputs do not fit, or ``beta`` or ``free_bits`` is negative or not finite.
    """
    checks.counts("shape", shape, length=3)
    checks.nonnegative("beta", beta)
    checks.nonnegative("free_bits", free_bits)
    num_classes = getattr(encoder, "num_classes", 0)
    outputs = (*shape[:2], likelihood.num_outputs(shape[2]))

    def encode(params: Params, images: Any, labels: Labels | None = None) -> DiagGaussian:
        images = checks.images("images", images, shape)
        labels = checks.labels("labels", labels, num_classes, images.shape[0])
        both = jnp.asarray(encoder.apply({"params": params["encoder"]}, (images + 1) / 2, labels))
        mean, log_variance = jnp.split(both, 2, -1)
        return DiagGaussian(mean, log_variance / 2)

    def output(params: Params, z: Float[Array, "b d"], labels: Labels | None) -> Float[Array, "b h w m"]:
        return jnp.asarray(decoder.apply({"params": params["decoder"]}, z, labels))

    def decode(params: Params, z: Any, labels: Labels | None = None) -> Images:
        checks.vectors("z", z, latent_dim)
        labels = checks.labels("labels", labels, num_classes, np.shape(z)[0])
        return likelihood.mean(output(params, z, labels))

    def labels_of(batch: Batch) -> Labels | None:
        if not num_classes:
            return None
        if "label" not in batch:
            raise ValueError("batch: a conditional model needs label, a class for each image; this data has none")
        return checks.labels("label", batch["label"], num_classes, np.shape(batch["image"])[0])

    def init(key: Key) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        labels = jnp.zeros(1, jnp.int32) if num_classes else None
        both, variables = encoder.init_with_output(encoder_key, jnp.zeros((1, *shape)), labels)
        z = jnp.zeros((1, both.shape[-1] // 2))
        return {"encoder": variables["params"], "decoder": decoder.init(decoder_key, z, labels)["params"]}

    def loss(key: Key, params: Params, batch: Batch):
        images, labels = checks.images("images", batch["image"], shape), labels_of(batch)
        q = encode(params, images, labels)
        z = gaussian.sample(random.example_keys(key, images.shape[0]), q)
        distortion = -likelihood.log_prob(output(params, z, labels), images)
        weight = batch.get("beta", beta)
        checks.nonnegative("beta", weight)
        metrics = {"distortion": distortion.mean(), "rate": rate(q).mean()}
        return jnp.mean(distortion + weight * rate(q, free_bits)), metrics

    def sample(key: Key, params: Params, num: int, labels: Labels | None = None) -> Images:
        keys = random.example_keys(key, num)
        return decode(params, random.normal(keys, (latent_dim,)), labels)

    def log_joint(params: Params, batch: Batch, z: Any) -> Float[Array, " b"]:
        checks.vectors("z", z, latent_dim)
        prior = gaussian.log_prob(DiagGaussian(jnp.zeros_like(z), jnp.zeros_like(z)), z)
        return likelihood.log_prob(output(params, z, labels_of(batch)), batch["image"]) + prior

    def log_weights(key: Key, params: Params, batch: Batch, num_samples: int) -> Float[Array, "k b"]:
        checks.count("num_samples", num_samples)
        keys = random.example_keys(key, batch["image"].shape[0])
        q = encode(params, batch["image"], labels_of(batch))

        def weigh(i):
            z = gaussian.sample(jax.vmap(jax.random.fold_in, (0, None))(keys, i), q)
            return log_joint(params, batch, z) - gaussian.log_prob(q, z)

        return jax.lax.map(weigh, jnp.arange(num_samples))

    def trial(key: Key):
        batch = {"image": jnp.zeros((1, *shape)), "label": jnp.zeros(1, jnp.int32)}
        params = init(key)
        q = encode(params, batch["image"], labels_of(batch))
        return q, output(params, q.mean, labels_of(batch))

    if getattr(decoder, "num_classes", num_classes) != num_classes:
        raise ValueError(f"decoder: expected {num_classes} classes, as many as the encoder has")
    if (features := getattr(encoder, "features", 2)) < 2 or features % 2:
        wanted = "at least 2 features, the mean and log-variance of a latent, and an even number of them"
        raise ValueError(f"encoder: expected {wanted}; got {features}")
    q, out = jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)))
    if out.shape[1:] != outputs:
        raise ValueError(f"decoder: expected outputs of shape {outputs}, got {out.shape[1:]}")
    latent_dim = q.mean.shape[-1]
    return VAE(init, loss, encode, decode, sample, log_weights, log_joint, latent_dim)


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
    however narrow, and is refined until the value stands still (``theory.quadrature``); the error then falls
    exponentially with the points where p(x|z) is smooth.

    Args:
      model: with two latents.
      params: of the model.
      batch: ``image`` [b h w c], and ``label`` where the model is conditional.
      num_points: of the grid, in each direction.
      width: of the square that the posterior is looked for in, in standard deviations of the prior.
      tolerance: nats by which grids of three times the spacing may disagree; far more than the error of the value.

    Returns:
      [b]; NaN, under ``jit``, where the value does not stand still.

    Raises:
      ValueError: the model does not have two latents; or, outside ``jit``, the value of an image does not stand still.
    """
    num = np.shape(batch["image"])[0]
    if model.latent_dim != 2:
        raise ValueError(f"model: expected two latents, for a grid over them; got {model.latent_dim}")
    found = quadrature.log_integral(
        lambda z: model.log_joint(params, batch, z), num, width=width, num_points=num_points, tolerance=tolerance
    )
    if checks.is_concrete(found) and not found.converged.all():
        i = int(jnp.argmin(found.converged))
        raise ValueError(
            f"num_points: {num_points} do not resolve the posterior of image {i}: its value, {found.log_value[i]:g}, "
            f"moves by {found.error[i]:g} nats between grids, more than {tolerance:g}; use more points"
        )
    return jnp.where(found.converged, found.log_value, jnp.nan)
