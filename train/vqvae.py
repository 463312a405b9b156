"""Train a vector-quantised autoencoder: ``python -m train.vqvae --config digits``."""

import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

import jax
import numpy as np

from genjax import data
from genjax.models import vqvae
from genjax.nn import convnet
from genjax.types import Batch, Images, Key, Metrics, Params, Scalar
from train.run import command, conditions, config, images, networks, plots, process, sheets
from train.run.recipe import Recipe, Shape
from train.run.task import Task

COLUMNS = 16
"""Images that are reconstructed for a report."""


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a vector-quantised variational autoencoder (van den Oord et al. 2017)."""

    codebook_size: int = 64
    """Number K of entries of the codebook."""
    embedding_dim: int = 16
    """Dimension D of an entry."""
    codebook_update: Literal["ema", "gradient"] = "ema"
    """Update of the entries: as running means of the vectors nearest to them, or by their own gradient."""
    codebook_decay: float = 0.99
    """Decay of the running means; read with --codebook-update ema only."""
    dead_code_threshold: float = 0.03
    """Part of its fair share of vectors below which an entry begins anew beside a much used one; 0 for never. Read
    with --codebook-update ema only."""
    commitment_cost: float = 0.25
    """Weight β of the encoder's distance from the entries."""
    conv_channels: tuple[int, ...] = (32,)
    """Channels of the strided convolutions, each of which halves the image."""
    num_res_blocks: int = 2
    """Number of residual blocks on each side of the codebook."""
    likelihood: Literal["gaussian", "logistic", "bernoulli"] = "gaussian"
    """Distribution p(x|indices) of a pixel: gaussian with a fixed standard deviation, discretised logistic, or black
    and white."""
    levels: int = 256
    """Number of values of a pixel; read with --likelihood logistic only."""
    std: float = 0.25
    """Standard deviation of a pixel in [-1, 1]; read with --likelihood gaussian only."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "levels": conditions.needs(likelihood="logistic"),
        "std": conditions.needs(likelihood="gaussian"),
        "codebook_decay": conditions.needs(codebook_update="ema"),
        "dead_code_threshold": conditions.needs(codebook_update="ema"),
    }

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(
            self,
            {
                "codebook_size": 1,
                "embedding_dim": 1,
                "conv_channels": 1,
                "num_res_blocks": 0,
                "commitment_cost": 0,
                "levels": 2,
            },
        )
        if not 0 < self.codebook_decay < 1:
            problems.append(f"codebook_decay: expected a number in (0, 1), such as 0.99; got {self.codebook_decay}")
        if not 0 <= self.dead_code_threshold < 1:
            problems.append(
                "dead_code_threshold: expected 0 (never) to below 1, a part of the fair share; "
                f"got {self.dead_code_threshold}"
            )
        if not self.std > 0:
            problems.append(f"std: expected a positive standard deviation, got {self.std}")
        return problems


def model(settings: Config, shape: Shape) -> vqvae.VQVAE:
    """Make the model of the settings for images of a shape (h, w, c)."""
    networks.check_halvings("--conv-channels", len(settings.conv_channels), shape)
    likelihood = networks.likelihood(settings)
    if settings.codebook_update == "ema":
        vectors = settings.batch_size * shape[0] * shape[1] // 4 ** len(settings.conv_channels)
        codebook = vqvae.ema_codebook(
            settings.codebook_size,
            decay=settings.codebook_decay,
            dead_code_threshold=settings.dead_code_threshold,
            num_vectors=max(vectors, 1),
        )
    else:
        codebook = vqvae.gradient_codebook(settings.codebook_size)
    encoder = convnet.MapEncoder(settings.embedding_dim, settings.conv_channels, settings.num_res_blocks)
    decoder = convnet.MapDecoder(likelihood.num_outputs(shape[2]), settings.conv_channels, settings.num_res_blocks)
    return vqvae.build(encoder, decoder, codebook, likelihood, shape, commitment=settings.commitment_cost)


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)

    def evaluate(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        metrics = loss(key, params, batch)[1]
        return metrics["distortion"], metrics

    task = images.task(settings, trained, _figures(settings, trained))
    loss = task.evaluate
    return task._replace(
        optimizer=trained.optimizer(task.optimizer),
        evaluate=evaluate,
        check=functools.partial(_check, settings, shape),
    )


def _check(settings: Config, shape: Shape, dataset: data.Dataset) -> None:
    if settings.likelihood == "logistic":
        networks.check_levels(settings.likelihood, settings.levels, dataset)
    unit = 2 ** len(settings.conv_channels)
    vectors = len(dataset.train["image"]) * (shape[0] // unit) * (shape[1] // unit)
    if settings.codebook_size > vectors:
        raise config.UsageError(
            f"codebook_size {settings.codebook_size}: {dataset.name} has {vectors} vectors to choose from; "
            "use fewer entries"
        )


def _figures(settings: Config, trained: vqvae.VQVAE) -> images.Figures:
    @jax.jit
    def reconstruct(params: Params, originals: jax.Array) -> tuple[jax.Array, Images]:
        indices = trained.encode(params, data.scale(originals))
        return indices, trained.decode(params, indices)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        originals = images.report_rows(dataset)["image"][:COLUMNS]
        indices, decoded = reconstruct(params, originals)
        reconstructed = sheets.to_uint8(decoded, f"the decoder at step {step}")
        maps = plots.colours(np.asarray(indices), settings.codebook_size)
        scale = originals.shape[1] // maps.shape[1]
        maps = maps.repeat(scale, axis=1).repeat(scale, axis=2)
        in_colour = lambda grey: np.broadcast_to(grey, (*grey.shape[:-1], 3))
        rows = np.concatenate([in_colour(originals), maps, in_colour(reconstructed)])
        sheets.save_report(folder, step, sheets.tile(rows, len(originals)), width=900)

    return write_figures


RECIPE = Recipe("vqvae", Config, model, build)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
