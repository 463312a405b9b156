"""Guidance: denoisers made of denoisers; and the thresholding that strong guidance needs.

What is mixed is the output of a network; read the mixture as a prediction afterwards.
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
"""``(x_t, t) -> output``: ε, or whatever else is predicted, which guidance mixes alike."""

Interval = tuple[float | int, float | int]
EVERYWHERE = (-float("inf"), float("inf"))


def classifier_free(
    conditional: Network,
    unconditional: Network,
    weight: float | Scalar,
    interval: Interval = EVERYWHERE,
    rescale: float = 0.0,
    channels: int | None = None,
) -> Network:
    """ε = ε_u + w (ε_c - ε_u) (Ho & Salimans 2022, eq. 6 with w = 1 + their weight): two evaluations.

    Args:
      conditional: ``(x_t, t) -> ε_c``.
      unconditional: ``(x_t, t) -> ε_u``.
      weight: w: 0 is unconditional, 1 conditional, above 1 guided, below 0 led away from the condition.
      interval: the times (both ends included) of guidance; w = 1 elsewhere (Kynkäänniemi et al. 2024, eq. 5).
      rescale: φ in [0, 1]: how far ε takes the standard deviation of ε_c back (Lin et al. 2024, eq. 15-16).
      channels: how many of the output are mixed, all by default; of the others, as a learned variance's, the
        conditional network's are taken (Peebles & Xie 2023).

    Raises:
      ValueError: a weight that is not finite, ``rescale`` outside [0, 1], an interval whose ends are the wrong way
        round, or ``channels`` < 1, or more than there are.
    """
    mix = _mixer(weight, interval, rescale, channels)

    def guided(x: Array, t: Times) -> Array:
        checks.floating("x_t", x)
        return mix(conditional(x, t), unconditional(x, t), t)

    return guided


def classifier_free_batched(
    network: Callable[[Arrays, Times, Int[Array, " b"]], Arrays],
    labels: ArrayLike,
    null: int,
    weight: float | Scalar,
    interval: Interval = EVERYWHERE,
    rescale: float = 0.0,
    channels: int | None = None,
) -> Network:
    """``classifier_free`` in one call of ``network(x_t, t, labels) -> ε`` on 2b images.

    Args:
      network: of class-conditional noise.
      labels: [b], of the images to draw.
      null: the label that stands for none.
      weight: see ``classifier_free``; so are ``interval``, ``rescale`` and ``channels``.

    Raises:
      ValueError: as ``classifier_free``; or labels that are not whole numbers of at least 0.
    """
    mix = _mixer(weight, interval, rescale, channels)
    checks.integers("labels", labels, 0, 2**31)
    checks.count("null", null, 0)
    labels = jnp.asarray(labels)
    both = jnp.concatenate([labels, jnp.full_like(labels, null)])

    def denoise(x, t):
        with_label, without = jnp.split(network(jnp.concatenate([x, x]), jnp.concatenate([t, t]), both), 2)
        return mix(with_label, without, t)

    return denoise


def threshold(percentile: float = 99.5, smallest: float = 1.0) -> Callable[[Arrays], Arrays]:
    """Dynamic thresholding: x̂_0 clipped to [-s, s] and divided by s (Saharia et al. 2022, §2.3).

    s is the percentile of |x̂_0| over the image, but at least ``smallest``: then it is ``clip=True``.

    Raises:
      ValueError: ``percentile`` outside (0, 100], or ``smallest`` not above 0.
    """
    if not 0 < percentile <= 100 or not 0 < smallest < float("inf"):
        raise ValueError(f"expected a percentile in (0, 100] and smallest > 0, got {percentile:g} and {smallest:g}")

    def clip(x0):
        checks.floating("x0", x0)
        axes = tuple(range(1, x0.ndim))
        largest = jnp.percentile(jnp.abs(x0), percentile, axis=axes, keepdims=True)
        largest = jnp.maximum(largest, smallest).astype(x0.dtype)
        return jnp.clip(x0, -largest, largest) / largest

    return clip


def _mixer(weight, interval: Interval, rescale: float, channels: int | None):
    """``(ε_c, ε_u, t) -> ε``."""
    checks.finite("weight", weight)
    if not 0 <= rescale <= 1:
        raise ValueError(f"rescale: expected 0 to 1, got {rescale:g}")
    if not interval[0] <= interval[1]:
        raise ValueError(f"interval: expected (first, last) times, got {interval}")
    if channels is not None:
        checks.count("channels", channels)

    def mix(with_label, without, t):
        w = jnp.where((interval[0] <= t) & (t <= interval[1]), weight, 1).astype(with_label.dtype)
        guided = without + w.reshape(-1, *[1] * (with_label.ndim - 1)) * (with_label - without)
        if not rescale:
            return guided
        ours, theirs = _deviation(guided), _deviation(with_label)
        at_unit = guided / jnp.where(ours > 0, ours, 1)  # before it is scaled: what is next to 0 must not overflow
        rescaled = jnp.where(ours > 0, theirs * at_unit, guided)
        return (rescale * rescaled + (1 - rescale) * guided).astype(guided.dtype)

    def some(with_label, without, t):
        if channels > (found := with_label.shape[-1]):
            raise ValueError(f"channels: expected 1 to {found}, those of the output; got {channels}")
        mixed = mix(with_label[..., :channels], without[..., :channels], t)
        return jnp.concatenate([mixed, with_label[..., channels:]], -1)

    return mix if channels is None else some


def _deviation(x: Arrays) -> Arrays:
    """The standard deviation of each image, at least in float32; where it is 0, so is its slope."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.asarray(root(jnp.var(x, axis=tuple(range(1, x.ndim)), keepdims=True)))
