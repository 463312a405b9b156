"""What a run writes about itself: config.json, metrics.jsonl, lines on the terminal."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import tqdm

from genjax import data
from train import checkpoint, config, members, streams

IMPORTED = "imported"
"""The fingerprint of data that a run has not seen."""

CLOCKS = ("seconds", "steps_per_second")
"""The fields of metrics.jsonl that differ between a run and its repetition."""


def say(text: str) -> None:
    """A line for whoever watches; nobody need be there."""
    if jax.process_index() == 0:
        streams.tell(text)


def check(workdir: pathlib.Path, settings: config.Run) -> None:
    """Refuse to go on with a run that was made with other settings.

    Raises:
      UsageError: naming each setting, its old and its new value.
      CheckpointError: there are checkpoints but no record of what made them.
    """
    old = _read(workdir)
    if old is None:
        return
    free = config.FREE - ({"steps"} if settings.schedule == "cosine" else set())
    defaults = {field.name: field.default for field in dataclasses.fields(settings)}  # of settings younger than the run
    allowed, refused = config.changes(defaults | old["config"], dataclasses.asdict(settings), free)
    seen = old.get("data", {}).get("fingerprint") != IMPORTED  # weights from elsewhere may be trained on in any way
    if refused and seen and not settings.override_resume:
        raise config.UsageError(
            f"{workdir} holds a run with other settings:\n  " + "\n  ".join(refused) + "\n"
            "Use the old values, another --workdir, --restart to start over, or --override-resume to go on regardless"
        )
    ignored = ("config: ", "workdir: ", "restart: ", "override_resume: ", "traceback: ")
    for line in allowed + refused:
        if not line.startswith(ignored):
            say(f"changed since the last start: {line}")


def run_id(workdir: pathlib.Path) -> str:
    """The name of the run in the workdir, which its checkpoints carry; a new one where there is none."""
    old = _read(workdir)
    return old["run_id"] if old else uuid.uuid4().hex


def write(workdir: pathlib.Path, script: str, name: str, settings: config.Run, dataset: data.Dataset) -> None:
    """Write config.json.

    Raises:
      UsageError: the data set is not the one the run was started with.
    """
    fingerprint = data.fingerprint(dataset)
    old = _read(workdir)
    known = old and old["data"]["fingerprint"] != IMPORTED
    if old and known and old["data"]["fingerprint"] != fingerprint and not settings.override_resume:
        raise config.UsageError(
            f"{workdir} was trained on other data: fingerprint {old['data']['fingerprint'][:12]} -> {fingerprint[:12]} "
            f"({dataset.name}). Use the old data, another --workdir, or --restart to start over"
        )
    about = {
        "name": dataset.name,
        "fingerprint": fingerprint,
        "train": list(dataset.train["image"].shape),
        "heldout": list(dataset.heldout["image"].shape),
    }
    _describe(workdir, script, name, settings, about, old["starts"] if old else [])


def imported(
    workdir: pathlib.Path, script: str, name: str, settings: config.ImageRun, shape: tuple[int, int, int]
) -> None:
    """Write config.json of a run whose weights come from elsewhere, and whose data nobody has seen."""
    about = {"name": settings.data, "fingerprint": IMPORTED, "train": [0, *shape], "heldout": [0, *shape]}
    _describe(workdir, script, name, settings, about, [])


def _describe(workdir: pathlib.Path, script: str, name: str, settings: config.Run, about: Any, starts: Any) -> None:
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
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
        "starts": [*starts, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")],
    }
    if jax.process_index() == 0:
        _replace(workdir / "config.json", json.dumps(described, indent=2) + "\n")


def clear(workdir: pathlib.Path) -> None:
    """Remove what a run left, and nothing else."""
    for name in ("checkpoints", "samples", "tensorboard"):
        shutil.rmtree(workdir / name, ignore_errors=True)
    for name in ("config.json", "metrics.jsonl", "curves.png", "members.png", "rate-distortion.png"):
        (workdir / name).unlink(missing_ok=True)


class Interval:
    """Sums of the metrics since the last line; part of a checkpoint, so that a resumed run writes the same lines."""

    def __init__(self, saved: Mapping[str, Any] | None = None):
        self.count: int = saved["count"] if saved else 0
        self.sums: dict[str, float] = dict(saved["sums"]) if saved else {}

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

    def __init__(self, workdir: pathlib.Path, settings: config.Run, done: int):
        self.path = workdir / "metrics.jsonl"
        self.total, self.every = settings.steps, settings.every
        self.silent = jax.process_index() != 0
        self.bar = None
        self.started = time.monotonic()
        self.compiled: set[int] = set()
        self.timed_steps, self.timed_seconds = 0, 0.0
        if self.silent:
            return
        _replace(self.path, "".join(json.dumps(line) + "\n" for line in _unbroken(self.path, settings, done)))
        if sys.stdout.isatty():
            self.bar = tqdm.tqdm(total=settings.steps, initial=done, unit="step", dynamic_ncols=True)
        self.board = _tensorboard(workdir / "tensorboard")

    @contextlib.contextmanager
    def timed(self, num: int) -> Iterator[None]:
        """Around a compiled call of ``num`` steps; the first of its kind compiles, and is not counted as speed."""
        before = time.monotonic()
        yield
        if num in self.compiled:
            self.timed_steps += num
            self.timed_seconds += time.monotonic() - before
        self.compiled.add(num)
        if self.bar is not None:
            self.bar.update(num)

    def write(self, means: Mapping[str, Any]) -> None:
        """Add a line, with the clock's fields."""
        if self.silent:
            return
        speed = self.timed_steps / self.timed_seconds if self.timed_steps else None
        line = {**means, "seconds": round(time.monotonic() - self.started, 3)}
        if speed:
            line["steps_per_second"] = round(speed, 3)
        self.timed_steps, self.timed_seconds = 0, 0.0
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in line.items():
                if not isinstance(value, dict):
                    self.board.add_scalar(name, value, line["step"])
        shown = {"loss": "loss", "heldout_loss": "held out"}
        text = "  ".join(f"{label} {line[name]:.4f}" for name, label in shown.items() if name in line)
        if each := line.get("heldout_members", {}).get("loss"):
            text += f" ± {members.standard_error(np.array(each)):.2g} over {len(each)} members"
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        elif line["step"] % self.every == 0 or line["step"] == self.total:
            pace = f"  {speed:.3g} steps/s" if speed else ""
            say(f"step {line['step']:>{len(str(self.total))}}/{self.total}  {text}{pace}")

    def close(self) -> None:
        """Let go of the terminal."""
        if self.bar is not None:
            self.bar.close()


def aligned(settings: config.Run, step: int) -> bool:
    """Whether an unbroken run writes a line after this step."""
    return step % settings.log_every == 0 or step % settings.every == 0


def _read(workdir: pathlib.Path) -> dict[str, Any] | None:
    path = workdir / "config.json"
    if not path.exists():
        if any((workdir / "checkpoints").glob("[0-9]*")):
            raise checkpoint.CheckpointError(f"{workdir} holds checkpoints but no config.json; --restart starts over")
        return None
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        return {name: old[name] for name in ("run_id", "config", "data", "starts")}
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoint.CheckpointError(f"{path} is not a run's record ({error}); --restart starts over") from error


def _replace(path: pathlib.Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _unbroken(path: pathlib.Path, settings: config.Run, done: int) -> Iterator[dict[str, float]]:
    """The lines that a run would have written up to this step, had it never stopped."""
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:  # cut off in the middle
            continue
        if line["step"] <= done and aligned(settings, line["step"]):
            report = line["step"] % settings.every == 0  # the last step of a shorter run was one too
            yield {name: value for name, value in line.items() if report or not name.startswith("heldout_")}


def _tensorboard(folder: pathlib.Path):
    try:
        import tensorboardX
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(folder))
