"""Denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv:2006.11239).

Assumes images in [-1, 1], a fixed variance schedule, and a network that predicts the noise in x_t.
Loss: L_simple = E_{t, ε} distance(ε_θ(√ᾱ_t x_0 + √(1 - ᾱ_t) ε, t), ε), t uniform (eq. 14; squared in the paper).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from genjax import checks, diffusion, random
from genjax.models import contracts
from genjax.models.contracts import Labels
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

Guide = Callable[[Callable[[Images, Labels, Labels], Images], Labels, int], Callable[[Images, Labels], Images]]
"""Guidance, ``(network(x_t, t, labels), labels, label for no class) -> network(x_t, t)``."""

Sampler = Callable[[diffusion.Denoise, diffusion.Schedule], diffusion.Sample]
"""Maker of a reverse chain, ``(denoise, schedule) -> sample``."""


@runtime_checkable
class DrawImages(Protocol):
    """Sampling of a trained model, ``sample(key, params, num) -> images``."""

    def __call__(
        self, key: Key, params: Params, num: int, keep: Sequence[int] | None = None, labels: ArrayLike | None = None
    ) -> Any:
        """Draw images in [-1, 1]; image i depends on (key, i) only.

        Args:
          key: a single key, or one per image [num].
          params: parameters of the model.
          num: number of images.
          keep: step counts after which images are kept; see ``diffusion.Sample``.
          labels: classes [num], for a conditional model.

        Raises:
          ValueError: ``num`` < 0; or labels are given to a model without classes, are not one for each image, or are
            not among the classes.
        """
        ...


class DDPM(NamedTuple):
    """The model as pure functions.

    Attributes:
      init: parameters, ``(key) -> params``.
      loss: training loss, ``(key, params, batch) -> (loss, {})``, the mean of ``losses``.
      losses: loss of each image, ``(key, params, batch) -> [b]``. The batch has ``image`` [b h w c]; its optional
        ``time`` [b] in [0, 1) picks the times, which are uniform otherwise.
      denoise: denoiser for samplers and likelihoods, ``(params, labels=None) -> denoise``.
      sample: new images, ``(key, params, num) -> images [num h w c]``.
      optimizer: optimizer for these parameters, made of another, ``(inner) -> optimizer``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], Float[Array, " b"]]
    denoise: Callable[..., diffusion.Predict]
    sample: DrawImages
    optimizer: contracts.MakeOptimizer = contracts.unchanged


def l1(prediction: Images, noise: Images) -> Images:
    """Compute |ε̂ - ε|, the distance that the lecture notes minimise."""
    return jnp.abs(prediction - noise)


def l2(prediction: Images, noise: Images) -> Images:
    """Compute (ε̂ - ε)², the distance that the paper minimises (Ho et al. 2020, eq. 14)."""
    return optax.squared_error(prediction, noise)


def huber(prediction: Images, noise: Images) -> Images:
    """Compute ½ (ε̂ - ε)² up to |ε̂ - ε| = 1, then |ε̂ - ε| - ½ (Huber 1964)."""
    return optax.huber_loss(prediction, noise)


def losses(
    denoise: diffusion.Denoise,
    schedule: diffusion.Schedule,
    keys: Key,
    images: ArrayLike,
    objective: diffusion.Objective,
    u: ArrayLike | None = None,
) -> Float[Array, " b"]:
    """Compute the objective of each image at one time, by default a random one (Ho et al. 2020, Algorithm 1).

    Args:
      denoise: denoiser, ``(x_t, t) -> ε`` or a ``Prediction``.
      schedule: the schedule of T steps.
      keys: keys of the images [b].
      images: x_0 [b h w c].
      objective: the objective, from ``diffusion.objectives``.
      u: quantiles [b] in [0, 1] of the times 0, ..., T - 1; 1 is the last time.

    Raises:
      ValueError: there are no images, or images are not of floating point or not finite; or a quantile is outside
        [0, 1].
    """
    images = checks.batch("image", images)
    time_keys, noise_keys = random.split(keys, 2)
    if u is None:
        t = jax.vmap(lambda key: jax.random.randint(key, (), 0, schedule.num_steps))(time_keys)
    else:
        checks.within("time", u, 0, 1)
        t = jnp.minimum((jnp.asarray(u) * schedule.num_steps).astype(jnp.int32), schedule.num_steps - 1)
    noise = random.normal(noise_keys, images.shape[1:], images.dtype)
    x_t = diffusion.diffuse(schedule, images, t, noise)
    prediction = diffusion.to_prediction(schedule, denoise(x_t, t), x_t, t)
    return objective(schedule, prediction, diffusion.Prediction(images, noise), x_t, t)


def hide_labels(keys: Key, labels: ArrayLike, num_classes: int, p_uncond: float) -> Labels:
    """Replace each label by ``num_classes``, the label for no class, with probability ``p_uncond``.

    One network so learns both predictions that guidance mixes (Ho & Salimans 2022, Algorithm 1).
    """
    hidden = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), p_uncond))(keys)
    return jnp.where(hidden, num_classes, labels)


class _Setup(NamedTuple):
    """Arguments of ``build``."""

    network: nn.Module
    schedule: diffusion.Schedule
    shape: tuple[int, int, int]
    objective: diffusion.Objective
    to_prediction: diffusion.ToPrediction
    sampler: Sampler
    num_classes: int
    p_uncond: float
    guide: Guide | None


def _init(setup: _Setup, key: Key) -> Params:
    return setup.network.init(key, jnp.zeros((1, *setup.shape)), jnp.zeros((1,), jnp.int32))["params"]


def _apply(setup: _Setup, params: Params, labels: Any, keys: Key | None, guide: Guide | None) -> Callable[..., Images]:
    """The network as ``(x_t, t) -> output``, with labels, keys and guidance where there are any."""
    dropout: dict[str, Any] = {"keys": keys} if contracts.takes_keys(setup.network) else {}
    call = lambda x_t, t, **more: jnp.asarray(setup.network.apply({"params": params}, x_t, t, **dropout, **more))
    if not setup.num_classes:
        return call
    conditional = lambda x_t, t, labels: call(x_t, t, labels=labels)
    if guide and labels is not None:
        return guide(conditional, jnp.asarray(labels), setup.num_classes)
    return lambda x_t, t: conditional(x_t, t, labels)


def _denoiser(
    setup: _Setup, params: Params, labels: Any = None, keys: Key | None = None, guided: bool = True
) -> diffusion.Predict:
    if labels is not None:
        checks.labels("labels", labels, setup.num_classes, none=keys is not None)
    network = _apply(setup, params, labels, keys, setup.guide if guided else None)
    return lambda x_t, t: setup.to_prediction(setup.schedule, network(x_t, t), x_t, t)


def _losses(setup: _Setup, key: Key, params: Params, batch: Batch) -> Float[Array, " b"]:
    images = checks.batch("image", batch["image"])
    loss_keys, dropout_keys = random.split(random.example_keys(key, images.shape[0]), 2)
    labels = None
    if setup.num_classes:
        checks.labels("label", batch["label"], setup.num_classes, len(images), none=True)
        labels = hide_labels(dropout_keys, batch["label"], setup.num_classes, setup.p_uncond)
    denoise = _denoiser(setup, params, labels, dropout_keys, guided=False)
    return losses(denoise, setup.schedule, loss_keys, images, setup.objective, batch.get("time"))


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    return _losses(setup, key, params, batch).mean(), {}


def _sample(
    setup: _Setup,
    key: Key,
    params: Params,
    num: int,
    keep: Sequence[int] | None = None,
    labels: ArrayLike | None = None,
) -> Any:
    checks.count("num", num, 0)
    if labels is not None:
        checks.labels("labels", labels, setup.num_classes, num)
    start_keys, chain_keys = random.split(random.example_keys(key, num), 2)
    sample = setup.sampler(_denoiser(setup, params, labels), setup.schedule)
    return sample(chain_keys, random.normal(start_keys, setup.shape), keep)


def build(
    network: nn.Module,
    schedule: diffusion.Schedule,
    shape: tuple[int, int, int],
    *,
    objective: diffusion.Objective | None = None,
    to_prediction: diffusion.ToPrediction = diffusion.from_noise,
    sampler: Sampler = diffusion.ancestral,
    num_classes: int = 0,
    p_uncond: float = 0.1,
    guide: Guide | None = None,
) -> DDPM:
    """Make the model.

    Args:
      network: network ``(x_t, t) -> output``; see ``genjax.nn.protocols.Denoiser``.
      schedule: the schedule of T steps.
      shape: (h, w, c) of an image.
      objective: the objective that the loss averages; by default ``simple(l2)``, the paper's.
      to_prediction: conversion of the output, which is the noise, the image or v; see ``diffusion.predictions``.
      sampler: maker of the reverse chain, as ``functools.partial(diffusion.ddim, num_steps=50)``.
      num_classes: number of classes of the batch's ``label``, which the network takes as ``labels``; 0 for a model
        without labels.
      p_uncond: probability that training hides a label; see ``hide_labels``.
      guide: guidance where labels are given, as ``functools.partial(diffusion.classifier_free_batched,
        guidance_scale=2.0)``.

    Raises:
      ValueError: the network does not take images of this shape or does not return them, has variables other than
        parameters, or predicts the noise where the schedule leaves nothing of the image; or classes, guidance,
        ``p_uncond`` or the sampler are impossible.

    Warns:
      diffusion.StartWarning: x_t at the sampler's start is not yet noise.
    """
    checks.count("num_classes", num_classes, 0)
    if guide and not num_classes:
        raise ValueError("guide: expected a model conditional on labels; give num_classes, or leave guide out")
    if not 0 <= p_uncond <= 1:
        raise ValueError(f"p_uncond: expected a probability from 0 to 1, got {p_uncond:g}")
    objective = objective or diffusion.simple(l2)
    setup = _Setup(network, schedule, shape, objective, to_prediction, sampler, num_classes, p_uncond, guide)

    def predict(params: Params, labels: Labels | None = None) -> Images:
        return _denoiser(setup, params, labels)(jnp.zeros((1, *shape)), jnp.zeros(1, jnp.int32)).x0

    contracts.check_denoiser(network, predict, shape, jnp.zeros(1, jnp.int32))
    if guide:
        guided = functools.partial(predict, labels=contracts.trial_labels(num_classes))
        contracts.check_denoiser(network, guided, shape, jnp.zeros(1, jnp.int32))
    sampler(lambda x_t, t: x_t, schedule)  # refuses impossible settings now
    return DDPM(
        init=functools.partial(_init, setup),
        loss=functools.partial(_loss, setup),
        losses=functools.partial(_losses, setup),
        denoise=functools.partial(_denoiser, setup),
        sample=functools.partial(_sample, setup),
    )
