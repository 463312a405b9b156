"""Train an autoencoder: ``python -m train.ae --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import numpy as np
from PIL import Image

from genjax import data
from genjax.metrics import roc
from genjax.models import autoencoder
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task

COLUMNS = 16


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train an autoencoder."""

    latent_dim: int = 20
    """Numbers in the code of an image."""
    latent_activation: Literal["relu", "linear"] = "relu"
    """relu as in the notes, where about half of the numbers of a code are 0; linear uses all of them."""
    network: Literal["dense", "conv"] = "dense"
    """Dense layers as in the notes, or strided convolutions."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the dense layers from image to code; the decoder has them the other way round."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions, each of which halves the image; conv only."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"conv_channels": conditions.needs(network="conv")}

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        return super().problems() + config.at_least(self, {"latent_dim": 1, "hidden": 1, "conv_channels": 1})


def model(settings: Config, shape: tuple[int, int, int]) -> autoencoder.Autoencoder:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    activation = nn.relu if settings.latent_activation == "relu" else None
    encoder, decoder = networks.encoder_decoder(settings, settings.latent_dim, shape, activation=activation)
    return autoencoder.build(encoder, decoder, shape)


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)

    def loss(key: Key, params: Params, batch: Batch):
        keys, images = sources.training_images(settings, key, batch)
        return ours.loss(keys, params, {"image": images})

    optimizer, learning_rate = optimizers.adam(settings)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=steps.rows(settings.batch_size, axis_name=parallel.AXIS),
        loss=loss,
        evaluate=lambda key, params, batch: ours.loss(key, params, {"image": data.scale(batch["image"])}),
        write_figures=_figures(settings, ours),
        check=functools.partial(_check, settings),
    )


def _check(settings: Config, dataset: data.Dataset) -> None:
    if settings.exclude_class < 0:
        return
    strange = np.asarray(dataset.heldout["label"] == settings.exclude_class)
    if strange.all() or not strange.any():  # of none, all
        raise config.UsageError(
            f"--exclude-class {settings.exclude_class}: the held-out split of {dataset.name} has {strange.sum()} "
            f"images of that class and {(~strange).sum()} others; telling them apart needs both"
        )


def _figures(settings: Config, ours: autoencoder.Autoencoder):
    @jax.jit
    def reconstruct(params: Params, images):
        again = ours.reconstruct(params, data.scale(images))
        return again, autoencoder.reconstruction_error(data.scale(images), again)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        rows = dataset.heldout if len(dataset.heldout["image"]) else dataset.train
        originals = rows["image"][:COLUMNS]
        now = plots.to_uint8(reconstruct(params, originals)[0], f"the decoder at step {step}")
        first = folder / "first.png"
        if not first.exists():
            plots.save(first, plots.tile(now, len(now)), width=0)
        with Image.open(first) as stored:
            start = np.atleast_3d(np.asarray(stored))
        sheet = np.concatenate([plots.tile(originals, len(now)), start, plots.tile(now, len(now))])
        plots.save(folder / f"{step:07d}.png", sheet, width=900)
        plots.save(folder / "latest.png", sheet, width=900)
        if settings.exclude_class >= 0:
            scores = np.asarray(reconstruct(params, rows["image"])[1], np.float64)
            curve = roc.curve(scores, rows["label"] == settings.exclude_class)
            plots.roc(folder / "anomaly.png", curve, settings.exclude_class)

    return write_figures


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("ae", config.parse(Config, "ae", argv), build)


if __name__ == "__main__":
    process.main(main)
