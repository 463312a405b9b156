"""Loading of finished runs: settings, model and parameters."""

import contextlib
import functools
import os
import pathlib
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from genjax import data
from genjax.training import state
from genjax.types import Key, Params
from train.checkpoint import manifest, store
from train.checkpoint.lock import resolve
from train.run import claims, conditions, config, data_forms, documents, files, registry, startup, sweep
from train.run.recipe import Predicate, Recipe, Shape

Which = Literal["latest", "best"]
"""The last checkpoint, or the one with the lowest held-out loss."""


class Record(NamedTuple):
    """The record that a run keeps of itself in ``config.json``.

    Attributes:
      workdir: folder of the run.
      recipe: recipe that trained it.
      settings: settings of the recipe; for a member of an ensemble, with the member's value of the swept setting.
      shape: (h, w, c) of the images; None for a run without images.
      ensemble: all members of the run.
      member: index of the member.
      described: everything that ``config.json`` says.
    """

    workdir: pathlib.Path
    recipe: Recipe
    settings: Any  # of type recipe.config
    shape: Any  # Shape, or None
    ensemble: sweep.Ensemble
    member: int
    described: Mapping[str, Any] = types.MappingProxyType({})


class Run(NamedTuple):
    """A trained model.

    Attributes:
      settings: settings that it was trained with, an instance of the recipe's ``Config``.
      model: model of these settings, such as a ``genjax.models.vae.VAE``.
      params: averaged parameters of the checkpoint.
    """

    settings: Any
    model: Any
    params: Params


def load(
    workdir: str | os.PathLike[str],
    *,
    member: int = 0,
    checkpoint: Which = "latest",
    recipe: Recipe | str | None = None,
) -> Run:
    """Load a trained run.

    Args:
      workdir: folder of the run.
      member: index of the member, for a run that trained an ensemble.
      checkpoint: the last checkpoint, or the one with the lowest held-out loss.
      recipe: recipe of a model that lives outside of ``train``: the recipe itself, or its module or file.

    Raises:
      CheckpointError: the folder holds no run, no usable checkpoint, or a run of an unknown recipe.
      UsageError: there is no such member, or no such recipe.
    """
    if isinstance(recipe, Recipe):
        registry.register(recipe)
    of = record(pathlib.Path(workdir), lambda any_recipe: True, member, recipe if isinstance(recipe, str) else "")
    model = of.recipe.model(of.settings, of.shape)
    return Run(of.settings, model, params(of, model.init, checkpoint))


def record(workdir: pathlib.Path, fits: Predicate, member: int = 0, recipe: str = "") -> Record:
    """Read the record of a run.

    Args:
      workdir: folder of the run.
      fits: requirement on the recipe that trained it: ``recipe.samples``, ``recipe.scores`` or ``recipe.named(...)``.
      member: index of the member, for a run that trained an ensemble.
      recipe: module or file of the recipe, for a run of a model from outside.

    Raises:
      CheckpointError: the folder holds no run of such a recipe.
      UsageError: there is no such member, or the named recipe is not that of the run.
    """
    workdir = resolve(workdir)
    asked = registry.from_module(recipe) if recipe else None
    path = workdir / "config.json"
    if not path.exists():
        commands = " or ".join(startup.program(name) for name in registry.names(fits) if name in registry.BUILT_IN)
        raise store.CheckpointError(f"{workdir} holds no run: there is no config.json; train one with {commands}")
    described, script, shape = _described(path)
    if asked is not None and asked.name != script:
        raise config.UsageError(
            f"--recipe {files.shown(recipe)}: is the recipe {asked.name}; {workdir} was trained by "
            f"{files.shown(script)}"
        )
    trained_by = registry.find(script)
    if trained_by is None:
        raise store.CheckpointError(
            f"{workdir} was trained by train.{files.shown(script)}, which is no recipe of train; name the module or "
            f"the file of that recipe with --recipe. Expected a run of {registry.commands(fits)}"
        )
    if not fits(trained_by):
        raise store.CheckpointError(
            f"{workdir} was trained by train.{files.shown(script)}; expected a run of {registry.commands(fits)}"
        )
    ensemble = sweep.ensemble(config.read(trained_by.config, script, str(path)))
    if not 0 <= member < len(ensemble.seeds):
        raise config.UsageError(f"member {member}: {workdir} has {len(ensemble.seeds)}, numbered from 0")
    settings = ensemble.with_value(None if ensemble.values is None else float(ensemble.values[member]))
    return Record(
        workdir, trained_by, settings, shape if trained_by.source.has_images else None, ensemble, member, described
    )


def _described(path: pathlib.Path) -> tuple[dict[str, Any], str, Shape]:
    """Read config.json: everything in it, the name of the recipe and the shape of the images."""
    try:
        described = documents.json_object(path)
        script, shape = described["script"], tuple(described["data"]["train"][1:])
        sizes = all(type(size) is int and size > 0 for size in shape) and len(shape) in (0, 3)
        if not isinstance(script, str) or not sizes:
            raise documents.Unreadable(path, "expected a script, and the shape of its images")
    except (documents.Unreadable, LookupError, TypeError) as error:
        reason = error.reason if isinstance(error, documents.Unreadable) else manifest.brief(error)
        raise store.CheckpointError(f"{path} is not a run's record: {reason}") from error
    return described, script, shape


def params(run: Record, init: Callable[[Key], Params], which: Which = "latest") -> Params:
    """Read the averaged parameters of a checkpoint.

    Args:
      run: record of the run.
      init: initial parameters of its model, ``(key) -> params``; only their shapes are used.
      which: the last checkpoint, or the one with the lowest held-out loss.

    Raises:
      CheckpointError: there is no usable checkpoint.
    """
    ensemble = run.ensemble
    absent: Any = None  # only the average is read
    shapes = jax.eval_shape(lambda: ensemble.lift(lambda key, value: init(key), ())(*ensemble.keys_and_values))
    average = store.read(run.workdir, state.TrainState(absent, absent, shapes, absent), step=which).state.ema_params
    with jax.ensure_compile_time_eval():  # arrays, also where a program is being traced
        return jax.tree.map(lambda array: jnp.asarray(array[run.member] if ensemble.many else array), average)


class Options(conditions.Settings, Protocol):
    """The options of a command that asks a run."""

    BY_RECIPE: ClassVar[tuple[str, ...]]
    """Options that a run reads only where its recipe lists them."""

    @property
    def workdir(self) -> str:
        """Folder of the run."""


class OutputOptions(Protocol):
    """The options of a command that asks a run and writes a file."""

    @property
    def workdir(self) -> str:
        """Folder of the run."""

    @property
    def out(self) -> str:
        """File to write."""


def unread(
    options: Options, run: Record, readable: Mapping[str, conditions.Conditions], given: Collection[str], data: str = ""
) -> dict[str, str]:
    """Say of the given options that a run does not read why it does not.

    Args:
      options: options of the command.
      run: record of the run.
      readable: options that the run's recipe reads, each with the conditions under which.
      given: names of the options to look at.
      data: data that are read, where they are not those of the run.
    """
    table = {**conditions.table(type(options)), **readable}
    values = {**vars(run.settings), **({"data": data} if data else {}), **vars(options)}
    reasons = conditions.without_effect(table, types.SimpleNamespace(**values), given)
    for name in sorted({*options.BY_RECIPE} & {*given} - readable.keys()):
        readers = registry.commands(functools.partial(_reads, name))
        reasons[name] = f"has no effect here; it is read only of a run of {readers}"
    return reasons


def _reads(name: str, recipe: Recipe) -> bool:
    return name in recipe.sampler_options or name in recipe.score_options


def refuse_unread(
    options: Options, run: Record, readable: Mapping[str, conditions.Conditions], typed: Collection[str], data: str = ""
) -> None:
    """Refuse options that were typed, or that are not the default, and that the run does not read.

    Raises:
      UsageError: naming each of them, and the runs that read it.
    """
    defaults: Any = type(options)
    given = {*typed, *conditions.changed(options, defaults(options.workdir))}
    if reasons := unread(options, run, readable, given, data):
        raise config.UsageError("\n".join(f"{conditions.flag(name)}: {reasons[name]}" for name in sorted(reasons)))


def check_output(options: OutputOptions, suffixes: Sequence[str] = ()) -> pathlib.Path:
    """Check ``--out``: as ``files.check_output``, and it may not replace a file of a run, or one that is read.

    Args:
      options: options of a command that asks a run: ``workdir`` and ``out``.
      suffixes: endings, one of which the name must have; empty for any name.

    Raises:
      UsageError: the file cannot be written, or is needed as it is.
    """
    out = files.check_output(options.out, suffixes)
    if claims.belongs_to_a_run(out):
        raise config.UsageError(f"--out {files.shown(options.out)}: belongs to a run; name another file")
    read = [getattr(options, name, "") for name in ("terms", "inception", "recipe")]
    with contextlib.suppress(documents.Unreadable, LookupError, TypeError, AttributeError):  # refused when it is read
        data_read = documents.json_object(resolve(options.workdir) / "config.json")["config"]["data"]
        read.append(data_read.partition(":")[2])
    for path in filter(None, read):
        with contextlib.suppress(OSError, ValueError):
            if os.path.samefile(out, path if os.path.exists(path) else path.rpartition("#")[0]):
                raise config.UsageError(f"--out {files.shown(options.out)}: is what is read; name another file")
    return out


def check_data(run: Record, *fingerprints: str) -> None:
    """Refuse data that the run was not trained on; nobody knows the data of imported weights.

    Args:
      run: record of the run.
      fingerprints: fingerprints of the data at hand, one of which must be that of the run.

    Raises:
      DataError: the data are others.
    """
    about = run.described.get("data", {})
    if not data_forms.same_data(about, *fingerprints):
        known = str(about.get("fingerprint"))
        raise data.DataError(
            f"{run.workdir} was trained on other data than those at hand: fingerprint {files.shown(known[:12])} "
            f"({files.shown(str(about.get('name')))}), here {fingerprints[0][:12]}; a number of one is none of the "
            f"other: put back what {files.shown(run.settings.data)} was"
        )
