"""Train a classifier: ``python -m train.classifier --config digits``; ``train.judge`` compares by its features."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.models import classifier
from genjax.types import Params
from train.run import command, config, images, networks, process, sheets
from train.run.recipe import Recipe, Shape
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a small convolutional classifier."""

    num_classes: int = 10
    """Number of classes of the labels."""
    conv_channels: tuple[int, ...] = (16, 32)
    """Channels of the convolutions, each of which halves the image."""
    features: int = 64
    """Width of the layer before the logits."""

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        return super().problems() + config.at_least(self, {"num_classes": 2, "conv_channels": 1, "features": 1})


def model(settings: Config, shape: Shape) -> classifier.Classifier:
    """Make the model of the settings for images of a shape (h, w, c)."""
    networks.check_halvings("--conv-channels", len(settings.conv_channels), shape)
    network = classifier.Network(settings.num_classes, settings.conv_channels, settings.features)
    return classifier.build(network, shape)


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)
    return images.task(settings, trained, _figures(trained))._replace(check=functools.partial(_check, settings))


def _check(settings: Config, dataset: data.Dataset) -> None:
    if "label" not in dataset.train:
        raise config.UsageError(f"--data {settings.data}: {dataset.name} has no labels, which a classifier learns from")
    networks.check_labels(settings.num_classes, dataset)


def _figures(trained: classifier.Classifier) -> images.Figures:
    predict = jax.jit(lambda params, originals: jnp.argmax(trained.logits(params, data.scale(originals)), -1))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        rows = images.report_rows(dataset)
        mistakes = np.flatnonzero(np.asarray(predict(params, rows["image"])) != rows["label"])[:64]
        if len(mistakes):
            sheets.save(folder / "mistakes.png", sheets.tile(rows["image"][mistakes], min(8, len(mistakes))))

    return write_figures


RECIPE = Recipe("classifier", Config, model, build)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
