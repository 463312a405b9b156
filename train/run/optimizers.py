"""The optimizer that the settings describe."""

from collections.abc import Callable
from typing import Any

import optax

from train.run.config import Run


def adam(
    settings: Run,
    peak: float | None = None,
    *,
    b1: float = 0.9,
    step: Callable[[Any], Any] = lambda count: count,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Adam (Kingma & Ba 2015) behind gradient clipping, and its learning rate as a function of the steps done.

    Args:
      settings: what the rate does, and where gradients are clipped.
      peak: the rate after warm-up, where it is not ``lr``.
      b1: decay of the first moment.
      step: of training, after so many updates, where there is not one update for each.
    """
    rate = _rate(settings, settings.lr if peak is None else peak)
    clip = optax.clip_by_global_norm(settings.grad_clip) if settings.grad_clip else optax.identity()
    return optax.chain(clip, optax.adam(lambda count: rate(step(count)), b1=b1)), rate


def _rate(settings: Run, peak: float) -> optax.Schedule:
    """From 0 to the peak over the warm-up, then constant or a cosine to 0 at the last step."""
    rate = optax.constant_schedule(peak)
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(peak, max(settings.steps - settings.warmup, 1))
    if settings.warmup:
        rise = optax.linear_schedule(0.0, peak, settings.warmup)
        rate = optax.join_schedules([rise, rate], [settings.warmup])
    return rate
