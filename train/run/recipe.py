"""The contract of a recipe: how one family of models is configured, trained, sampled and scored."""

import dataclasses
import pathlib
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

import jax

from genjax.types import Batch, Images, Key, Params
from train.run import conditions, sources
from train.run.config import Run, UsageError

if TYPE_CHECKING:  # importing it loads matplotlib, which --help need not wait for
    from train.run.task import Task

S = TypeVar("S", bound=Run)

Spacing = Literal["", "trailing", "leading", "linspace", "karras", "best"]
"""The times that a short chain visits; empty for the default."""

Shape = tuple[int, int, int]
"""(h, w, c) of an image."""


class SampleOptions(Protocol):
    """The options of ``train.sample`` that a recipe may read; see ``train.sample.Sample`` for each of them."""

    @property
    def workdir(self) -> str:
        """Folder of the run."""

    @property
    def sampler(self) -> str:
        """Name of the reverse chain; empty for the default."""

    @property
    def steps(self) -> int:
        """Number of steps of the reverse chain; 0 for the default."""

    @property
    def eta(self) -> float:
        """Noise of DDIM."""

    @property
    def spacing(self) -> Spacing:
        """Times that a short chain visits."""

    @property
    def terms(self) -> str:
        """File of the bound's terms."""

    @property
    def guidance_scale(self) -> float | None:
        """Weight of the label; None for that of the run."""

    @property
    def temperature(self) -> float | None:
        """Temperature; None for that of the run."""


class ScoreOptions(Protocol):
    """The options of ``train.evaluate`` that a recipe may read; see ``train.evaluate.Evaluate`` for each of them."""

    @property
    def samples(self) -> int:
        """Number of draws for each image."""

    @property
    def times(self) -> int:
        """Number of times, or of steps."""

    @property
    def levels(self) -> int:
        """Number of values of a pixel; 0 for the default."""

    @property
    def flow(self) -> bool:
        """True to add the likelihood by the probability flow."""

    @property
    def labels(self) -> bool:
        """True to score given the labels."""


class Sampler(NamedTuple):
    """A way to draw images from trained parameters.

    Attributes:
      init: initial parameters of the model, ``(key) -> params``; only their shapes are used.
      draw: images in [-1, 1] with the numbers ``first`` to ``first + num - 1``, ``(keys [num], params, num, first)``;
        image i depends on its key and on i only.
    """

    init: Callable[[Key], Params]
    draw: Callable[[Key, Params, int, jax.Array], Images]


class Score(NamedTuple):
    """A way to score held-out images under trained parameters.

    Attributes:
      init: initial parameters of the model, ``(key) -> params``; only their shapes are used.
      values: numbers of each image by name, in nats, ``(params, keys [b], rows) -> {name: [b] or [b t]}``. The names
        ``log_prob``, ``elbo``, ``bound``, ``vlb``, ``flow``, ``exact`` and ``both`` have columns in the ledger.
      pixels: description of the pixels that the numbers are probabilities of, such as "17 levels".
    """

    init: Callable[[Key], Params]
    values: Callable[[Params, Key, Batch], dict[str, jax.Array]]
    pixels: str


NO_OPTIONS: Mapping[str, conditions.Conditions] = types.MappingProxyType({})


class Recipe(NamedTuple):
    """Everything that the commands need to know about a family of models.

    Attributes:
      name: name of the command and of its folder of configurations; recorded with every run.
      config: dataclass of the settings.
      model: model of the settings for images of a shape, ``(settings, shape) -> model``.
      build: training task of the settings, ``(settings, shape) -> Task``; a ``ValueError`` says that they do not fit.
      source: data that the settings name.
      configs: folder with the .toml files that ``--config`` takes by name; None for ``train/configs/<name>``.
      sampler: way to draw of ``train.sample`` and ``train.judge``; None for a family that draws no images.
      sampler_options: options of ``train.sample`` that ``sampler`` reads, each with the conditions under which.
      score: way to score of ``train.evaluate``; None for a family without a likelihood.
      score_options: options of ``train.evaluate`` that ``score`` reads, each with the conditions under which.
    """

    name: str
    config: type[Run]
    model: Callable[..., Any]
    build: "Callable[[Any, Any], Task]"
    source: sources.Source = sources.IMAGES
    configs: pathlib.Path | None = None
    sampler: Callable[[SampleOptions, Any, Shape], Sampler] | None = None
    sampler_options: Mapping[str, conditions.Conditions] = NO_OPTIONS
    score: Callable[[ScoreOptions, Any, Shape], Score] | None = None
    score_options: Mapping[str, conditions.Conditions] = NO_OPTIONS


Predicate = Callable[[Recipe], bool]
"""A requirement on recipes: ``samples``, ``scores`` or ``named(...)``."""


def samples(recipe: Recipe) -> bool:
    """True for a recipe that draws images."""
    return recipe.sampler is not None


def scores(recipe: Recipe) -> bool:
    """True for a recipe that has a likelihood."""
    return recipe.score is not None


def named(name: str) -> Predicate:
    """Make the requirement that a recipe has this name."""
    return lambda recipe: recipe.name == name


def override(settings: S, name: str, value: Any) -> S:
    """Return the settings of a run with the value of an option that has the same name, where one is given.

    Raises:
      UsageError: the run's recipe does not allow the value.
    """
    if value is None:
        return settings
    changed = dataclasses.replace(settings, **{name: value})
    if problems := [problem for problem in changed.problems() if problem.startswith(f"{name}:")]:
        raise UsageError("\n".join(problems))
    return changed
