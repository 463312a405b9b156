"""The contract between a recipe and the training loop."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from genjax import data
from genjax.types import BatchFn, Kernel, Key, Loss, Params
from train.run import plots, sweep


class Task(NamedTuple):
    """Everything that the loop needs to know about a model and its training.

    Attributes:
      init: initial parameters, ``(key) -> params``.
      optimizer: gradient transformation from optax.
      learning_rate: learning rate by the number of steps done; for the log.
      sample_batch: next batch, ``(key, state, data) -> batch``; made with ``axis_name=parallel.AXIS``.
      loss: training loss on rows of the data set as they are stored.
      evaluate: score of the parameters on held-out rows, lower is better; same signature as ``loss``.
      write_figures: writes the figures of a report, ``(folder, step, params, dataset)``; of an ensemble, for member 0.
      check: raises ``UsageError`` for a data set that does not fit the settings.
      wrap_step: turns one gradient step into one training step; several gradient steps on a batch, for example.
      curves: names of the metrics to plot over the course of training.
      figures_at_start: True to write figures of the untrained model too.
      compare: writes figures that compare the members of an ensemble, ``(folder, ensemble, metrics)``, where
        ``metrics`` are the held-out metrics [m] by name.
      carry: state that goes on from batch to batch beside the parameters, ``(key) -> carry``; running environments, for
        example. None for a task without.
    """

    init: Callable[[Key], Params]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    sample_batch: BatchFn
    loss: Loss
    evaluate: Loss
    write_figures: Callable[[pathlib.Path, int, Params, data.Dataset], None]
    check: Callable[[data.Dataset], None] = lambda dataset: None
    wrap_step: Callable[[Kernel], Kernel] = lambda step: step
    curves: tuple[str, ...] = ("loss",)
    figures_at_start: bool = False
    compare: Callable[[pathlib.Path, sweep.Ensemble, dict[str, np.ndarray]], None] = plots.compare
    carry: Callable[[Key], Any] | None = None


Shape = tuple[int, int, int] | None
"""(h, w, c) of the images of a data set; None where its rows are no images."""

Build = Callable[[Any, Any], Task]
"""``(settings, shape) -> Task``; raises ``ValueError`` for settings that do not fit the shape."""


def num_rows(split: Mapping[str, np.ndarray]) -> int:
    """The number of rows of a split of a data set, whatever its arrays are."""
    return len(next(iter(split.values())))
