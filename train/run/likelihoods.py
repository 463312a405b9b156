"""The variational bound of diffusion models with steps, as a score of ``train.evaluate``."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from genjax import data, diffusion, random
from genjax.diffusion import likelihood
from genjax.theory import pixels
from genjax.types import Batch, Key, Params
from train.run.chains import FixedVariance
from train.run.config import ImageRun
from train.run.recipe import ScoreOptions

Process = Callable[[Params, Any], tuple[diffusion.Denoise, diffusion.Schedule]]
"""The reverse process of a model, ``(params, labels or None) -> (denoise, schedule)``."""

DIGITS_LEVELS = 17
"""Number of values of a pixel of ``--data digits``."""


def num_levels(options: ScoreOptions, settings: ImageRun) -> int:
    """Return how many values a pixel can take: ``levels``, or by default 17 of the digits and 256 of other images."""
    return options.levels or (DIGITS_LEVELS if settings.data == "digits" else 256)


def of_steps(
    options: ScoreOptions,
    settings: ImageRun,
    process: Process,
    variance: FixedVariance,
    *,
    clip: bool = True,
    labelled: bool = False,
) -> Callable[[Params, Key, Batch], dict[str, jax.Array]]:
    """Make the score of a process of steps: its bound term by term and, where asked for, the probability flow.

    Args:
      options: options of ``train.evaluate``.
      settings: settings of the run.
      process: reverse process of the model.
      variance: variance of the reverse steps.
      clip: True to clip x̂_0 to [-1, 1].
      labelled: True to score log p(x|label).
    """
    levels = num_levels(options, settings)

    def values(params: Params, keys: Key, rows: Batch) -> dict[str, jax.Array]:
        bound_keys, spread_keys, probe_keys = random.split(keys, 3)
        images = pixels.from_level(pixels.to_level(data.scale(rows["image"]), levels), levels)
        denoise, schedule = process(params, rows["label"] if labelled else None)
        bound = likelihood.vlb(denoise, schedule, bound_keys, images, variance=variance, num_levels=levels, clip=clip)
        row = {"vlb": -bound.total, "prior": -bound.prior, "steps": -bound.steps[:, 1:].sum(1)}
        row["decoder"] = -bound.steps[:, 0]
        row |= {"nats": bound.steps, "squared_error": bound.squared_error / np.prod(images.shape[1:])}
        if options.flow:
            spread, log_width = likelihood.dequantise(spread_keys, images, levels)
            row["flow"] = likelihood.ode_log_likelihood(denoise, schedule, probe_keys, spread) + log_width
        return row

    return values
