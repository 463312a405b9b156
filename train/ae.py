"""Train an autoencoder: ``python -m train.ae --config digits``."""

import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import numpy as np
from PIL import Image

from genjax import data
from genjax.metrics import roc
from genjax.models import autoencoder
from genjax.types import Images, Params
from train.run import command, conditions, config, images, networks, plots, process, sheets
from train.run.recipe import Recipe, Shape
from train.run.task import Task

COLUMNS = 16
"""Images that are reconstructed for a report."""


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train an autoencoder."""

    latent_dim: int = 20
    """Number of dimensions of the code of an image."""
    latent_activation: Literal["relu", "linear"] = "relu"
    """Activation of the code: relu as in the lecture notes, where about half of the numbers are 0, or linear."""
    network: Literal["dense", "conv"] = "dense"
    """Dense layers as in the lecture notes, or strided convolutions."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the dense layers of the encoder; the decoder has them in reverse."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions, each of which halves the image; read with --network conv only."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"conv_channels": conditions.needs(network="conv")}

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        return super().problems() + config.at_least(self, {"latent_dim": 1, "hidden": 1, "conv_channels": 1})


def model(settings: Config, shape: Shape) -> autoencoder.Autoencoder:
    """Make the model of the settings for images of a shape (h, w, c)."""
    activation = nn.relu if settings.latent_activation == "relu" else None
    encoder, decoder = networks.encoder_decoder(settings, settings.latent_dim, shape, activation=activation)
    return autoencoder.build(encoder, decoder, shape)


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)
    return images.task(settings, trained, _figures(settings, trained))._replace(
        check=functools.partial(_check, settings)
    )


def _check(settings: Config, dataset: data.Dataset) -> None:
    if settings.exclude_class < 0:
        return
    excluded = np.asarray(dataset.heldout["label"] == settings.exclude_class)
    if excluded.all() or not excluded.any():  # of none, all
        raise config.UsageError(
            f"--exclude-class {settings.exclude_class}: the held-out split of {dataset.name} has {excluded.sum()} "
            f"images of that class and {(~excluded).sum()} others; telling them apart needs both"
        )


def _figures(settings: Config, trained: autoencoder.Autoencoder) -> images.Figures:
    @jax.jit
    def reconstruct(params: Params, originals: jax.Array) -> tuple[Images, jax.Array]:
        reconstructed = trained.reconstruct(params, data.scale(originals))
        return reconstructed, autoencoder.reconstruction_error(data.scale(originals), reconstructed)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        rows = images.report_rows(dataset)
        originals = rows["image"][:COLUMNS]
        reconstructed = sheets.to_uint8(reconstruct(params, originals)[0], f"the decoder at step {step}")
        now = sheets.tile(reconstructed, len(reconstructed))
        first = folder / "first.png"
        if not first.exists():
            sheets.save(first, now, width=0)
        with Image.open(first) as stored:
            start = np.atleast_3d(np.asarray(stored))
        sheet = np.concatenate([sheets.tile(originals, len(reconstructed)), start, now])
        sheets.save_report(folder, step, sheet, width=900)
        if settings.exclude_class >= 0:
            scores = np.asarray(reconstruct(params, rows["image"])[1], np.float64)
            curve = roc.curve(scores, rows["label"] == settings.exclude_class)
            plots.roc(folder / "anomaly.png", curve, settings.exclude_class)

    return write_figures


RECIPE = Recipe("ae", Config, model, build)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
