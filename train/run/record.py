"""The record of a run, ``config.json``: written at every start, checked before a run resumes."""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from genjax import data
from train.checkpoint import manifest, steps, store
from train.checkpoint.lock import primary
from train.run import claims, config, data_forms, documents, files, logging, renamed
from train.run.task import num_rows

NAME = "config.json"

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_NEVER_REPORTED = ("config", "workdir", "restart", "override_resume", "traceback")
"""Settings of one start of a run; a change of them is no change of the run."""


def check(workdir: pathlib.Path, settings: config.Run, script: str = "") -> None:
    """Refuse a start that would overwrite foreign files, delete foreign files or resume with other settings.

    Args:
      workdir: folder of the run.
      settings: settings of the start.
      script: command that starts the run; "" skips the comparison with the command on record.

    Raises:
      UsageError: settings differ, with the old and the new value of each; or another command made the run.
      WorkdirError: foreign files are in the way; the message names them.
      CheckpointError: there are checkpoints but no record of the run that wrote them.
    """
    recorded = _read(workdir)
    if recorded is None:
        return claims.check_free(workdir)
    if settings.restart:
        return claims.check_restart(workdir, recorded["run_id"])
    claims.check_links(workdir)
    if script and recorded["script"] != script:
        raise config.UsageError(
            f"{workdir} was trained by train.{files.shown(str(recorded['script']))}; choose another --workdir for "
            f"train.{script}"
        )
    allowed, refused = _changes(recorded, settings)
    if refused and not settings.override_resume:
        raise config.UsageError(
            f"{workdir} holds a run with other settings:\n  " + "\n  ".join(refused) + "\n"
            "Use the old values, another --workdir, --override-resume to go on regardless, or --restart to delete that "
            "run and start over"
        )
    for line in allowed + refused:
        logging.log(f"changed since the last start: {line}")


def check_data(workdir: pathlib.Path, dataset: data.Dataset, fingerprint: str) -> None:
    """Refuse to resume a run on other data than the run was started with.

    Raises:
      UsageError: the fingerprints differ.
    """
    recorded = _read(workdir)
    if recorded and not data_forms.same_data(recorded["data"], fingerprint, data.fingerprint(dataset)):
        old = str(recorded["data"].get("fingerprint"))
        raise config.UsageError(
            f"{workdir} was trained on other data: fingerprint {files.shown(old[:12])} -> {fingerprint[:12]} "
            f"({dataset.name}). A run has one data set, whatever is overridden: use that one, or another --workdir"
        )


def run_id(workdir: pathlib.Path) -> str | None:
    """The name of the run in the workdir, which its checkpoints carry; None where there is no run."""
    recorded = _read(workdir)
    return recorded["run_id"] if recorded else None


def write(
    workdir: pathlib.Path, script: str, run_id: str, settings: config.Run, dataset: data.Dataset, fingerprint: str
) -> claims.Claims:
    """Write the record of a start.

    Args:
      workdir: folder of the run.
      script: command that trains the run.
      run_id: name of the run.
      settings: settings of the start.
      dataset: data set of the run.
      fingerprint: fingerprint of the data set.

    Returns:
      files that the run owns in the workdir.

    Raises:
      CheckpointError: the record cannot be written.
    """
    recorded = _read(workdir)
    if recorded and recorded["run_id"] != run_id:  # the old run is started over
        recorded = None
    shapes = {"train": _shape(dataset.train), "heldout": _shape(dataset.heldout)}
    return _write(
        workdir, script, run_id, settings, {"name": dataset.name, "fingerprint": fingerprint} | shapes, recorded
    )


def write_imported(
    workdir: pathlib.Path, script: str, run_id: str, settings: config.ImageRun, shape: tuple[int, int, int]
) -> None:
    """Write the record of a run whose weights come from elsewhere; its training data are unknown."""
    shapes = {"train": [0, *shape], "heldout": [0, *shape]}
    dataset = {"name": settings.data, "fingerprint": data_forms.IMPORTED, **shapes}
    _write(workdir, script, run_id, settings, dataset, None)


def _shape(split: Mapping[str, np.ndarray]) -> list[int]:
    """The shape [n h w c] of the images of a split, or [n] where the rows are no images."""
    return list(split["image"].shape) if "image" in split else [num_rows(split)]


def _changes(recorded: Mapping[str, Any], settings: config.Run) -> tuple[list[str], list[str]]:
    """Compare a record with the settings of a start: the changes that are allowed, and those that are refused."""
    # a setting younger than the run had its default
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}
    old = data_forms.with_defaults(defaults | data_forms.upgrade(recorded["config"]))
    new = data_forms.with_defaults(dataclasses.asdict(settings))
    # the name of the data is free: the fingerprint decides, once the data are read
    allowed, refused = config.changes(old, new, config.changeable(settings) | {"data"})
    if recorded["data"].get("fingerprint") == data_forms.IMPORTED:  # imported weights may be trained on in any way
        allowed, refused = allowed + refused, []
    return [line for line in allowed if line.partition(":")[0] not in _NEVER_REPORTED], refused


def _write(
    workdir: pathlib.Path,
    script: str,
    run_id: str,
    settings: config.Run,
    dataset: Mapping[str, Any],
    recorded: Mapping[str, Any] | None,
) -> claims.Claims:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    allowed, refused = _changes(recorded, settings) if recorded else ([], [])
    change = {"start": now, "changed": allowed, "overridden": refused}
    content = {
        "run_id": run_id,
        "script": script,
        "config": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in _PACKAGES}},
        "devices": _devices(),
        "data": dict(dataset),
        "starts": [*(recorded["starts"] if recorded else []), now],
        "changes": [*(recorded["changes"] if recorded else []), *([change] if allowed or refused else [])],
    }
    with manifest.as_checkpoint_error(workdir / NAME):
        owned = claims.Claims(workdir, run_id)
        if primary():
            files.replace(workdir / NAME, json.dumps(content, indent=2) + "\n")
    return owned


def _devices() -> dict[str, Any]:
    return {
        "platform": jax.default_backend(),
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The record of the run in a workdir, or None where there is no run.

    Raises:
      CheckpointError: the record is missing or broken, and there are checkpoints.
      WorkdirError: the record is broken, and there are no checkpoints.
    """
    path = workdir / NAME
    # without a record, or with a broken one, nobody can use the checkpoints
    kind = store.CheckpointError if steps.scores(workdir / "checkpoints", None) else store.WorkdirError
    if not os.path.lexists(path):
        if kind is store.CheckpointError:
            raise kind(f"{workdir} holds checkpoints but no config.json; put it back, or choose another --workdir")
        return None
    try:
        content = documents.json_object(path)
        kinds = {"run_id": str, "config": dict, "data": dict, "starts": list}
        if wrong := [name for name, expected in kinds.items() if not isinstance(content.get(name), expected)]:
            raise documents.Unreadable(path, f"no {wrong[0]}")
        content["config"] = renamed.translate(str(content.get("script")), content["config"])
    except ValueError as error:
        reason = error.reason if isinstance(error, documents.Unreadable) else error
        raise kind(f"{path} is not a run's record: {reason}; put that back, or choose another --workdir") from error
    changes = content.get("changes")
    return {"script": None} | content | {"changes": changes if isinstance(changes, list) else []}
