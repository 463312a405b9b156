"""What train.pixelcnn and train.pixelrnn share: everything but the network."""

import abc
import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.models import autoregressive
from genjax.training import parallel, steps
from genjax.types import Batch, Images, Params
from train.run import codes, conditions, config, networks, optimizers, plots, sources
from train.run.task import Task

COLUMNS = 10  # completed images


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun, abc.ABC):
    """A model that draws images pixel by pixel."""

    likelihood: Literal["bernoulli", "categorical", "mixture"] = "categorical"
    """p(pixel | those before): black or white; any distribution over the levels; or a mixture of discretised
    logistics, for pixels of many levels."""
    levels: int = 256
    """How many values a pixel can take; bernoulli has 2, whatever stands here."""
    components: int = 10
    """Of the mixture; mixture only."""
    one_hot: bool = False
    """Show the network the levels one-hot, for levels that are names and not numbers."""
    binarization: Literal["none", "dynamic", "static"] = "none"
    """none takes pixels as they are; dynamic draws black and white anew at every step; static wants data that is."""
    temperature: float = 1.0
    """Of samples: below 1 they are more typical and less varied."""
    num_samples: int = 64
    """Images drawn for the pictures of a report."""

    kinds: ClassVar[tuple[str, ...]] = ("codes",)
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "levels": conditions.needs(likelihood=("categorical", "mixture")),
        "components": conditions.needs(likelihood="mixture"),
        "binarization": conditions.needs(likelihood="bernoulli"),
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(self, {"levels": 2, "components": 1, "num_samples": 1})
        if not self.temperature > 0:
            found.append(f"temperature: expected a positive number, got {self.temperature}")
        if self.binarization != "none" and self.likelihood != "bernoulli":
            found.append(f"binarization: {self.binarization} pixels want --likelihood bernoulli, not {self.likelihood}")
        if codes.named(self) and self.likelihood != "categorical":
            found.append(f"likelihood: codes are names, which want --likelihood categorical, not {self.likelihood}")
        return found

    @property
    def num_levels(self) -> int:
        """How many values a pixel can take."""
        return 2 if self.likelihood == "bernoulli" else self.levels

    @abc.abstractmethod
    def network(self, outputs: int, colours: int, channels: int) -> nn.Module:
        """The causal network."""


def model(settings: Config, shape: tuple[int, int, int]) -> autoregressive.Autoregressive:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    likelihood = networks.likelihood(settings)
    channels = shape[2]
    network = settings.network(likelihood.num_outputs(channels), 1 if likelihood.joint else channels, channels)
    return autoregressive.build(network, likelihood, shape, temperature=settings.temperature)


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
        write_figures=_figures(settings, shape, ours),
        check=functools.partial(_check, settings),
    )


def classes(settings: Config) -> int:
    """Of the labels that the model depends on; 0 for none."""
    return getattr(settings, "num_classes", 0)


def load(settings: Config) -> data.Dataset:
    """The data set; of codes, index maps."""
    return codes.load(settings) if codes.named(settings) else sources.load(settings)


def visible(settings: Config, images: Images) -> Images:
    """What the model draws, as images in [-1, 1]: itself, or what its codes stand for."""
    return codes.decode(settings, images) if codes.named(settings) else images


SOURCE = sources.IMAGES._replace(load=load, fingerprint=codes.fingerprint)
"""Images, and index maps of images."""


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_labels(classes(settings), dataset)
    if codes.named(settings) or settings.binarization == "dynamic":
        return
    networks.check_levels(settings, settings.num_levels, dataset)


def _figures(settings: Config, shape: tuple[int, int, int], ours: autoregressive.Autoregressive):
    key, num = jax.random.key(settings.seed), settings.num_samples
    shown = jax.jit(lambda images: visible(settings, images))
    labels = jnp.arange(num) % classes(settings) if classes(settings) else None
    draw = jax.jit(lambda params: ours.sample(key, params, num, labels))
    known = np.zeros(shape[:2], bool)
    known[: shape[0] // 2] = True

    @jax.jit
    def complete(params: Params, rows: Batch) -> tuple[Images, Images]:
        """Images, and three completions of each upper half, one after the other."""
        given = sources.images(settings, key, rows)[1]
        theirs = rows["label"] if classes(settings) else None
        keys = jax.random.split(key, 3)
        done = [ours.complete(k, params, given, known, theirs) for k in keys]
        return given, jnp.concatenate(done)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        show = lambda images: plots.to_uint8(shown(images), f"the model at step {step}")
        sheet = plots.tile(show(draw(params)), columns=round(num**0.5))
        plots.save(folder / f"{step:07d}.png", sheet)
        plots.save(folder / "latest.png", sheet)
        rows = dataset.heldout if len(dataset.heldout["image"]) else dataset.train
        some = np.linspace(0, len(rows["image"]) - 1, COLUMNS).astype(int)  # of all classes, where they are in order
        given, done = complete(params, {name: array[some] for name, array in rows.items()})
        originals, done = show(given), show(done)
        half = originals.shape[1] // 2
        occluded = np.concatenate([originals[:, :half], np.full_like(originals[:, half:], 128)], 1)
        both = np.concatenate([originals, occluded, done])
        plots.save(folder / "completion.png", plots.tile(both, len(originals)), width=900)

    return write_figures
