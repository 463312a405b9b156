"""Generative adversarial networks (Goodfellow et al. 2014): two players, one step.

The discriminator D tells data from what the generator G makes of noise z ~ N(0, I); G wants to be taken for data:
    min_G max_D V(D, G),  V = E log D(x) + E log(1 - D(G(z))).

Both losses are one, L = L_D(sg(G), D) + L_G(G, sg(D)): each player's gradient is that of its own loss, so the step that
trains every other model trains this one, with an optimizer for each player (the model's field ``optimizer``).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax import checks, random, statistics
from genjax.models import contracts, gan_losses
from genjax.models.gan_losses import LOSSES, GANLoss, Logits, hinge, least_squares, minimax, non_saturating, wasserstein
from genjax.nn import protocols
from genjax.types import Batch, Images, Key, Labels, Loss, Metrics, Number, Params, Scalar

__all__ = [
    "GAN",
    "LOSSES",
    "GANLoss",
    "build",
    "hinge",
    "least_squares",
    "minimax",
    "non_saturating",
    "wasserstein",
]

_AUX = "aux_loss"  # collection in which the discriminator's layers sow losses (``nn.spectral``)


class GAN(NamedTuple):
    """A generative adversarial network as pure functions.

    Attributes:
      init: ``(key) -> params``, with the parts ``generator`` and ``discriminator``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``, and ``label`` if the networks are
        conditional. Metrics: ``discriminator`` and ``generator``, each player's loss; ``real`` and ``fake``, mean
        logits; ``penalty``.
      generate: ``(params, z [b d], labels=None) -> images``.
      sample: ``(key, params, num, labels=None) -> images``; image i depends on (key, i) only.
      discriminate: ``(params, images, labels=None) -> logits [b]``.
      optimizer: ``(inner, other=None) -> GradientTransformation``: ``inner`` for the generator, ``other`` for the
        discriminator; by default the same for both. The running vectors of ``nn.spectral`` have their own descent.
    """

    init: Callable[[Key], Params]
    loss: Loss
    generate: Callable[..., Images]
    sample: contracts.Sample
    discriminate: Callable[..., Logits]
    optimizer: Callable[..., contracts.Optimizer]


def build(
    generator: nn.Module,
    discriminator: nn.Module,
    gan_loss: GANLoss,
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 64,
    gp_weight: Number = 0.0,
    r1_weight: Number = 0.0,
    n_critic: int = 1,
) -> GAN:
    """A GAN of two networks and their losses.

    Args:
      generator: ``network(z, labels=None) -> [b h w c]``, in [-1, 1].
      discriminator: ``network(images, labels=None) -> [b 1]``; a sown ``aux_loss`` is added to the loss
        (``nn.spectral``).
      gan_loss: losses of the players, such as ``non_saturating``.
      shape: (h, w, c) of an image.
      latent_dim: d, numbers of z.
      gp_weight: weight of ``gan_losses.gradient_penalty`` between data and fakes; 10 in the paper.
      r1_weight: weight of ``gan_losses.r1`` at the data.
      n_critic: steps of the discriminator for each step of the generator, which moves at every ``n_critic``-th step.

    Raises:
      ValueError: the networks' outputs do not fit, ``latent_dim`` or ``n_critic`` is below 1, or a weight is negative
        or not finite.
    """
    num_classes = contracts.num_classes(generator)
    setup = _Setup(
        generator=generator, discriminator=discriminator, gan_loss=gan_loss, shape=shape, latent_dim=latent_dim,
        gp_weight=gp_weight, r1_weight=r1_weight, num_classes=num_classes,
    )  # fmt: skip
    _check(setup, n_critic)
    return GAN(
        init=functools.partial(_init, setup),
        loss=functools.partial(_loss, setup),
        generate=functools.partial(_generate, setup),
        sample=functools.partial(_sample, setup),
        discriminate=functools.partial(_discriminate, setup),
        optimizer=functools.partial(_optimizer, n_critic),
    )


class _Setup(NamedTuple):
    """The arguments of ``build``, and the number of classes."""

    generator: nn.Module
    discriminator: nn.Module
    gan_loss: GANLoss
    shape: tuple[int, int, int]
    latent_dim: int
    gp_weight: Number
    r1_weight: Number
    num_classes: int


def _check(setup: _Setup, n_critic: int) -> None:
    """Refuse numbers out of range, and networks that do not fit each other or the images."""
    checks.count("latent_dim", setup.latent_dim)
    checks.counts("shape", setup.shape, length=3)
    checks.nonnegative("gp_weight", setup.gp_weight)
    checks.nonnegative("r1_weight", setup.r1_weight)
    if isinstance(n_critic, bool) or not isinstance(n_critic, int) or n_critic < 1:
        raise ValueError(f"n_critic: expected at least 1 step of the discriminator, got {n_critic}")
    if contracts.num_classes(setup.discriminator) != setup.num_classes:
        raise ValueError(f"discriminator: expected {setup.num_classes} classes, as many as the generator has")
    labels = contracts.trial_labels(setup.num_classes)
    images = protocols.output_shape("generator", setup.generator, jnp.zeros((1, setup.latent_dim)), labels)
    if images.shape[1:] != setup.shape:
        raise ValueError(f"generator: expected images of shape {setup.shape}, got {images.shape[1:]}")
    one = jnp.zeros((1, *setup.shape))
    logits = protocols.output_shape("discriminator", setup.discriminator, one, labels, sown=(_AUX,))
    if logits.shape != (1, 1):
        raise ValueError(f"discriminator: expected one logit for each image, got {logits.shape[1:]}")


def _init(setup: _Setup, key: Key) -> Params:
    generator_key, discriminator_key = jax.random.split(key)
    labels = contracts.trial_labels(setup.num_classes)
    generator = setup.generator.init(generator_key, jnp.zeros((1, setup.latent_dim)), labels)
    discriminator = setup.discriminator.init(discriminator_key, jnp.zeros((1, *setup.shape)), labels)
    params = {"generator": generator["params"], "discriminator": discriminator["params"]}
    return statistics.mark(params, _statistics(discriminator.get(_AUX, {})))


def _statistics(sown: Any) -> dict[statistics.Path, float]:
    """Paths of the discriminator's running statistics, by the names under which its layers sow; of rate 1."""
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(sown))
    return {("discriminator", *(key.key for key in path if hasattr(key, "key"))): 1.0 for path in paths}


def _generate(setup: _Setup, params: Params, z: Any, labels: Labels | None = None) -> Images:
    checks.vectors("z", z, setup.latent_dim)
    labels = checks.labels("labels", labels, setup.num_classes, np.shape(z)[0])
    return jnp.asarray(setup.generator.apply({"params": params["generator"]}, z, labels))


def _discriminate(setup: _Setup, params: Params, images: Any, labels: Labels | None = None) -> Logits:
    images = _images(setup, "images", images)
    labels = checks.labels("labels", labels, setup.num_classes, images.shape[0])
    return jnp.asarray(setup.discriminator.apply({"params": params["discriminator"]}, images, labels))[:, 0]


def _sample(setup: _Setup, key: Key, params: Params, num: int, labels: Labels | None = None) -> Images:
    return _generate(setup, params, random.normal(random.example_keys(key, num), (setup.latent_dim,)), labels)


def _images(setup: _Setup, name: str, images: Any) -> Images:
    return checks.images(name, images, setup.shape, -math.inf, math.inf)  # points of a plane may lie anywhere


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    """L_D(sg(G), D) + L_G(G, sg(D)), and what the discriminator's layers add."""
    real, labels = _images(setup, "image", batch["image"]), contracts.labels(batch, setup.num_classes)
    d_keys, penalty_keys, g_keys = random.split(random.example_keys(key, real.shape[0]), 3)
    frozen = jax.lax.stop_gradient(params)
    d_params, g_params = (
        params | {"generator": frozen["generator"]},
        params | {"discriminator": frozen["discriminator"]},
    )

    fake = _generate(setup, d_params, random.normal(d_keys, (setup.latent_dim,)), labels)
    variables = {"params": params["discriminator"]}
    output, sown = setup.discriminator.apply(variables, real, labels, mutable=[_AUX])
    statistics.require(params, _statistics(sown.get(_AUX, {})))
    critic = lambda images: _discriminate(setup, d_params, images, labels)
    real_logits, fake_logits = jnp.asarray(output)[:, 0], critic(fake)
    penalty = gan_losses.penalty(critic, real, fake, penalty_keys, setup.gp_weight, setup.r1_weight).mean()
    d_loss = jnp.mean(setup.gan_loss.discriminator(real_logits, fake_logits))

    images = _generate(setup, g_params, random.normal(g_keys, (setup.latent_dim,)), labels)
    g_loss = jnp.mean(setup.gan_loss.generator(_discriminate(setup, g_params, images, labels)))
    aux_loss = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(sown))
    metrics = {
        "discriminator": d_loss,
        "generator": g_loss,
        "penalty": penalty,
        "real": real_logits.mean(),
        "fake": fake_logits.mean(),
    }
    return d_loss + penalty + g_loss + aux_loss - jax.lax.stop_gradient(aux_loss), metrics


def _optimizer(
    n_critic: int, inner: contracts.Optimizer, other: contracts.Optimizer | None = None
) -> contracts.Optimizer:
    other = inner if other is None else other
    if n_critic > 1:
        inner = optax.conditionally_mask(inner, lambda step: step % n_critic == n_critic - 1)
    return statistics.optimizer({"generator": inner, "discriminator": other}, lambda path: path[0])
