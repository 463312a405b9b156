"""Distributions of pixels given the outputs of a network: what turns an image into nats.

A likelihood says how many outputs it wants for each channel of the image, and with them gives log p(image), the mean
image, and draws. Images are in [-1, 1] as everywhere; log-probabilities are sums over an image.

The squared error is one of these: -log N(x; μ, σ²) = (x - μ)² / 2σ² + log σ + ½ log 2π, so minimising the mean squared
error over h·w·c pixels is maximum likelihood of a Gaussian of fixed σ, and σ² = MSE is its best value.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import random
from genjax.theory import gaussian as normal
from genjax.theory import information, simplex
from genjax.types import Images, Key, Scalar

Outputs = Float[Array, "b h w m"]
"""Of a network: ``num_outputs`` for each channel of the image, m = c · num_outputs."""


class Likelihood(NamedTuple):
    """A distribution of images given the outputs of a network.

    Fields:
      num_outputs: outputs wanted for each channel.
      log_prob: ``(outputs, images) -> [b]``, nats; a density for continuous pixels, a probability for discrete ones.
      mean: ``(outputs) -> images``.
      sample: ``(key, outputs) -> images``; a key, or one for each image (see ``genjax.random``).
      num_levels: how many values a pixel can take: 2, 256, ...; 0 where it is continuous, and for those only
        differences of nats mean something.
      temper: ``(outputs, temperature) -> outputs`` of the distribution raised to the power 1 / temperature, or for
        logistics with its scales times the temperature.
    """

    num_outputs: int
    log_prob: Callable[[Outputs, Images], Float[Array, " b"]]
    mean: Callable[[Outputs], Images]
    sample: Callable[[Key, Outputs], Images]
    num_levels: int
    temper: Callable[[Outputs, float | Scalar], Outputs]


def bernoulli() -> Likelihood:
    """Pixels -1 and 1, with one logit l each: p(1) = σ(l).

    For grey pixels ``log_prob`` is minus the cross-entropy of the notes' VAE, which is no likelihood of the image.
    """

    def log_prob(logits: Outputs, images: Images) -> Float[Array, " b"]:
        _check(images)
        return -_per_image(information.binary_cross_entropy((images + 1) / 2, logits))

    def sample(key: Key, logits: Outputs) -> Images:
        draw = lambda key, logit: jnp.where(jax.random.bernoulli(key, jax.nn.sigmoid(logit)), 1.0, -1.0)
        return jax.vmap(draw)(random.per_example(key, logits.shape[0]), logits)

    temper = lambda logits, temperature: logits / temperature
    return Likelihood(1, log_prob, lambda logits: 2 * jax.nn.sigmoid(logits) - 1, sample, 2, temper)


def gaussian(std: float | Scalar) -> Likelihood:
    """Continuous pixels N(μ, σ²) of a fixed σ, in the units of [-1, 1]: the squared error as a likelihood.

    Raises:
      ValueError: ``std`` is not positive.
    """
    if simplex.known(std) and not std > 0:
        raise ValueError(f"std: expected a positive standard deviation, got {std}")
    distribution = lambda mean: normal.DiagGaussian(mean, jnp.full_like(mean, jnp.log(std)))

    def log_prob(mean: Outputs, images: Images) -> Float[Array, " b"]:
        _check(images)
        return jnp.sum(normal.log_prob(distribution(mean), images), (-2, -1))

    sample = lambda key, mean: normal.sample(key, distribution(mean))
    return Likelihood(1, log_prob, lambda mean: mean, sample, 0, lambda mean, temperature: mean)


def discretized_logistic(num_levels: int = 256) -> Likelihood:
    """A logistic distribution, integrated over the bin of each level (Kingma et al. 2016; Salimans et al. 2017).

    p(x) = σ((x + δ - μ) / s) - σ((x - δ - μ) / s), δ = 1 / (levels - 1); the outermost bins reach to ±∞. Two outputs
    for each channel: all the μ, then all the log s. In log space, σ(a) - σ(b) = σ(a) σ(-b) (1 - e^{b - a}) has no
    cancellation and needs no clamp.

    Raises:
      ValueError: fewer than 2 levels.
    """
    _check_levels(num_levels)
    half = 1 / (num_levels - 1)

    def log_prob(outputs: Outputs, images: Images) -> Float[Array, " b"]:
        _check(images)
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return _per_image(logistic_bin(images, mean, log_scale, half))

    def sample(key: Key, outputs: Outputs) -> Images:
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        draw = lambda key: jax.random.logistic(key, mean.shape[1:], mean.dtype)
        noise = jax.vmap(draw)(random.per_example(key, mean.shape[0]))
        level = jnp.round((mean + jnp.exp(log_scale) * noise + 1) / (2 * half))
        return jnp.clip(level * 2 * half - 1, -1, 1)

    mean = lambda outputs: jnp.clip(jnp.split(outputs, 2, axis=-1)[0], -1, 1)

    def temper(outputs: Outputs, temperature: float | Scalar) -> Outputs:
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return jnp.concatenate([mean, log_scale + jnp.log(temperature)], -1)

    return Likelihood(2, log_prob, mean, sample, num_levels, temper)


def categorical(num_levels: int = 256) -> Likelihood:
    """Any distribution over the levels, with a logit for each (van den Oord et al. 2016a, §3.5).

    The outputs are the logits of level 0 of all channels, then of level 1, and so on.

    Raises:
      ValueError: fewer than 2 levels.
    """
    _check_levels(num_levels)
    logits = lambda outputs: outputs.reshape(*outputs.shape[:-1], num_levels, -1)

    def log_prob(outputs: Outputs, images: Images) -> Float[Array, " b"]:
        _check(images)
        level = jnp.round((images + 1) / 2 * (num_levels - 1)).astype(jnp.int32)
        all_levels = jax.nn.log_softmax(logits(outputs), -2)
        return _per_image(jnp.take_along_axis(all_levels, level[..., None, :], -2)[..., 0, :])

    def mean(outputs: Outputs) -> Images:
        levels = jnp.linspace(-1, 1, num_levels, dtype=outputs.dtype)
        return jnp.einsum("...kc,k->...c", jax.nn.softmax(logits(outputs), -2), levels)

    def sample(key: Key, outputs: Outputs) -> Images:
        draw = lambda key, one: jax.random.categorical(key, one, -2)
        level = jax.vmap(draw)(random.per_example(key, outputs.shape[0]), logits(outputs))
        return (level / (num_levels - 1) * 2 - 1).astype(outputs.dtype)

    temper = lambda outputs, temperature: outputs / temperature
    return Likelihood(num_levels, log_prob, mean, sample, num_levels, temper)


def logistic_bin(
    x: Float[Array, "..."], mean: Float[Array, "..."], log_scale: Float[Array, "..."], half: float
) -> Float[Array, "..."]:
    """log of the logistic's mass in (x - half, x + half); of the open side where x is -1 or 1."""
    inverse = jnp.exp(-log_scale)
    upper, lower = (x + half - mean) * inverse, (x - half - mean) * inverse
    width = 2 * half * inverse
    inner = jax.nn.log_sigmoid(upper) + jax.nn.log_sigmoid(-lower) + _log_one_minus_exp(width)
    outer = jnp.where(x < 0, jax.nn.log_sigmoid(upper), jax.nn.log_sigmoid(-lower))
    return jnp.where(jnp.abs(x) > 1 - half, outer, inner)


def bits_per_dim(nats: Float[Array, "..."], shape: tuple[int, int, int]) -> Float[Array, "..."]:
    """Nats of an image of shape (h, w, c) to bits for each of its h·w·c numbers."""
    return information.bits_per_dim(nats, math.prod(shape))


def _log_one_minus_exp(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(1 - e^{-x}) for x > 0, to full precision at both ends (Mächler 2012)."""
    near = x < math.log(2)
    small, large = jnp.where(near, x, 1), jnp.where(near, 1, x)
    return jnp.where(near, jnp.log(-jnp.expm1(-small)), jnp.log1p(-jnp.exp(-large)))


def _check_levels(num_levels: int) -> None:
    if num_levels < 2:
        raise ValueError(f"num_levels: expected at least 2, got {num_levels}")


def _per_image(values: Images) -> Float[Array, " b"]:
    return jnp.sum(values, (-3, -2, -1))


def _check(images: Images) -> None:
    if not simplex.known(images):
        return
    low, high = np.min(np.asarray(images), initial=0), np.max(np.asarray(images), initial=0)
    if not -1 <= low <= high <= 1:
        raise ValueError(
            f"images: expected pixels in [-1, 1], got {low:g} to {high:g}; genjax.data.scale brings bytes there"
        )
