"""The optimizer that the settings describe."""

import optax

from train.config import Run


def adam(settings: Run) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Adam (Kingma & Ba 2015) behind gradient clipping, and its learning rate as a function of the steps done."""
    decay = max(settings.steps - settings.warmup, 1)
    rate = optax.constant_schedule(settings.lr)
    if settings.schedule == "cosine":
        rate = optax.cosine_decay_schedule(settings.lr, decay)
    if settings.warmup:
        rise = optax.linear_schedule(0.0, settings.lr, settings.warmup)
        rate = optax.join_schedules([rise, rate], [settings.warmup])
    clip = optax.clip_by_global_norm(settings.clip) if settings.clip else optax.identity()
    return optax.chain(clip, optax.adam(rate)), rate
