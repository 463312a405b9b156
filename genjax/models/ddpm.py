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
from jaxtyping import Array, ArrayLike, Float, Int

from genjax import checks, diffusion, random, statistics
from genjax.models import contracts
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

Labels = Int[Array, " b"]
Guide = Callable[[Callable[[Images, Labels, Labels], Images], Labels, int], Callable[[Images, Labels], Images]]
"""``(network(x_t, t, labels), labels, label of none) -> network(x_t, t)``: guidance."""


@runtime_checkable
class DrawImages(Protocol):
    """``sample(key, params, num) -> images``."""

    def __call__(
        self, key: Key, params: Params, num: int, keep: Sequence[int] | None = None, labels: ArrayLike | None = None
    ):
        """Draw images in [-1, 1]; image i depends on (key, i) only. ``keep`` is as in ``diffusion.samplers.Sample``.

        Raises:
          ValueError: ``num`` < 0; or labels of a model without, not one for each image, or none of its classes.
        """
        ...


class DDPM(NamedTuple):
    """The model as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (loss, {})``, the mean of ``losses``.
      losses: ``(key, params, batch) -> [b]``; the batch has ``image`` [b h w c], and may have ``time`` [b] in [0, 1),
        which picks the times; else they are uniform.
      denoise: ``(params, labels=None) -> denoise``, for samplers and likelihoods.
      sample: ``(key, params, num) -> images [num h w c]``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], Float[Array, " b"]]
    denoise: Callable[..., diffusion.Predict]
    sample: DrawImages


def l1(prediction: Images, noise: Images) -> Images:
    """|ε̂ - ε|: what the lecture notes minimise."""
    return jnp.abs(prediction - noise)


def l2(prediction: Images, noise: Images) -> Images:
    """(ε̂ - ε)²: what the paper minimises (Ho et al. 2020, eq. 14)."""
    return optax.squared_error(prediction, noise)


def huber(prediction: Images, noise: Images) -> Images:
    """½ (ε̂ - ε)² up to |ε̂ - ε| = 1, then |ε̂ - ε| - ½ (Huber 1964)."""
    return optax.huber_loss(prediction, noise)


def losses(
    denoise: diffusion.Denoise,
    schedule: diffusion.Schedule,
    keys: Key,
    images: ArrayLike,
    objective: diffusion.Objective,
    u: ArrayLike | None = None,
) -> Float[Array, " b"]:
    """The objective of each image at one time, by default a random one (Ho et al. 2020, Algorithm 1).

    Args:
      denoise: ``(x_t, t) -> ε``, or a ``Prediction``.
      schedule: of T steps.
      keys: one per image [b].
      images: x_0.
      objective: of ``diffusion.objectives``.
      u: in [0, 1], of the times among all T; 1 counts as the last.

    Raises:
      ValueError: no images, or images that are not of floating point or not finite; or places outside [0, 1].
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
    guess = diffusion.to_prediction(schedule, denoise(x_t, t), x_t, t)
    return objective(schedule, guess, diffusion.Prediction(images, noise), x_t, t)


def build(
    network: nn.Module,
    schedule: diffusion.Schedule,
    shape: tuple[int, int, int],
    *,
    objective: diffusion.Objective | None = None,
    to_prediction: diffusion.ToPrediction = diffusion.from_noise,
    sampler: Callable[[diffusion.Denoise, diffusion.Schedule], diffusion.Sample] = diffusion.ancestral,
    num_classes: int = 0,
    p_uncond: float = 0.1,
    guide: Guide | None = None,
) -> DDPM:
    """The model.

    Args:
      network: ``network(x_t, t) -> output``; one with dropout also takes ``keys``, one per image, and drops only where
        it gets them.
      schedule: of T steps.
      shape: (h, w, c) of an image.
      objective: what the loss averages; by default ``simple(l2)``, the paper's.
      to_prediction: what the output is: the noise, the image, v; see ``diffusion.predictions``.
      sampler: ``(denoise, schedule) -> sample``, as ``functools.partial(diffusion.ddim, num_steps=50)``.
      num_classes: of the ``label`` of a batch, which the network then takes as ``labels``; 0 for a model without.
      p_uncond: share of the labels that training replaces by none, so that one network learns both (Ho & Salimans
        2022, Algorithm 1).
      guide: mixes what the network says with and without labels, where labels are asked for; as
        ``functools.partial(diffusion.classifier_free_batched, guidance_scale=2.0)``.

    Raises:
      ValueError: the network does not take images of this shape, or does not return them, or says the noise where the
        schedule leaves nothing of the image; or classes, guidance, label dropout or a sampler that cannot be.

    Warns:
      diffusion.StartWarning: the sampler begins where x_t is not yet noise.
    """
    checks.count("num_classes", num_classes, 0)
    if guide and not num_classes:
        raise ValueError("guide: expected a model conditional on labels; give num_classes, or leave guide out")
    if not 0 <= p_uncond <= 1:
        raise ValueError(f"p_uncond: expected a share from 0 to 1, got {p_uncond:g}")
    drops = contracts.takes_keys(network)
    wanted = objective or diffusion.simple(l2)

    def apply(params: Params, labels: ArrayLike | None, keys: Key | None, guide: Guide | None):
        extra: dict[str, Any] = {"keys": keys} if drops else {}
        call = lambda x_t, t, **more: jnp.asarray(network.apply({"params": params}, x_t, t, **extra, **more))
        if not num_classes:
            return call
        with_labels = lambda x_t, t, labels: call(x_t, t, labels=labels)
        if guide and labels is not None:
            return guide(with_labels, jnp.asarray(labels), num_classes)
        return lambda x_t, t: with_labels(x_t, t, labels)

    def denoiser(
        params: Params, labels: ArrayLike | None = None, keys: Key | None = None, guide: Guide | None = guide
    ) -> diffusion.Predict:
        if labels is not None:
            checks.labels("labels", labels, num_classes, none=keys is not None)
        said = apply(params, labels, keys, guide)
        return lambda x_t, t: to_prediction(schedule, said(x_t, t), x_t, t)

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32))["params"]

    def each(key: Key, params: Params, batch: Batch) -> Float[Array, " b"]:
        images = checks.batch("image", batch["image"])
        loss_keys, dropout_keys = random.split(random.example_keys(key, images.shape[0]), 2)
        labels = None
        if num_classes:
            checks.labels("label", batch["label"], num_classes, len(images), none=True)
            hidden = jax.vmap(lambda k: jax.random.bernoulli(jax.random.fold_in(k, 1), p_uncond))(dropout_keys)
            labels = jnp.where(hidden, num_classes, batch["label"])
        return losses(
            denoiser(params, labels, dropout_keys, None), schedule, loss_keys, images, wanted, batch.get("time")
        )

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        return each(key, params, batch).mean(), {}

    def sample(key: Key, params: Params, num: int, keep: Sequence[int] | None = None, labels: ArrayLike | None = None):
        checks.count("num", num, 0)
        if labels is not None:
            checks.labels("labels", labels, num_classes, num)
        start_keys, chain_keys = random.split(random.example_keys(key, num), 2)
        return sampler(denoiser(params, labels), schedule)(chain_keys, random.normal(start_keys, shape), keep)

    def seen(key: Key, labels: Labels | None = None) -> Images:
        return denoiser(init(key), labels)(jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32)).x0

    contracts.check_output(seen, shape)
    if guide:
        contracts.check_output(functools.partial(seen, labels=jnp.zeros(1, jnp.int32)), shape)
    sampler(lambda x_t, t: x_t, schedule)  # what it refuses, it refuses here
    return DDPM(init, loss, each, denoiser, sample)


def loss_aware(model: DDPM, num_steps: int, *, floor: float = 1e-3) -> DDPM:
    """Times drawn in proportion to √E[L²|t], which has the least variance; weights keep the mean of the loss.

    Importance sampling of Nichol & Dhariwal 2021, §3.3. The table of E[L²|t] is a parameter beside the network's, which
    ``optimizer`` gives gradient descent on ½ (L² - m_t)²: a running average without state of its own.

    Args:
      model: of ``build``.
      num_steps: T.
      floor: share of the times that are drawn uniformly.

    Raises:
      ValueError: ``num_steps`` < 1, or ``floor`` outside (0, 1].
    """
    checks.count("num_steps", num_steps)
    if not 0 < floor <= 1:
        raise ValueError(f"floor: expected a share in (0, 1], got {floor:g}")

    def init(key: Key) -> Params:
        return statistics.mark({"network": model.init(key), "squares": jnp.ones(num_steps)}, SQUARES)

    def weighed(key: Key, params: Params, batch: Batch):
        keys = random.example_keys(key, batch["image"].shape[0])
        time_keys, rest = random.split(keys, 2)
        share = jnp.sqrt(jax.lax.stop_gradient(params["squares"]))
        share = (1 - floor) * share / share.sum() + floor / num_steps
        u = batch["time"] if "time" in batch else jax.vmap(jax.random.uniform)(time_keys)
        t = jnp.minimum(jnp.searchsorted(jnp.cumsum(share), u, side="right"), num_steps - 1)
        found = model.losses(rest, params["network"], {**batch, "time": (t + 0.5) / num_steps})
        squares = params["squares"][t]
        known = 0.5 * (squares - jax.lax.stop_gradient(found**2)) ** 2
        return found / (num_steps * share[t]), known * num_steps

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        found, known = weighed(key, params, batch)
        return found.mean() + (known - jax.lax.stop_gradient(known)).mean(), {}

    return DDPM(
        init,
        loss,
        lambda key, params, batch: weighed(key, params, batch)[0],
        lambda params, labels=None: model.denoise(params["network"], labels),
        lambda key, params, num, keep=None, labels=None: model.sample(key, params["network"], num, keep, labels),
    )


def optimizer(inner: optax.GradientTransformation, rate: float = 0.01) -> optax.GradientTransformation:
    """``inner`` for the network of a ``loss_aware`` model, gradient descent of that rate for its table.

    Raises:
      ValueError: a rate that is not positive and finite.
    """
    checks.positive("rate", rate)
    return statistics.optimizer({"network": inner}, lambda path: "network", rate=rate)


SQUARES: dict[statistics.Path, float] = {("squares",): 0.01}
"""Where a ``loss_aware`` model has its running averages, and their rate."""
