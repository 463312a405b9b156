"""Checkpoint directory: list, select and prune steps.

``<step>`` is a step. ``<step>.partial…`` is a step being written, and ``<step>.pruned`` a step being removed; left
behind by a killed run, both are garbage. ``<step>.corrupt`` is a damaged step, or no step at all; it stays, for a
person to inspect.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from train.checkpoint import manifest
from train.run import terminal

Warn = Callable[[str], None]
T = TypeVar("T")
_STEP = re.compile(r"0|[1-9][0-9]*")
_GARBAGE = re.compile(r"[0-9]+\.(partial(\.[0-9a-f]{16})?(\.orbax-checkpoint-tmp.*)?|pruned)")
_NUMBERED = re.compile(rf"({_STEP.pattern})(\.corrupt(\.[0-9]+)?)?")


def steps(root: pathlib.Path) -> list[int]:
    """The steps in the folder, newest first, intact or damaged."""
    paths = root.iterdir() if root.is_dir() else ()
    return sorted((int(path.name) for path in paths if _STEP.fullmatch(path.name) and path.is_dir()), reverse=True)


def scores(root: pathlib.Path, run_id: str | None) -> dict[int, float | None]:
    """The score of every step that has a manifest.

    Raises:
      CheckpointError: a step belongs to another run, or to a newer version of this program.
    """
    by_step = {}
    for step in steps(root):
        try:
            by_step[step] = manifest.read(root / str(step), run_id).score
        except manifest.Damaged:
            continue
    return by_step


def choose(root: pathlib.Path, which: int | Literal["latest", "best"]) -> list[int]:
    """The steps to try to read, in order.

    Raises:
      CheckpointError: there is no such step; the message says why.
    """
    existing = steps(root)
    if not existing:
        raise manifest.CheckpointError(_why_none(root))
    if which == "latest":
        return existing
    chosen = best(scores(root, None)) if which == "best" else [step for step in existing if step == which]
    if not chosen:
        raise manifest.CheckpointError(f"{root}: there is no {which} step; there are {', '.join(map(str, existing))}")
    return chosen


def best(scores: dict[int, float | None]) -> list[int]:
    """The steps with a score, lowest score first; of equal scores newest first."""
    return [-minus for _, minus in sorted((score, -step) for step, score in scores.items() if score is not None)]


def exist(root: pathlib.Path, numbers: Iterable[int]) -> bool:
    """True if all these steps exist."""
    return all((root / str(step)).is_dir() for step in numbers)


def load_first_intact(
    root: pathlib.Path, candidates: Sequence[int], load: Callable[[pathlib.Path], T]
) -> tuple[T, dict[int, str]]:
    """Load the first step whose files verify.

    Returns:
      loaded step, and the damage of the steps before it, by number.

    Raises:
      CheckpointError: every step is damaged.
    """
    damage: dict[int, str] = {}
    for step in candidates:
        try:
            with reading(root / str(step)):
                return load(root / str(step)), damage
        except manifest.Damaged as error:
            damage[step] = str(error)
    raise manifest.CheckpointError(f"{root}: every checkpoint is damaged:\n  " + "\n  ".join(damage.values()))


def warn(message: str) -> None:
    """Print a warning to stderr."""
    terminal.write_line(f"warning: {message}", sys.stderr)


def report(damage: Mapping[int, str], used: int, warn: Warn) -> None:
    """Warn of each damaged step, and name the step that is used instead."""
    for step, reason in damage.items():
        warn(f"checkpoint of step {step} is damaged ({reason}); using step {used} instead")


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Keep a step from being removed while it is read, by a shared lock that changes nothing on disk.

    Raises:
      Damaged: the step is no folder, or has been removed.
    """
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise manifest.Damaged(f"{folder}: {error.strerror}") from error
    try:
        _flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def remove(folder: pathlib.Path) -> None:
    """Remove a step, unless it is being read: first its name, in one go, then its files."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
            pruned = folder.with_name(f"{folder.name}.pruned")
            folder.rename(pruned)
            shutil.rmtree(pruned, ignore_errors=True)
    finally:
        os.close(handle)


def number(path: pathlib.Path) -> int | None:
    """The number of a step, by the name of its folder, also after it was set aside; None for any other folder."""
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None


def prepare(root: pathlib.Path) -> list[pathlib.Path]:
    """Make the folder of steps, remove garbage, and set aside whatever has the name of a step and is no folder.

    The caller holds the lock on the workdir.

    Returns:
      new paths of whatever was set aside.

    Raises:
      CheckpointError: the folder of steps is a file or a link.
    """
    try:
        root.mkdir(exist_ok=True)
    except OSError as error:
        raise manifest.CheckpointError(f"{root}: expected a folder, but: {error.strerror}; move it away") from error
    if root.is_symlink():
        raise manifest.CheckpointError(f"{root} is a link; put the folder itself there")
    clean(root)
    odd = [path for path in root.iterdir() if _STEP.fullmatch(path.name) and (path.is_symlink() or not path.is_dir())]
    return [set_aside(path) for path in sorted(odd)]


def clean(root: pathlib.Path) -> None:
    """Remove the steps that killed runs left half written or half removed. The caller holds the lock on the workdir."""
    for path in root.iterdir() if root.is_dir() else ():
        if _GARBAGE.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Rename a damaged step, so that it no longer counts as a step; an older damaged copy of it is removed.

    Returns:
      new path of the step.

    Raises:
      CheckpointError: there is no free name.
    """
    names = [f"{path.name}.corrupt", *(f"{path.name}.corrupt.{i}" for i in range(1, 1000))]
    for aside in map(path.with_name, names):
        if was_step(aside) and was_step(path):
            shutil.rmtree(aside, ignore_errors=True)
        if not os.path.lexists(aside):
            path.rename(aside)
            return aside
    raise manifest.CheckpointError(f"{path} is damaged and cannot be set aside; move it away")


def was_step(path: pathlib.Path) -> bool:
    """True if a folder has some of the files that make a step, intact or damaged."""
    return not path.is_symlink() and any((path / name).is_file() for name in manifest.FILES)


def _flock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks: go without
        pass
    return True


def _why_none(root: pathlib.Path) -> str:
    if not root.parent.is_dir():
        return f"workdir {root.parent}: there is no such folder"
    if os.path.lexists(root) and not root.is_dir():
        return f"{root}: expected a folder of checkpoints, got a file or a broken link"
    if root.is_dir() and any(_GARBAGE.fullmatch(path.name) for path in root.iterdir()):
        return f"{root}: the first checkpoint is still being written; try again in a moment"
    return f"workdir {root.parent} holds no checkpoint; train there first"
