"""The common part of train.pixelcnn and train.pixelrnn: everything but the network."""

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
from genjax.theory import pixels
from genjax.types import Batch, Images, Key, Params
from train.run import codes, conditions, config, images, networks, sheets, sources
from train.run.recipe import Recipe, SampleOptions, Sampler, Score, ScoreOptions, Shape, override
from train.run.task import Task

COLUMNS = 10
"""Images that are completed for a report."""


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun, abc.ABC):
    """Settings of a model that draws images pixel by pixel."""

    likelihood: Literal["bernoulli", "categorical", "mixture"] = "categorical"
    """p(pixel | those before): black or white; any distribution over the levels; or a mixture of discretised
    logistics, for pixels of many levels."""
    levels: int = 256
    """Number of values of a pixel; bernoulli has 2, whatever stands here."""
    components: int = 10
    """Number of logistics in the mixture; mixture only."""
    one_hot: bool = False
    """Give the network the levels one-hot, for levels that are names and not numbers."""
    binarization: Literal["none", "dynamic", "static"] = "none"
    """none takes pixels as they are; dynamic draws black and white anew at every step; static wants data that is."""
    temperature: float = 1.0
    """Temperature of samples: below 1 images are more typical and less varied."""
    num_samples: int = 64
    """Number of images drawn for the figures of a report."""

    kinds: ClassVar[tuple[str, ...]] = ("codes",)
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "levels": conditions.needs(likelihood=("categorical", "mixture")),
        "components": conditions.needs(likelihood="mixture"),
        "binarization": conditions.needs(likelihood="bernoulli"),
    }

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(self, {"levels": 2, "components": 1, "num_samples": 1})
        if not self.temperature > 0:
            problems.append(f"temperature: expected a positive number, got {self.temperature}")
        if self.binarization != "none" and self.likelihood != "bernoulli":
            problems.append(
                f"binarization: {self.binarization} pixels want --likelihood bernoulli, not {self.likelihood}"
            )
        if codes.are_data(self) and self.likelihood != "categorical":
            problems.append(f"likelihood: codes are names, which want --likelihood categorical, not {self.likelihood}")
        return problems

    @property
    def num_levels(self) -> int:
        """Number of values of a pixel."""
        return 2 if self.likelihood == "bernoulli" else self.levels

    @property
    def labels(self) -> int:
        """Number of classes that the model depends on; 0 for a model without labels."""
        return 0

    @abc.abstractmethod
    def network(self, outputs: int, colours: int, channels: int) -> nn.Module:
        """Make the causal network.

        Args:
          outputs: number of outputs per pixel and group of channels.
          colours: number of groups of channels, each of which depends on those before.
          channels: number of channels of an image.
        """


def likelihood(settings: Config) -> pixels.Likelihood:
    """Make the distribution p(pixel | those before) of the settings."""
    return {
        "bernoulli": pixels.bernoulli,
        "categorical": lambda: pixels.categorical(settings.levels),
        "mixture": lambda: pixels.mixture_of_logistics(settings.components, settings.levels),
    }[settings.likelihood]()


def model(settings: Config, shape: Shape) -> autoregressive.Autoregressive:
    """Make the model of the settings for images of a shape (h, w, c)."""
    distribution = likelihood(settings)
    channels = shape[2]
    colours = 1 if distribution.joint else channels
    network = settings.network(distribution.num_outputs(channels), colours, channels)
    return autoregressive.build(network, distribution, shape, temperature=settings.temperature)


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)
    return images.task(settings, trained, _figures(settings, shape, trained))._replace(
        check=functools.partial(_check, settings)
    )


def load(settings: Config) -> data.Dataset:
    """Load the data set; where its data are codes, as index maps."""
    return codes.load_maps(settings, settings.levels) if codes.are_data(settings) else sources.load(settings)


def to_images(settings: Config, drawn: Images) -> Images:
    """Convert drawn arrays to images in [-1, 1]: decode them where they are codes."""
    return codes.decode(settings, settings.levels, drawn) if codes.are_data(settings) else drawn


SOURCE = sources.IMAGES._replace(
    load=load, fingerprint=codes.fingerprint, origin=codes.origin, check_run=codes.check_run
)
"""Images, and index maps of images."""


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    settings = override(settings, "temperature", options.temperature)
    trained = images.sampler(model(settings, shape), settings.labels)
    return trained._replace(draw=lambda *args: to_images(settings, trained.draw(*args)))


SAMPLER_OPTIONS: dict[str, conditions.Conditions] = {"temperature": ()}
"""The options of ``train.sample`` that ``sampler`` reads."""


def score(options: ScoreOptions, settings: Config, shape: Shape) -> Score:
    """Make the score for ``train.evaluate``: log p(x), of codes in two parts, -log p(indices) - log p(x|indices)."""
    trained = model(settings, shape)

    def values(params: Params, keys: Key, rows: Batch) -> dict[str, jax.Array]:
        drawn = sources.images(settings, keys, rows)[1]
        log_prob = trained.log_prob(params, drawn, rows["label"] if settings.labels else None)
        if not codes.are_data(settings):
            return {"log_prob": log_prob}
        rest = codes.log_prob(settings, settings.levels, rows["original"], drawn)
        return {"codes": log_prob, "images": rest, "both": log_prob + rest}

    return Score(trained.init, values, _describe_pixels(settings))


def recipe(name: str, schema: type[Config]) -> Recipe:
    """Make the recipe of a model of pixels, one by one; its settings make the network."""
    return Recipe(name, schema, model, build, SOURCE, sampler=sampler, sampler_options=SAMPLER_OPTIONS, score=score)


def _describe_pixels(settings: Config) -> str:
    if codes.are_data(settings):
        return "codes, then images given codes"
    if settings.likelihood == "bernoulli":
        return networks.BINARY_PIXELS[settings.binarization]
    return f"{settings.levels} levels"


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_labels(settings.labels, dataset)
    if codes.are_data(settings) or settings.binarization == "dynamic":
        return
    networks.check_levels(settings.likelihood, settings.num_levels, dataset)


def _figures(settings: Config, shape: Shape, trained: autoregressive.Autoregressive) -> images.Figures:
    key, num = jax.random.key(settings.seed), settings.num_samples
    shown = jax.jit(lambda drawn: to_images(settings, drawn))
    labels = images.labels(settings.labels, num)
    draw = jax.jit(lambda params: trained.sample(key, params, num, labels))
    known = np.zeros(shape[:2], bool)
    known[: shape[0] // 2] = True

    @jax.jit
    def complete(params: Params, rows: Batch) -> tuple[Images, Images]:
        """Return images, and three completions of each upper half, one after the other."""
        originals = sources.images(settings, key, rows)[1]
        labels = rows["label"] if settings.labels else None
        keys = jax.random.split(key, 3)
        completed = [trained.complete(k, params, originals, known, labels) for k in keys]
        return originals, jnp.concatenate(completed)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_samples(folder, step, shown(draw(params)))
        rows = images.report_rows(dataset)
        chosen = np.linspace(0, len(rows["image"]) - 1, COLUMNS).astype(int)  # of all classes, where they are in order
        originals, completed = (
            sheets.to_uint8(shown(drawn), f"the model at step {step}")
            for drawn in complete(params, {name: array[chosen] for name, array in rows.items()})
        )
        half = originals.shape[1] // 2
        occluded = np.concatenate([originals[:, :half], np.full_like(originals[:, half:], 128)], 1)
        rows_of_images = np.concatenate([originals, occluded, completed])
        sheets.save(folder / "completion.png", sheets.tile(rows_of_images, len(originals)), width=900)

    return write_figures
