"""What a run left: its settings, its model and its parameters."""

import contextlib
import os
import pathlib
import types
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from genjax import data
from genjax.training import state
from genjax.types import Key, Params
from train.checkpoint import manifest, store
from train.checkpoint.lock import resolve
from train.run import claims, config, data_forms, documents, files, startup, sweep


class Record(NamedTuple):
    """What ``config.json`` tells of a run.

    Fields:
      workdir: of the run.
      script: that trained it.
      settings: of that script; where the run trained many, with the member's value of what was swept.
      shape: (h, w, c) of the images.
      ensemble: all the members of the run.
      member: which one is meant.
      described: all that ``config.json`` says.
    """

    workdir: pathlib.Path
    script: str
    settings: Any
    shape: tuple[int, int, int]
    ensemble: sweep.Ensemble
    member: int
    described: Mapping[str, Any] = types.MappingProxyType({})


def record(workdir: pathlib.Path, scripts: Mapping[str, ModuleType], member: int = 0) -> Record:
    """The record of a run of one of the scripts.

    Args:
      workdir: of the run.
      scripts: by name.
      member: which, where the run trained many.

    Raises:
      CheckpointError: the workdir holds no such run.
      UsageError: there are not so many members.
    """
    workdir = resolve(workdir)
    path = workdir / "config.json"
    if not path.exists():
        names = " or ".join(map(startup.program, scripts))
        raise store.CheckpointError(f"{workdir} holds no run: there is no config.json; train one with {names}")
    try:
        described = documents.json_object(path)
        script, shape = described["script"], tuple(described["data"]["train"][1:])
        if not isinstance(script, str) or not all(type(size) is int and size > 0 for size in shape) or len(shape) != 3:
            raise documents.Unreadable(path, "expected a script, and the shape of its images")
    except (documents.Unreadable, LookupError, TypeError) as error:
        reason = error.reason if isinstance(error, documents.Unreadable) else manifest.brief(error)
        raise store.CheckpointError(f"{path} is not a run's record: {reason}") from error
    if script not in scripts:
        wanted = " or ".join(f"train.{name}" for name in scripts)
        raise store.CheckpointError(f"{workdir} was trained by train.{files.shown(script)}; expected a run of {wanted}")
    ensemble = sweep.ensemble(config.read(scripts[script].Config, script, str(path)))
    if not 0 <= member < len(ensemble.seeds):
        raise config.UsageError(f"member {member}: {workdir} has {len(ensemble.seeds)}, numbered from 0")
    settings = ensemble.with_value(None if ensemble.values is None else float(ensemble.values[member]))
    return Record(workdir, script, settings, shape, ensemble, member, described)


def check_output(settings: Any, suffixes: Sequence[str] = ()) -> pathlib.Path:
    """As ``files.check_output`` of ``--out``; nor may it take the place of what a run has written, or what is read.

    Args:
      settings: of a command that asks a run: ``workdir``, ``out``.
      suffixes: one of which the name must have; any if there are none.

    Raises:
      UsageError: the file cannot be written, or is needed as it is.
    """
    out = files.check_output(settings.out, suffixes)
    if claims.belongs_to_a_run(out):
        raise config.UsageError(f"--out {files.shown(settings.out)}: belongs to a run; name another file")
    read = [getattr(settings, name, "") for name in ("terms", "inception")]
    with contextlib.suppress(documents.Unreadable, LookupError, TypeError, AttributeError):  # refused when it is read
        data_read = documents.json_object(resolve(settings.workdir) / "config.json")["config"]["data"]
        read.append(data_read.partition(":")[2])
    for path in filter(None, read):
        with contextlib.suppress(OSError, ValueError):
            if os.path.samefile(out, path if os.path.exists(path) else path.rpartition("#")[0]):
                raise config.UsageError(f"--out {files.shown(settings.out)}: is what is read; name another file")
    return out


def check_data(run: Record, *fingerprints: str) -> None:
    """Refuse data that are not those the run was trained on; of weights from elsewhere nobody knows these.

    Args:
      run: of ``record``.
      fingerprints: of the data at hand; one of them must be that of the run.

    Raises:
      DataError: they are others.
    """
    about = run.described.get("data", {})
    if not data_forms.same_data(about, *fingerprints):
        known = str(about.get("fingerprint"))
        raise data.DataError(
            f"{run.workdir} was trained on other data than those at hand: fingerprint {files.shown(known[:12])} "
            f"({files.shown(str(about.get('name')))}), here {fingerprints[0][:12]}; a number of one is none of the "
            f"other: put back what {files.shown(run.settings.data)} was"
        )


def params(run: Record, init: Callable[[Key], Params], which: Literal["latest", "best"] = "latest") -> Params:
    """The averaged parameters of a checkpoint.

    Args:
      run: of ``record``.
      init: of its model.
      which: the last checkpoint, or the one with the lowest held-out loss.

    Raises:
      CheckpointError: there is no usable checkpoint.
    """
    ensemble = run.ensemble
    absent: Any = None  # only the average is read
    shapes = jax.eval_shape(lambda: ensemble.lift(lambda key, value: init(key), ())(*ensemble.keys_and_values))
    found = store.read(run.workdir, state.TrainState(absent, absent, shapes, absent), step=which).state.ema_params
    with jax.ensure_compile_time_eval():  # arrays, also where a program is being traced
        return jax.tree.map(lambda array: jnp.asarray(array[run.member] if ensemble.many else array), found)
