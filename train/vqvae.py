"""Train a vector-quantised autoencoder: ``python -m train.vqvae --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import numpy as np

from genjax import data
from genjax.models import vqvae
from genjax.nn import convnet
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task

COLUMNS = 16


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a vector-quantised variational autoencoder (van den Oord et al. 2017)."""

    codebook_size: int = 64
    """Entries of the codebook."""
    embedding_dim: int = 16
    """Numbers in an entry."""
    codebook_update: Literal["ema", "gradient"] = "ema"
    """How entries move: as running means of what is nearest to them, or by their own gradient."""
    codebook_decay: float = 0.99
    """Of the running means; ema only."""
    dead_code_threshold: float = 0.03
    """An entry used less than this part of its fair share begins anew beside a much used one; 0 never. ema only."""
    commitment_cost: float = 0.25
    """Weight of the encoder's distance from the entries."""
    conv_channels: tuple[int, ...] = (32,)
    """Channels of the strided convolutions, each of which halves the image."""
    num_res_blocks: int = 2
    """Residual blocks beside the codebook."""
    likelihood: Literal["gaussian", "logistic", "bernoulli"] = "gaussian"
    """p(x|indices) of a pixel: a gaussian of a fixed standard deviation, a discretised logistic, or black and white."""
    levels: int = 256
    """How many values a pixel can take; logistic only."""
    std: float = 0.25
    """Standard deviation of a pixel, where pixels reach from -1 to 1; gaussian only."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "levels": conditions.needs(likelihood="logistic"),
        "std": conditions.needs(likelihood="gaussian"),
        "codebook_decay": conditions.needs(codebook_update="ema"),
        "dead_code_threshold": conditions.needs(codebook_update="ema"),
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(
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
            found.append(f"codebook_decay: expected a number in (0, 1), such as 0.99; got {self.codebook_decay}")
        if not 0 <= self.dead_code_threshold < 1:
            found.append(
                "dead_code_threshold: expected 0 (never) to below 1, a part of the fair share; "
                f"got {self.dead_code_threshold}"
            )
        if not self.std > 0:
            found.append(f"std: expected a positive standard deviation, got {self.std}")
        return found


def model(settings: Config, shape: tuple[int, int, int]) -> vqvae.VQVAE:
    """The model that the settings describe, for images of a shape (h, w, c)."""
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


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)
    adam, learning_rate = optimizers.adam(settings)

    def loss(key: Key, params: Params, batch: Batch):
        keys, images = sources.training_images(settings, key, batch)
        return ours.loss(keys, params, {"image": images})

    def evaluate(key: Key, params: Params, batch: Batch):
        metrics = ours.loss(key, params, {"image": data.scale(batch["image"])})[1]
        return metrics["distortion"], metrics

    return Task(
        init=ours.init,
        optimizer=ours.optimizer(adam),
        learning_rate=learning_rate,
        sample_batch=steps.rows(settings.batch_size, axis_name=parallel.AXIS),
        loss=loss,
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        check=functools.partial(_check, settings, shape),
    )


def _check(settings: Config, shape: tuple[int, int, int], dataset: data.Dataset) -> None:
    if settings.likelihood == "logistic":
        networks.check_levels(settings, settings.levels, dataset)
    unit = 2 ** len(settings.conv_channels)
    vectors = len(dataset.train["image"]) * (shape[0] // unit) * (shape[1] // unit)
    if settings.codebook_size > vectors:
        raise config.UsageError(
            f"codebook_size {settings.codebook_size}: {dataset.name} has {vectors} vectors to choose from; "
            "use fewer entries"
        )


def _figures(settings: Config, ours: vqvae.VQVAE):
    @jax.jit
    def reconstruct(params: Params, images):
        indices = ours.encode(params, data.scale(images))
        return indices, ours.decode(params, indices)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        rows = dataset.heldout if len(dataset.heldout["image"]) else dataset.train
        originals = rows["image"][:COLUMNS]
        indices, decoded = reconstruct(params, originals)
        again = plots.to_uint8(decoded, f"the decoder at step {step}")
        maps = plots.colours(np.asarray(indices), settings.codebook_size)
        scale = originals.shape[1] // maps.shape[1]
        maps = maps.repeat(scale, axis=1).repeat(scale, axis=2)
        wide = lambda images: np.broadcast_to(images, (*images.shape[:-1], 3))
        both = np.concatenate([wide(originals), maps, wide(again)])
        sheet = plots.tile(both, len(originals))
        plots.save(folder / f"{step:07d}.png", sheet, width=900)
        plots.save(folder / "latest.png", sheet, width=900)

    return write_figures


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("vqvae", config.parse(Config, "vqvae", argv), build)


if __name__ == "__main__":
    process.main(main)
