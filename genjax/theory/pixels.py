"""Distributions of pixels given the outputs of a network: what turns an image into nats.

A likelihood says how many outputs it wants for each channel of the image, and with them gives log p(image), the mean
image, and draws. Images are in [-1, 1] as everywhere; log-probabilities are sums over an image.

The squared error is one of these: -log N(x; μ, σ²) = (x - μ)² / 2σ² + log σ + ½ log 2π, so minimising the mean squared
error over h·w·c pixels is maximum likelihood of a Gaussian of fixed σ, and σ² = MSE is its best value.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from genjax import random
from genjax.theory import gaussian as normal
from genjax.theory import information, simplex
from genjax.types import Images, Key, Scalar

Outputs = Float[Array, "b h w m"]
"""Of a network, for each pixel: m = ``num_outputs(c)`` for the c channels of the image."""


class Likelihood(NamedTuple):
    """A distribution of images given the outputs of a network.

    Fields:
      num_outputs: ``(c) -> m``: outputs wanted for each pixel of c channels.
      log_prob: ``(outputs, images) -> [b]``, nats; a density for continuous pixels, a probability for discrete ones.
      mean: ``(outputs) -> images``.
      sample: ``(key, outputs) -> images``; a key, or one for each image (see ``genjax.random``).
      num_levels: how many values a pixel can take: 2, 256, ...; 0 where it is continuous, and for those only
        differences of nats mean something.
      temper: ``(outputs, temperature) -> outputs`` of the distribution raised to the power 1 / temperature, or for
        logistics with its scales times the temperature.
      joint: whether the channels of a pixel depend on each other; if not, output i is of channel i mod c.
    """

    num_outputs: Callable[[int], int]
    log_prob: Callable[[Outputs, Images], Float[Array, " b"]]
    mean: Callable[[Outputs], Images]
    sample: Callable[[Key, Outputs], Images]
    num_levels: int
    temper: Callable[[Outputs, float | Scalar], Outputs]
    joint: bool = False


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
    return Likelihood(lambda c: c, log_prob, lambda logits: 2 * jax.nn.sigmoid(logits) - 1, sample, 2, temper)


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
    return Likelihood(lambda c: c, log_prob, lambda mean: mean, sample, 0, lambda mean, temperature: mean)


def discretized_logistic(num_levels: int = 256) -> Likelihood:
    """A logistic distribution, integrated over the bin of each level (Kingma et al. 2016; Salimans et al. 2017).

    p(x) = σ((x + δ - μ) / s) - σ((x - δ - μ) / s), δ = 1 / (levels - 1); the outermost bins reach to ±∞. Two outputs
    for each channel: all the μ, then all the log s. In log space, σ(a) - σ(b) = σ(a) σ(-b) (1 - e^{b - a}) has no
    cancellation and needs no clamp. Pixels are taken to the nearest level.

    Raises:
      ValueError: fewer than 2 levels.
    """
    _check_levels(num_levels)
    half = 1 / (num_levels - 1)

    def log_prob(outputs: Outputs, images: Images) -> Float[Array, " b"]:
        _check(images)
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return _per_image(logistic_bin(_round(images, num_levels), mean, log_scale, half))

    def sample(key: Key, outputs: Outputs) -> Images:
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        draw = lambda key: jax.random.logistic(key, mean.shape[1:], mean.dtype)
        noise = jax.vmap(draw)(random.per_example(key, mean.shape[0]))
        return _round(mean + jnp.exp(log_scale) * noise, num_levels)

    mean = lambda outputs: jnp.clip(jnp.split(outputs, 2, axis=-1)[0], -1, 1)

    def temper(outputs: Outputs, temperature: float | Scalar) -> Outputs:
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return jnp.concatenate([mean, log_scale + jnp.log(temperature)], -1)

    return Likelihood(lambda c: 2 * c, log_prob, mean, sample, num_levels, temper)


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
        level = to_level(images, num_levels)
        all_levels = jax.nn.log_softmax(logits(outputs), -2)
        return _per_image(jnp.take_along_axis(all_levels, level[..., None, :], -2)[..., 0, :])

    def mean(outputs: Outputs) -> Images:
        levels = jnp.linspace(-1, 1, num_levels, dtype=outputs.dtype)
        return jnp.einsum("...kc,k->...c", jax.nn.softmax(logits(outputs), -2), levels)

    def sample(key: Key, outputs: Outputs) -> Images:
        draw = lambda key, one: jax.random.categorical(key, one, -2)
        level = jax.vmap(draw)(random.per_example(key, outputs.shape[0]), logits(outputs))
        return from_level(level, num_levels).astype(outputs.dtype)

    temper = lambda outputs, temperature: outputs / temperature
    return Likelihood(lambda c: num_levels * c, log_prob, mean, sample, num_levels, temper)


def mixture_of_logistics(num_components: int = 10, num_levels: int = 256) -> Likelihood:
    """Discretised logistics, mixed, with channels that depend on those before (PixelCNN++, Salimans et al. 2017, §2).

    p(x) = Σ_k π_k Π_j bin(x_j; μ_kj + Σ_{i<j} a_kji x_i, s_kj), with the bins of ``discretized_logistic`` and all of it
    in log space. Outputs, K of each: logits of π, then μ, log s and the atanh of a (for c channels c, c, c(c-1)/2).

    Raises:
      ValueError: no component, or fewer than 2 levels.
    """
    _check_levels(num_levels)
    if num_components < 1:
        raise ValueError(f"num_components: expected at least 1, got {num_components}")
    half = 1 / (num_levels - 1)
    num_outputs = lambda c: num_components * (1 + 2 * c + c * (c - 1) // 2)

    def split(outputs: Outputs, c: int):
        """Logits [... k], means [... c k], log-scales [... c k], coefficients [... c c k] below the diagonal."""
        logits, rest = outputs[..., :num_components], outputs[..., num_components:]
        mean, log_scale, flat = jnp.split(rest.reshape(*rest.shape[:-1], -1, num_components), (c, 2 * c), -2)
        lower = jnp.zeros((*mean.shape[:-2], c, c, num_components), outputs.dtype)
        return logits, mean, log_scale, lower.at[..., *np.tril_indices(c, -1), :].set(jnp.tanh(flat))

    def channels(outputs: Outputs) -> int:
        return next(c for c in itertools.count(1) if num_outputs(c) >= outputs.shape[-1])

    def log_prob(outputs: Outputs, images: Images) -> Float[Array, " b"]:
        _check(images)
        images = _round(images, num_levels)
        logits, mean, log_scale, lower = split(outputs, images.shape[-1])
        mean = mean + jnp.einsum("...jik,...i->...jk", lower, images)
        each = jnp.sum(logistic_bin(images[..., None], mean, log_scale, half), -2)
        return jnp.sum(jax.nn.logsumexp(jax.nn.log_softmax(logits) + each, -1), (-2, -1))

    def sample(key: Key, outputs: Outputs) -> Images:
        def draw(key: Key, one):
            which, noise = jax.random.split(key)
            logits, *rest = one
            chosen = jax.nn.one_hot(jax.random.categorical(which, logits), num_components, dtype=logits.dtype)
            mean, log_scale, lower = (jnp.einsum("hw...k,hwk->hw...", part, chosen) for part in rest)
            noise = jnp.exp(log_scale) * jax.random.logistic(noise, mean.shape, mean.dtype)
            x = jnp.zeros_like(mean)
            for j in range(mean.shape[-1]):
                shifted = mean[..., j] + jnp.sum(lower[..., j, :] * x, -1)
                x = x.at[..., j].set(_round(shifted + noise[..., j], num_levels))
            return x

        return jax.vmap(draw)(random.per_example(key, outputs.shape[0]), split(outputs, channels(outputs)))

    def mean(outputs: Outputs) -> Images:
        logits, mean, _, lower = split(outputs, c := channels(outputs))
        found: list[jax.Array] = []
        for j in range(c):
            found.append(mean[..., j, :] + sum(lower[..., j, i, :] * before for i, before in enumerate(found)))
        mixed = jnp.sum(jnp.stack(found, -2) * jax.nn.softmax(logits)[..., None, :], -1)
        return jnp.clip(mixed, -1, 1)

    def temper(outputs: Outputs, temperature: float | Scalar) -> Outputs:
        c = channels(outputs)
        ends = (num_components, num_components * (1 + c), num_components * (1 + 2 * c))
        logits, mean, log_scale, rest = jnp.split(outputs, ends, -1)
        return jnp.concatenate([logits / temperature, mean, log_scale + jnp.log(temperature), rest], -1)

    return Likelihood(num_outputs, log_prob, mean, sample, num_levels, temper, joint=True)


def to_level(images: Float[Array, "*shape"], num_levels: int) -> Int[Array, "*shape"]:
    """The nearest of the levels 0, ..., num_levels - 1 that stand evenly in [-1, 1]."""
    return jnp.round((images + 1) / 2 * (num_levels - 1)).astype(jnp.int32)


def from_level(level: Integer[Array, "*shape"], num_levels: int) -> Float[Array, "*shape"]:
    """Where a level stands in [-1, 1]."""
    return jnp.asarray(level, jnp.float32) / (num_levels - 1) * 2 - 1


def check_levels(images: Images, num_levels: int) -> None:
    """Refuse images, outside ``jit``, whose pixels are not among the levels; of bytes, as near as bytes come.

    Raises:
      ValueError: how many are not.
    """
    if not num_levels or not simplex.known(images):
        return
    exact = (np.asarray(images, np.float64) + 1) / 2 * (num_levels - 1)
    tolerance = min(0.5 * (num_levels - 1) / 255, 0.25) + 1e-3
    if wrong := int(np.sum(np.abs(exact - np.rint(exact)) > tolerance)):
        raise ValueError(
            f"images: expected pixels at {num_levels} levels between -1 and 1, evenly spaced; {wrong} of {exact.size} "
            "are elsewhere: bring them to the levels, or take a likelihood with those of the images"
        )


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


def _round(x: Float[Array, "*shape"], num_levels: int) -> Float[Array, "*shape"]:
    """To the nearest level."""
    unit = 2 / (num_levels - 1)
    return jnp.clip(jnp.round((x + 1) / unit) * unit - 1, -1, 1)


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
