"""What a run writes about itself: config.json, metrics.jsonl, lines on the terminal."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from genjax import data
from train.checkpoint import manifest, steps, store
from train.checkpoint.lock import primary
from train.run import claims, config, data_forms, documents, files, metric_lines, sweep, terminal
from train.run.metric_lines import aligned

__all__ = ["CLOCKS", "Interval", "Log", "aligned", "check", "imported", "run_id", "say", "write"]

CLOCKS = ("seconds", "steps_per_second")
"""The fields of metrics.jsonl that differ between a run and its repetition."""


def say(text: str) -> None:
    """A line for whoever watches; nobody need be there."""
    if jax.process_index() == 0:
        terminal.tell(text)


def check(workdir: pathlib.Path, settings: config.Run, script: str = "") -> None:
    """Refuse to begin where something is in the way, to start over where what is there is not the run's own, or to go
    on with a run that was made with other settings.

    Raises:
      UsageError: naming each setting, its old and its new value; or the script that made the run.
      WorkdirError: naming what is in the way.
      CheckpointError: there are checkpoints but no record of what made them.
    """
    old = _read(workdir)
    if old is None:
        return claims.check_free(workdir)
    if settings.restart:
        return claims.check_restart(workdir, old["run_id"])
    claims.check_links(workdir)
    if script and old["script"] != script:
        raise config.UsageError(
            f"{workdir} was trained by train.{files.shown(str(old['script']))}; choose another --workdir for "
            f"train.{script}"
        )
    allowed, refused = _changes(old, settings)
    if refused and not settings.override_resume:
        raise config.UsageError(
            f"{workdir} holds a run with other settings:\n  " + "\n  ".join(refused) + "\n"
            "Use the old values, another --workdir, --override-resume to go on regardless, or --restart to delete that "
            "run and start over"
        )
    for line in allowed + refused:
        say(f"changed since the last start: {line}")


def _changes(old: Mapping[str, Any], settings: config.Run) -> tuple[list[str], list[str]]:
    """What differs from a run's record: what may, and what may not."""
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}  # of settings younger than the run
    # where the data lie is free: what is in them decides, when they are read
    then, now = (
        data_forms.meant(defaults | data_forms.recorded(old["config"])),
        data_forms.meant(dataclasses.asdict(settings)),
    )
    allowed, refused = config.changes(then, now, config.free(settings) | {"data"})
    if old["data"].get("fingerprint") == data_forms.IMPORTED:  # weights from elsewhere may be trained on in any way
        allowed, refused = allowed + refused, []
    ignored = ("config: ", "workdir: ", "restart: ", "override_resume: ", "traceback: ")
    return [line for line in allowed if not line.startswith(ignored)], refused


def run_id(workdir: pathlib.Path) -> str | None:
    """The name of the run in the workdir, which its checkpoints carry; None where there is none."""
    old = _read(workdir)
    return old["run_id"] if old else None


def check_data(workdir: pathlib.Path, dataset: data.Dataset, fingerprint: str) -> None:
    """Refuse to go on with a run on other data than it was started with.

    Raises:
      UsageError: they are others.
    """
    old = _read(workdir)
    if old and not data_forms.same_data(old["data"], fingerprint, data.fingerprint(dataset)):
        known = str(old["data"].get("fingerprint"))
        raise config.UsageError(
            f"{workdir} was trained on other data: fingerprint {files.shown(known[:12])} -> {fingerprint[:12]} "
            f"({dataset.name}). A run is of one data set, whatever is overridden: use that, or another --workdir"
        )


def write(
    workdir: pathlib.Path, script: str, name: str, settings: config.Run, dataset: data.Dataset, fingerprint: str
) -> claims.Claims:
    """Write config.json.

    Args:
      workdir: of the run.
      script: that trains it.
      name: of the run.
      settings: of it.
      dataset: that it is trained on.
      fingerprint: of the data set.

    Returns:
      what the run owns in the workdir.

    Raises:
      CheckpointError: it cannot be written.
    """
    old = _read(workdir)
    if old and old["run_id"] != name:  # it is started over
        old = None
    about = {
        "name": dataset.name,
        "fingerprint": fingerprint,
        "train": list(dataset.train["image"].shape),
        "heldout": list(dataset.heldout["image"].shape),
    }
    return _describe(workdir, script, name, settings, about, old)


def imported(
    workdir: pathlib.Path, script: str, name: str, settings: config.ImageRun, shape: tuple[int, int, int]
) -> None:
    """Write config.json of a run whose weights come from elsewhere, and whose data nobody has seen."""
    about = {"name": settings.data, "fingerprint": data_forms.IMPORTED, "train": [0, *shape], "heldout": [0, *shape]}
    _describe(workdir, script, name, settings, about, None)


def _describe(
    workdir: pathlib.Path, script: str, name: str, settings: config.Run, about: Any, old: Mapping[str, Any] | None
) -> claims.Claims:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    allowed, refused = _changes(old, settings) if old else ([], [])
    change = {"start": now, "changed": allowed, "overridden": refused}
    described = {
        "run_id": name,
        "script": script,
        "config": dataclasses.asdict(settings),
        "versions": {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}},
        "devices": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "processes": jax.process_count(),
            "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        },
        "data": about,
        "starts": [*(old["starts"] if old else []), now],
        "changes": [*(old["changes"] if old else []), *([change] if allowed or refused else [])],
    }
    with manifest.kept(workdir / "config.json"):
        own = claims.Claims(workdir, name)
        if primary():
            files.replace(workdir / "config.json", json.dumps(described, indent=2) + "\n")
    return own


class Interval:
    """Sums of the metrics since the last line; part of a checkpoint, so that a resumed run writes the same lines.

    Raises:
      CheckpointError: what was saved are no such sums.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None):
        try:
            self.count = int(saved["count"]) if saved is not None else 0
            self.sums = {name: float(total) for name, total in saved["sums"].items()} if saved is not None else {}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise store.CheckpointError(f"the checkpoint does not hold the sums of its metrics: {error}") from error

    def add(self, metrics: Mapping[str, np.ndarray]) -> None:
        """Take in the metrics [num] of some steps."""
        self.count += len(metrics["loss"])
        for name, values in metrics.items():
            for value in values.tolist():  # one by one: the sum must not depend on how steps are grouped into calls
                self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """The averages."""
        return {name: total / self.count for name, total in self.sums.items()}

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.count, "sums": self.sums}


class Log:
    """metrics.jsonl, and the same on the terminal and, where installed, in TensorBoard."""

    def __init__(self, workdir: pathlib.Path, settings: config.Run, done: int, own: claims.Claims):
        self.path = workdir / "metrics.jsonl"
        self.total, self.every = settings.steps, settings.every
        self.silent = jax.process_index() != 0
        self.bar: Any = None
        self.board: Any = None
        self.started = time.monotonic()
        self.compiled: set[int] = set()
        self.timed_steps, self.timed_seconds = 0, 0.0
        if self.silent:
            return
        self.lines = metric_lines.Lines(self.path, settings, done, own)
        if self.lines.aside is not None:
            say(f"the lines of before are kept in {self.lines.aside}")
        if sys.stdout is not None and sys.stdout.isatty():
            self.bar = tqdm.tqdm(total=settings.steps, initial=done, unit="step", dynamic_ncols=True)
        self.board = metric_lines.tensorboard(workdir / "tensorboard", own)

    @contextlib.contextmanager
    def timed(self, num: int) -> Iterator[None]:
        """Around a compiled call of ``num`` steps; the first of its kind compiles, and is not counted as speed."""
        before = time.monotonic()
        yield
        if num in self.compiled:
            self.timed_steps += num
            self.timed_seconds += time.monotonic() - before
        self.compiled.add(num)
        self._show(lambda bar: bar.update(num))

    def write(self, means: Mapping[str, Any]) -> None:
        """Add a line, with the clock's fields."""
        if self.silent:
            return
        speed = self.timed_steps / self.timed_seconds if self.timed_steps else None
        line = {**means, "seconds": round(time.monotonic() - self.started, 3)}
        if speed:
            line["steps_per_second"] = round(speed, 3)
        self.timed_steps, self.timed_seconds = 0, 0.0
        self.lines.append(line)
        if self.board is not None:
            try:
                for name, value in line.items():
                    if not isinstance(value, dict):
                        self.board.add_scalar(name, value, line["step"])
            except Exception as error:
                store.warn(f"TensorBoard: {error}; nothing more is written for it")
                self.board = None
        shown = {"loss": "loss", "heldout_loss": "held out"}
        text = "  ".join(f"{label} {line[name]:.4f}" for name, label in shown.items() if name in line)
        if each := line.get("heldout_members", {}).get("loss"):
            text += f" ± {sweep.standard_error(np.array(each)):.2g} over {len(each)} members"
        if self.bar is not None:
            self._show(lambda bar: bar.set_postfix_str(text))
        elif line["step"] % self.every == 0 or line["step"] == self.total:
            pace = f"  {speed:.3g} steps/s" if speed else ""
            say(f"step {line['step']:>{len(str(self.total))}}/{self.total}  {text}{pace}")

    def members(self, step: int) -> dict[str, np.ndarray]:
        """The held-out metrics [m] of a step by name, where many members are trained."""
        line = next((line for line in files.lines(self.path) if line.get("step") == step), {})
        return {name: np.array(values) for name, values in line.get("heldout_members", {}).items()}

    def close(self) -> None:
        """Let go of the terminal."""
        self._show(lambda bar: bar.close())

    def _show(self, act: Callable[[Any], Any]) -> None:
        if self.bar is not None:
            with contextlib.suppress(OSError, ValueError):  # the terminal has gone
                act(self.bar)


def _read(workdir: pathlib.Path) -> dict[str, Any] | None:
    path = workdir / "config.json"
    # of checkpoints without a record, and of a record that is broken, nobody else can make anything
    kind = store.CheckpointError if steps.scores(workdir / "checkpoints", None) else store.WorkdirError
    if not os.path.lexists(path):
        if kind is store.CheckpointError:
            raise kind(f"{workdir} holds checkpoints but no config.json; put it back, or choose another --workdir")
        return None
    try:
        old = documents.json_object(path)
        kinds = {"run_id": str, "config": dict, "data": dict, "starts": list}
        if wrong := [name for name, kind_of in kinds.items() if not isinstance(old.get(name), kind_of)]:
            raise documents.Unreadable(path, f"no {wrong[0]}")
    except documents.Unreadable as error:
        raise kind(
            f"{path} is not a run's record: {error.reason}; put that back, or choose another --workdir"
        ) from error
    return {"script": None} | old | {"changes": found if isinstance(found := old.get("changes"), list) else []}
