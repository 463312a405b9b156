"""Train a classifier: ``python -m train.classifier --config digits``; ``train.judge`` sees through its features."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.models import classifier
from genjax.training import parallel, steps
from genjax.types import Params
from train.run import config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a small convolutional classifier."""

    num_classes: int = 10
    """Of the labels."""
    conv_channels: tuple[int, ...] = (16, 32)
    """Channels of the convolutions, each of which halves the image."""
    features: int = 64
    """Of the layer before the logits."""

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        return super().problems() + config.at_least(self, {"num_classes": 2, "conv_channels": 1, "features": 1})


def model(settings: Config, shape: tuple[int, int, int]) -> classifier.Classifier:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    networks.check_halvings("--conv-channels", len(settings.conv_channels), shape)
    return classifier.build(classifier.Network(settings.num_classes, settings.conv_channels, settings.features), shape)


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)

    optimizer, learning_rate = optimizers.adam(settings)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=steps.rows(settings.batch_size, axis_name=parallel.AXIS),
        loss=sources.on_rows(settings, ours.loss, training=True),
        evaluate=sources.on_rows(settings, ours.loss),
        write_figures=_figures(settings, ours),
        check=functools.partial(_check, settings),
    )


def _check(settings: Config, dataset: data.Dataset) -> None:
    if "label" not in dataset.train:
        raise config.UsageError(f"--data {settings.data}: {dataset.name} has no labels, which a classifier learns from")
    networks.check_labels(settings.num_classes, dataset)


def _figures(settings: Config, ours: classifier.Classifier):
    guess = jax.jit(lambda params, images: jnp.argmax(ours.logits(params, data.scale(images)), -1))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        """The images it is wrong about."""
        rows = dataset.heldout if len(dataset.heldout["image"]) else dataset.train
        wrong = np.flatnonzero(np.asarray(guess(params, rows["image"])) != rows["label"])[:64]
        if len(wrong):
            plots.save(folder / "mistakes.png", plots.tile(rows["image"][wrong], min(8, len(wrong))))

    return write_figures


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("classifier", config.parse(Config, "classifier", argv), build)


if __name__ == "__main__":
    process.main(main)
