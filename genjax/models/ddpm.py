"""Denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv:2006.11239).

Assumes images in [-1, 1], a fixed variance schedule, and a network that predicts the noise in x_t.
Loss: L_simple = E_{t, ε} distance(ε_θ(√ᾱ_t x_0 + √(1 - ᾱ_t) ε, t), ε), t uniform (eq. 14; squared in the paper).
"""

import inspect
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from genjax import diffusion, random
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

Distance = Callable[[Images, Images], Images]
"""An error of a prediction against its target, element by element."""


@runtime_checkable
class DrawImages(Protocol):
    """``sample(key, params, num) -> images``."""

    def __call__(self, key: Key, params: Params, num: int, keep: Sequence[int] | None = None):
        """Draw images in [-1, 1]; image i depends on (key, i) only. ``keep`` is as in ``diffusion.samplers.Sample``."""
        ...


class DDPM(NamedTuple):
    """The model as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, {"image": Float[b h w c]}) -> (loss, {})``.
      sample: ``(key, params, num) -> images [num h w c]``.
    """

    init: Callable[[Key], Params]
    loss: Loss
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


def simple_loss(
    denoise: diffusion.Denoise, schedule: diffusion.Schedule, keys: Key, images: Images, distance: Distance
) -> Float[Array, " b"]:
    """L_simple of each image: the distance of the predicted noise from the noise, at one random time (eq. 14).

    Args:
      denoise: ``(x_t, t) -> ε``.
      schedule: of T steps.
      keys: one per image [b].
      images: x_0.
      distance: ``l1``, ``l2``, ``huber`` or any other.
    """
    time_keys, noise_keys = random.split(keys, 2)
    t = jax.vmap(lambda key: jax.random.randint(key, (), 0, schedule.num_steps))(time_keys)
    noise = random.normal(noise_keys, images.shape[1:], images.dtype)
    error = distance(denoise(diffusion.diffuse(schedule, images, t, noise), t), noise)
    return error.mean(axis=tuple(range(1, error.ndim)))


def build(
    network: nn.Module,
    schedule: diffusion.Schedule,
    shape: tuple[int, int, int],
    *,
    distance: Distance = l2,
    sampler: Callable[[diffusion.Denoise, diffusion.Schedule], diffusion.Sample] = diffusion.ancestral,
) -> DDPM:
    """The model.

    Args:
      network: ``network(x_t, t) -> ε``; one with dropout also takes ``keys``, one per image, and drops only where it
        gets them.
      schedule: of T steps.
      shape: (h, w, c) of an image.
      distance: what the loss averages.
      sampler: ``(denoise, schedule) -> sample``, as ``functools.partial(diffusion.ddim, num_steps=50)``.

    Raises:
      ValueError: the network does not take images of this shape, or does not return them.
    """
    drops = "keys" in inspect.signature(type(network).__call__).parameters

    def denoiser(params: Params, keys: Key | None = None) -> diffusion.Denoise:
        extra = (keys,) if drops else ()
        return lambda x_t, t: jnp.asarray(network.apply({"params": params}, x_t, t, *extra))

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32))["params"]

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        images = batch["image"]
        loss_keys, dropout_keys = random.split(random.per_example(key, images.shape[0]), 2)
        return simple_loss(denoiser(params, dropout_keys), schedule, loss_keys, images, distance).mean(), {}

    def sample(key: Key, params: Params, num: int, keep: Sequence[int] | None = None):
        start_keys, chain_keys = random.split(random.per_example(key, num), 2)
        return sampler(denoiser(params), schedule)(chain_keys, random.normal(start_keys, shape), keep)

    out = jax.eval_shape(lambda key: denoiser(init(key))(jnp.zeros((1, *shape)), jnp.zeros((1,), jnp.int32)), _KEY)
    if out.shape != (1, *shape):
        raise ValueError(f"network: expected a prediction of shape {shape}, like the images; got {out.shape[1:]}")
    return DDPM(init, loss, sample)


_KEY = jax.eval_shape(lambda: jax.random.key(0))
