"""Guidance: denoisers made of denoisers; and the thresholding that strong guidance needs.

Guidance mixes the outputs of a network. The mixture is converted to a prediction afterwards.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from genjax import checks
from genjax.diffusion.samplers import Times
from genjax.diffusion.schedules import root
from genjax.types import Scalar

Arrays = Float[Array, "b ..."]
Network = Callable[[Arrays, Times], Arrays]
"""``(x_t, t) -> output``: ε, or any other prediction; guidance treats all alike."""

Interval = tuple[float | int, float | int]
EVERYWHERE = (-float("inf"), float("inf"))


def classifier_free(
    conditional: Network,
    unconditional: Network,
    guidance_scale: float | Scalar,
    interval: Interval = EVERYWHERE,
    rescale: float = 0.0,
    channels: int | None = None,
) -> Network:
    """Guide without a classifier: ε = ε_u + w (ε_c - ε_u), two evaluations a step.

    Ho & Salimans 2022, eq. 6, whose guidance weight is w - 1.

    Args:
      conditional: ``(x_t, t) -> ε_c``.
      unconditional: ``(x_t, t) -> ε_u``.
      guidance_scale: w. 0 is unconditional, 1 conditional, above 1 guided, below 0 led away from the condition.
      interval: times with guidance, both ends included; w = 1 elsewhere (Kynkäänniemi et al. 2024, eq. 5).
      rescale: φ in [0, 1], the share of the standard deviation of ε_c that ε takes back (Lin et al. 2024, eq. 15-16).
      channels: number of output channels that are mixed, all by default. The other channels, such as a learned
        variance, are those of the conditional network (Peebles & Xie 2023).

    Raises:
      ValueError: ``guidance_scale`` is not finite, ``rescale`` is outside [0, 1], the interval ends before it begins,
        or ``channels`` is below 1 or above the number of output channels.
    """
    mix = _mixer(guidance_scale, interval, rescale, channels)

    def guided(x: Array, t: Times) -> Array:
        checks.floating("x_t", x)
        return mix(conditional(x, t), unconditional(x, t), t)

    return guided


def classifier_free_batched(
    network: Callable[[Arrays, Times, Int[Array, " b"]], Arrays],
    labels: ArrayLike,
    null: int,
    guidance_scale: float | Scalar,
    interval: Interval = EVERYWHERE,
    rescale: float = 0.0,
    channels: int | None = None,
) -> Network:
    """Guide as ``classifier_free`` does, in one call of the network on 2b images.

    Args:
      network: class-conditional network, ``network(x_t, t, labels) -> ε``.
      labels: classes [b] of the images to draw.
      null: the label for no class.
      guidance_scale: w; see ``classifier_free``.
      interval: times with guidance; see ``classifier_free``.
      rescale: φ; see ``classifier_free``.
      channels: number of output channels that are mixed; see ``classifier_free``.

    Raises:
      ValueError: see ``classifier_free``; or labels are not whole numbers of at least 0.
    """
    mix = _mixer(guidance_scale, interval, rescale, channels)
    checks.integers("labels", labels, 0, 2**31)
    checks.count("null", null, 0)
    labels = jnp.asarray(labels)
    both = jnp.concatenate([labels, jnp.full_like(labels, null)])

    def denoise(x: Array, t: Times) -> Array:
        with_label, without = jnp.split(network(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both), 2)
        return mix(with_label, without, t)

    return denoise


def threshold(percentile: float = 99.5, smallest: float = 1.0) -> Callable[[Arrays], Arrays]:
    """Make the dynamic thresholding of Saharia et al. 2022, §2.3: clip x̂_0 to [-s, s] and divide by s.

    Args:
      percentile: s is this percentile of |x̂_0| over the image, in (0, 100].
      smallest: the lower limit of s; at s = 1 thresholding equals ``clip=True``.

    Raises:
      ValueError: ``percentile`` is outside (0, 100], or ``smallest`` is not above 0.
    """
    if not 0 < percentile <= 100 or not 0 < smallest < float("inf"):
        raise ValueError(f"expected a percentile in (0, 100] and smallest > 0, got {percentile:g} and {smallest:g}")

    def clip(x0: Arrays) -> Arrays:
        checks.floating("x0", x0)
        axes = tuple(range(1, x0.ndim))
        s = jnp.percentile(jnp.abs(x0), percentile, axis=axes, keepdims=True)
        s = jnp.maximum(s, smallest).astype(x0.dtype)
        return jnp.clip(x0, -s, s) / s

    return clip


def _mixer(
    guidance_scale: float | Scalar, interval: Interval, rescale: float, channels: int | None
) -> Callable[[Arrays, Arrays, Times], Arrays]:
    """Make ``(ε_c, ε_u, t) -> ε``."""
    checks.finite("guidance_scale", guidance_scale)
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale: expected 0 to 1, got {rescale:g}")
    if not interval[0] <= interval[1]:
        raise ValueError(f"interval: expected (first, last) times, got {interval}")
    if channels is not None:
        checks.count("channels", channels)

    def mix(conditional: Arrays, unconditional: Arrays, t: Times) -> Arrays:
        w = jnp.where((interval[0] <= t) & (t <= interval[1]), guidance_scale, 1).astype(conditional.dtype)
        scale = w.reshape(-1, *[1] * (conditional.ndim - 1))
        guided = unconditional + scale * (conditional - unconditional)
        if not rescale:
            return guided
        std, target_std = _std(guided), _std(conditional)
        standardized = guided / jnp.where(std > 0, std, 1)  # first, so that a std next to 0 does not overflow
        rescaled = jnp.where(std > 0, target_std * standardized, guided)
        return (rescale * rescaled + (1 - rescale) * guided).astype(guided.dtype)

    def mix_channels(conditional: Arrays, unconditional: Arrays, t: Times) -> Arrays:
        outputs = conditional.shape[-1]
        if channels is None or channels > outputs:
            raise ValueError(f"channels: expected 1 to {outputs}, those of the output; got {channels}")
        mixed = mix(conditional[..., :channels], unconditional[..., :channels], t)
        return jnp.concatenate([mixed, conditional[..., channels:]], -1)

    return mix if channels is None else mix_channels


def _std(x: Arrays) -> Arrays:
    """The standard deviation of each image, at least in float32; where the deviation is 0, the slope is 0."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.asarray(root(jnp.var(x, axis=tuple(range(1, x.ndim)), keepdims=True)))
