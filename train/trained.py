"""What a run left: its settings, its model and its parameters."""

import json
import pathlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax

from genjax.training import state
from genjax.types import Key, Params
from train import checkpoint, config, members


class Record(NamedTuple):
    """What ``config.json`` tells of a run.

    Fields:
      workdir: of the run.
      script: that trained it.
      settings: of that script.
      shape: (h, w, c) of the images.
    """

    workdir: pathlib.Path
    script: str
    settings: Any
    shape: tuple[int, int, int]


def record(workdir: pathlib.Path, scripts: Mapping[str, ModuleType]) -> Record:
    """The record of a run of one of the scripts.

    Raises:
      CheckpointError: the workdir holds no such run.
    """
    path = workdir / "config.json"
    if not path.is_file():
        names = " or ".join(f"python -m train.{name}" for name in scripts)
        raise checkpoint.CheckpointError(f"{workdir} holds no run: there is no config.json; train one with {names}")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        script, shape = described["script"], tuple(described["data"]["train"][1:])
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoint.CheckpointError(f"{path} is not a run's record: {error}") from error
    if script not in scripts:
        wanted = " or ".join(f"train.{name}" for name in scripts)
        raise checkpoint.CheckpointError(f"{workdir} was trained by train.{script}; expected a run of {wanted}")
    return Record(workdir, script, config.read(scripts[script].Config, script, str(path)), shape)


def params(
    run: Record, init: Callable[[Key], Params], member: int = 0, which: Literal["latest", "best"] = "latest"
) -> Params:
    """The averaged parameters of a checkpoint.

    Args:
      run: of ``record``.
      init: of its model.
      member: which, where the run trained many.
      which: the last checkpoint, or the one with the lowest held-out loss.

    Raises:
      UsageError: there are not so many members.
      CheckpointError: there is no usable checkpoint.
    """
    lineup = members.of(run.settings)
    if not 0 <= member < len(lineup.seeds):
        raise config.UsageError(f"member {member}: {run.workdir} has {len(lineup.seeds)}, numbered from 0")
    absent: Any = None  # only the average is read
    shapes = jax.eval_shape(lambda: lineup.lift(lambda key, value: init(key), ())(lineup.keys, lineup.values))
    found = checkpoint.read(run.workdir, state.TrainState(absent, absent, shapes, absent), step=which).state.ema_params
    return jax.tree.map(lambda array: array[member], found) if lineup.many else found
