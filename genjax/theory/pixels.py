"""Likelihoods of images: distributions of pixels given the outputs of a network.

A likelihood fixes the number of outputs for each channel of an image. From the outputs it computes log p(image), the
mean image, and draws. Images are in [-1, 1]; log-probabilities are sums over an image.

The squared error is a likelihood: -log N(x; μ, σ²) = (x - μ)² / 2σ² + log σ + ½ log 2π, so minimising the mean squared
error over h·w·c pixels is maximum likelihood of a Gaussian of fixed σ, and the best σ² is the mean squared error.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks, random
from genjax.theory import gaussian as normal
from genjax.theory import information, levels
from genjax.theory.levels import check_levels as check_levels
from genjax.theory.levels import from_level, logistic_bin, to_level
from genjax.types import Images, Key

Outputs = Any
"""Outputs of a network for each pixel [b h w m], m = ``num_outputs(c)`` for c channels; or the result of ``temper``."""


class Likelihood(NamedTuple):
    """A distribution of images given the outputs of a network.

    Attributes:
      num_outputs: ``(c) -> m``, the number of outputs for each pixel of c channels.
      log_prob: ``(outputs, images) -> [b]``, nats; a density for continuous pixels, a probability for discrete ones.
      mean: ``(outputs) -> images``, the mean of the distribution over the levels. If ``joint``, the mean of a channel
        is taken given the means of the channels before it.
      sample: ``(key, outputs) -> images``, with one key, or one key for each image (see ``genjax.random``).
      num_levels: number of values of a pixel: 2, 256, ...; 0 for continuous pixels, for which only differences of nats
        have a meaning.
      temper: ``(outputs, temperature) -> outputs`` of the distribution raised to the power 1 / temperature; for
        logistics, the scales are multiplied by the temperature. Must be positive; towards 0 draws become modes.
      joint: True where the channels of a pixel depend on each other; otherwise output i is of channel i mod c.
    """

    num_outputs: Callable[[int], int]
    log_prob: Callable[[Outputs, Images], Float[Array, " b"]]
    mean: Callable[[Outputs], Images]
    sample: Callable[[Key, Outputs], Images]
    num_levels: int
    temper: Callable[[Outputs, Any], Outputs]
    joint: bool = False


def bernoulli() -> Likelihood:
    """Binary pixels -1 and 1, with one logit l each: p(1) = σ(l).

    For grey pixels ``log_prob`` is minus the cross-entropy of the lecture notes' VAE, which is no likelihood.
    """

    def log_prob(logits: Outputs, images: Any) -> Float[Array, " b"]:
        _check(images, logits, lambda c: c)
        return -_per_image(information.binary_cross_entropy((images + 1) / 2, logits))

    def sample(key: Key, logits: Outputs) -> Images:
        draw = lambda key, logit: jnp.where(jax.random.bernoulli(key, jax.nn.sigmoid(logit)), 1.0, -1.0)
        return jax.vmap(draw)(random.example_keys(key, logits.shape[0]), logits)

    def temper(logits: Outputs, temperature: Any) -> Outputs:
        temperature = _positive(temperature)
        largest = jnp.finfo(logits.dtype).max
        return jnp.clip(logits / temperature, -largest, largest)

    return Likelihood(lambda c: c, log_prob, lambda logits: jnp.tanh(logits / 2), sample, 2, temper)


def gaussian(std: Any) -> Likelihood:
    """Continuous pixels N(μ, σ²) of a fixed σ, in the units of [-1, 1]: the squared error as a likelihood.

    ``temper`` returns a ``DiagGaussian`` of standard deviation σ √temperature, which the other functions take as
    outputs.

    Raises:
      ValueError: ``std`` is not positive and finite.
    """
    if checks.is_concrete(std) and not 0 < float(std) < math.inf:
        raise ValueError(f"std: expected a positive standard deviation, got {std}")

    def distribution(outputs: Outputs) -> normal.DiagGaussian:
        if isinstance(outputs, normal.DiagGaussian):
            return outputs
        checks.floating("outputs", outputs)
        return normal.DiagGaussian(outputs, jnp.full_like(outputs, jnp.log(std)))

    def log_prob(outputs: Outputs, images: Any) -> Float[Array, " b"]:
        _check(images, distribution(outputs).mean, lambda c: c)
        return jnp.sum(normal.log_prob(distribution(outputs), images), (-2, -1))

    def temper(outputs: Outputs, temperature: Any) -> normal.DiagGaussian:
        temperature = _positive(temperature)
        mean, log_std = distribution(outputs)
        return normal.DiagGaussian(mean, log_std + jnp.log(temperature) / 2)

    sample = lambda key, outputs: normal.sample(key, distribution(outputs))
    return Likelihood(lambda c: c, log_prob, lambda outputs: distribution(outputs).mean, sample, 0, temper)


def discretized_logistic(num_levels: int = 256) -> Likelihood:
    """A logistic distribution, integrated over the bin of each level (Kingma et al. 2016; Salimans et al. 2017).

    p(x) = σ((x + δ - μ) / s) - σ((x - δ - μ) / s), δ = 1 / (levels - 1); the outermost bins reach to ±∞. Two outputs
    for each channel: all μ, then all log s. In log space, σ(a) - σ(b) = σ(a) σ(-b) (1 - e^{b - a}) does not cancel and
    needs no clamp. Pixels are rounded to the nearest level. The mean over the levels is the mean of
    tanh((μ - e) / 2s) over the edges e between bins.

    Raises:
      ValueError: ``num_levels`` is below 2.
    """
    levels.check_num_levels(num_levels)
    half = 1 / (num_levels - 1)

    def log_prob(outputs: Outputs, images: Any) -> Float[Array, " b"]:
        _check(images, outputs, lambda c: 2 * c)
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return _per_image(logistic_bin(levels.nearest(images, num_levels), mean, log_scale, half))

    def sample(key: Key, outputs: Outputs) -> Images:
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        logistic = lambda key: jax.random.logistic(key, mean.shape[1:], mean.dtype)
        noise = jax.vmap(logistic)(random.example_keys(key, mean.shape[0]))
        return levels.nearest(mean + levels.exp(log_scale) * noise, num_levels)

    def mean(outputs: Outputs) -> Images:
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return levels.mean_level(mean, log_scale, num_levels)

    def temper(outputs: Outputs, temperature: Any) -> Outputs:
        temperature = _positive(temperature)
        mean, log_scale = jnp.split(outputs, 2, axis=-1)
        return jnp.concatenate([mean, log_scale + jnp.log(temperature)], -1)

    return Likelihood(lambda c: 2 * c, log_prob, mean, sample, num_levels, temper)


def categorical(num_levels: int = 256) -> Likelihood:
    """Any distribution over the levels, with a logit for each level (van den Oord et al. 2016a, §3.5).

    The outputs are the logits of level 0 of all channels, then of level 1, and so on.

    Raises:
      ValueError: ``num_levels`` is below 2.
    """
    levels.check_num_levels(num_levels)
    logits = lambda outputs: outputs.reshape(*outputs.shape[:-1], num_levels, -1)

    def log_prob(outputs: Outputs, images: Any) -> Float[Array, " b"]:
        _check(images, outputs, lambda c: num_levels * c)
        level = to_level(images, num_levels)
        log_p = jax.nn.log_softmax(logits(outputs), -2)
        return _per_image(jnp.take_along_axis(log_p, level[..., None, :], -2)[..., 0, :])

    def mean(outputs: Outputs) -> Images:
        values = jnp.linspace(-1, 1, num_levels, dtype=outputs.dtype)
        return jnp.einsum("...kc,k->...c", jax.nn.softmax(logits(outputs), -2), values)

    def sample(key: Key, outputs: Outputs) -> Images:
        draw = lambda key, logits: jax.random.categorical(key, logits, -2)
        level = jax.vmap(draw)(random.example_keys(key, outputs.shape[0]), logits(outputs))
        return from_level(level, num_levels).astype(outputs.dtype)

    def temper(outputs: Outputs, temperature: Any) -> Outputs:
        return _temper_logits(logits(outputs), temperature, -2).reshape(outputs.shape)

    return Likelihood(lambda c: num_levels * c, log_prob, mean, sample, num_levels, temper)


def mixture_of_logistics(num_components: int = 10, num_levels: int = 256) -> Likelihood:
    """A mixture of discretised logistics; a channel depends on those before (PixelCNN++, Salimans et al. 2017, §2).

    p(x) = Σ_k π_k Π_j bin(x_j; μ_kj + Σ_{i<j} a_kji x_i, s_kj), with the bins of ``discretized_logistic``, computed in
    log space. Outputs, K of each: logits of π, then μ, log s and the atanh of a (for c channels c, c, c(c-1)/2).

    Raises:
      ValueError: ``num_components`` is below 1, or ``num_levels`` below 2.
    """
    levels.check_num_levels(num_levels)
    if num_components < 1:
        raise ValueError(f"num_components: expected at least 1, got {num_components}")
    half = 1 / (num_levels - 1)
    num_outputs = lambda c: num_components * (1 + 2 * c + c * (c - 1) // 2)

    def split(outputs: Outputs, c: int) -> tuple[Array, Array, Array, Array]:
        """Logits [... k], means [... c k], log-scales [... c k], coefficients [... c c k] below the diagonal."""
        logits, rest = outputs[..., :num_components], outputs[..., num_components:]
        mean, log_scale, flat = jnp.split(rest.reshape(*rest.shape[:-1], -1, num_components), (c, 2 * c), -2)
        lower = jnp.zeros((*mean.shape[:-2], c, c, num_components), outputs.dtype)
        return logits, mean, log_scale, lower.at[..., *np.tril_indices(c, -1), :].set(jnp.tanh(flat))

    def channels(outputs: Outputs) -> int:
        return next(c for c in itertools.count(1) if num_outputs(c) >= outputs.shape[-1])

    def log_prob(outputs: Outputs, images: Any) -> Float[Array, " b"]:
        _check(images, outputs, num_outputs)
        images = levels.nearest(images, num_levels)
        logits, mean, log_scale, lower = split(outputs, images.shape[-1])
        mean = mean + jnp.einsum("...jik,...i->...jk", lower, images)
        log_p = jnp.sum(logistic_bin(images[..., None], mean, log_scale, half), -2)
        return jnp.sum(jax.nn.logsumexp(jax.nn.log_softmax(logits) + log_p, -1), (-2, -1))

    def sample(key: Key, outputs: Outputs) -> Images:
        def draw(key: Key, parts: tuple[Array, Array, Array, Array]) -> Float[Array, "h w c"]:
            component_key, noise_key = jax.random.split(key)
            logits, *rest = parts
            component = jax.random.categorical(component_key, logits)
            one_hot = jax.nn.one_hot(component, num_components, dtype=logits.dtype)
            mean, log_scale, lower = (jnp.einsum("hw...k,hwk->hw...", part, one_hot) for part in rest)
            noise = levels.exp(log_scale) * jax.random.logistic(noise_key, mean.shape, mean.dtype)
            x = jnp.zeros_like(mean)
            for j in range(mean.shape[-1]):
                shifted = mean[..., j] + jnp.sum(lower[..., j, :] * x, -1)
                x = x.at[..., j].set(levels.nearest(shifted + noise[..., j], num_levels))
            return x

        return jax.vmap(draw)(random.example_keys(key, outputs.shape[0]), split(outputs, channels(outputs)))

    def mean(outputs: Outputs) -> Images:
        logits, mean, log_scale, lower = split(outputs, c := channels(outputs))
        means: list[Array] = []
        for j in range(c):
            shifted = mean[..., j, :] + sum(lower[..., j, i, :] * previous for i, previous in enumerate(means))
            means.append(levels.mean_level(shifted, log_scale[..., j, :], num_levels))
        return jnp.sum(jnp.stack(means, -2) * jax.nn.softmax(logits)[..., None, :], -1)

    def temper(outputs: Outputs, temperature: Any) -> Outputs:
        temperature, c = _positive(temperature), channels(outputs)
        ends = (num_components, num_components * (1 + c), num_components * (1 + 2 * c))
        logits, mean, log_scale, rest = jnp.split(outputs, ends, -1)
        tempered = _temper_logits(logits, temperature, -1)
        return jnp.concatenate([tempered, mean, log_scale + jnp.log(temperature), rest], -1)

    return Likelihood(num_outputs, log_prob, mean, sample, num_levels, temper, joint=True)


def bits_per_dim(nats: Float[Array, "..."], shape: tuple[int, int, int]) -> Float[Array, "..."]:
    """Convert nats of an image of shape (h, w, c) to bits for each of its h·w·c numbers."""
    return information.bits_per_dim(nats, math.prod(shape))


def _temper_logits(logits: Float[Array, "..."], temperature: Any, axis: int) -> Float[Array, "..."]:
    """Logits divided by the temperature, shifted so that the largest is 0, all finite."""
    temperature = _positive(temperature)
    shifted = logits - jnp.max(logits, axis, keepdims=True)
    return jnp.maximum(shifted / temperature, jnp.finfo(logits.dtype).min)


def _positive(temperature: Any) -> Any:
    checks.positive("temperature", temperature)
    return jnp.maximum(temperature, jnp.finfo(jnp.float32).tiny)  # smaller numbers count as 0 on most machines


def _per_image(values: Images) -> Float[Array, " b"]:
    return jnp.sum(values, (-3, -2, -1))


def _check(images: Any, outputs: Any, num_outputs: Callable[[int], int]) -> None:
    checks.floating("images", images, "genjax.data.scale makes them of bytes")
    checks.floating("outputs", outputs)
    if jnp.ndim(images) != 4 or outputs.shape != (expected := (*images.shape[:3], num_outputs(images.shape[3]))):
        of_outputs = f" of outputs {expected}" if jnp.ndim(images) == 4 else ""
        raise ValueError(f"images: expected [b h w c]{of_outputs}; got {images.shape} and outputs {outputs.shape}")
    if not checks.is_concrete(images):
        return
    low, high = np.min(np.asarray(images), initial=0), np.max(np.asarray(images), initial=0)
    if not -1 <= low <= high <= 1:
        raise ValueError(
            f"images: expected pixels in [-1, 1], got {low:g} to {high:g}; genjax.data.scale brings bytes there"
        )
