"""Everything that the recipes of image models have in common: the training task, labels to draw by, rows to show."""

import pathlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.training import parallel, steps
from genjax.types import Images, Key, Loss, Params
from train.run import optimizers, sources
from train.run.config import ImageRun
from train.run.recipe import Sampler
from train.run.task import Task

Figures = Callable[[pathlib.Path, int, Params, data.Dataset], None]
"""``(folder, step, params, dataset)``: writes the figures of a report into the folder of samples."""


class Trainable(Protocol):
    """A model that can be trained: parameters to begin with, and a loss on images in [-1, 1]."""

    @property
    def init(self) -> Callable[[Key], Params]:
        """Initial parameters, ``(key) -> params``."""

    @property
    def loss(self) -> Loss:
        """Training loss of a batch with ``image`` and, of data with labels, ``label``."""


def task(settings: ImageRun, model: Trainable, write_figures: Figures) -> Task:
    """Make the task of training a model on images: Adam on its loss, which also scores the held-out images.

    A recipe that differs replaces the fields in which it does: ``images.task(...)._replace(evaluate=...)``.

    Args:
      settings: settings of the run.
      model: model to train.
      write_figures: writes the figures of a report.
    """
    optimizer, learning_rate = optimizers.adam(settings)
    return Task(
        init=model.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=steps.rows(settings.batch_size, axis_name=parallel.AXIS),
        loss=sources.on_rows(settings, model.loss, training=True),
        evaluate=sources.on_rows(settings, model.loss),
        write_figures=write_figures,
    )


def labels(num_classes: int, num: int, first: int | jax.Array = 0) -> jax.Array | None:
    """Return labels int32[num] for the images from number ``first`` on, class after class; None without classes."""
    return (first + jnp.arange(num)) % num_classes if num_classes else None


def sampler(model: Any, num_classes: int) -> Sampler:
    """Make the sampler of a model with ``init`` and ``sample(keys, params, num, labels)``, labelled class by class."""

    def draw(keys: Key, params: Params, num: int, first: jax.Array) -> Images:
        return model.sample(keys, params, num, labels(num_classes, num, first))

    return Sampler(model.init, draw)


def report_rows(dataset: data.Dataset) -> dict[str, np.ndarray]:
    """Return the rows that figures show: the held-out ones, or the training rows where none are held out."""
    return dict(dataset.heldout if len(dataset.heldout["image"]) else dataset.train)


def first_rows(rows: dict[str, np.ndarray], num: int) -> dict[str, np.ndarray]:
    """Return the first ``num`` rows of a split."""
    return {name: array[:num] for name, array in rows.items()}
