"""The optimizer of the settings: Adam with clipping, warm-up and a schedule."""

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
    """Make Adam (Kingma & Ba 2015) behind gradient clipping, and its learning rate by the number of steps done.

    Args:
      settings: settings of the learning rate and of the clipping.
      peak: learning rate after warm-up; None for ``lr``.
      b1: decay rate β₁ of the first moment.
      step: number of training steps after a number of updates, for an optimizer that does not update once a step.
    """
    rate = _rate(settings, settings.lr if peak is None else peak)
    clip = optax.clip_by_global_norm(settings.grad_clip) if settings.grad_clip else optax.identity()
    return optax.chain(clip, optax.adam(lambda count: rate(step(count)), b1=b1)), rate


def _rate(settings: Run, peak: float) -> optax.Schedule:
    """Make a learning rate that rises from 0 to the peak, then is constant or a cosine to 0 at the last step."""
    rate = optax.constant_schedule(peak)
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(peak, max(settings.steps - settings.warmup, 1))
    if settings.warmup:
        rise = optax.linear_schedule(0.0, peak, settings.warmup)
        rate = optax.join_schedules([rise, rate], [settings.warmup])
    return rate
