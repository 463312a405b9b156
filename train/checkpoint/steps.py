"""The folder of steps, as names: which there are, which to take, what to clear away.

``<step>`` is a step. ``<step>.partial…`` is being written, ``<step>.pruned`` being removed: left by a run that was
killed, they are garbage. ``<step>.corrupt`` was found damaged, or no step at all, and is left for a person to look at.
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
    """The steps there are, the newest first, sound or not."""
    paths = root.iterdir() if root.is_dir() else ()
    return sorted((int(path.name) for path in paths if _STEP.fullmatch(path.name) and path.is_dir()), reverse=True)


def scores(root: pathlib.Path, run_id: str | None) -> dict[int, float | None]:
    """The score of every step that has a manifest.

    Raises:
      CheckpointError: a step belongs to another run, or to a newer version.
    """
    found = {}
    for step in steps(root):
        try:
            found[step] = manifest.read(root / str(step), run_id).score
        except manifest.Damaged:
            continue
    return found


def choose(root: pathlib.Path, which: int | Literal["latest", "best"]) -> list[int]:
    """The steps to try, in order.

    Raises:
      CheckpointError: there is none; the message says why.
    """
    found = steps(root)
    if not found:
        raise manifest.CheckpointError(_why_none(root))
    if which == "latest":
        return found
    chosen = best(scores(root, None)) if which == "best" else [step for step in found if step == which]
    if not chosen:
        raise manifest.CheckpointError(f"{root}: there is no {which} step; there are {', '.join(map(str, found))}")
    return chosen


def best(found: dict[int, float | None]) -> list[int]:
    """Steps with a score, the lowest first; of equal scores the newest first."""
    return [-minus for _, minus in sorted((score, -step) for step, score in found.items() if score is not None)]


def present(root: pathlib.Path, wanted: Iterable[int]) -> bool:
    """Whether all these steps are there."""
    return all((root / str(step)).is_dir() for step in wanted)


def first_sound(
    root: pathlib.Path, found: Sequence[int], load: Callable[[pathlib.Path], T]
) -> tuple[T, dict[int, str]]:
    """Load the first of the steps whose files are what was saved; and say what is wrong with those before it.

    Raises:
      CheckpointError: there is none.
    """
    damage: dict[int, str] = {}
    for step in found:
        try:
            with reading(root / str(step)):
                return load(root / str(step)), damage
        except manifest.Damaged as error:
            damage[step] = str(error)
    raise manifest.CheckpointError(f"{root}: every checkpoint is damaged:\n  " + "\n  ".join(damage.values()))


def warn(message: str) -> None:
    """A sentence on stderr, if anybody reads it."""
    terminal.write_line(f"warning: {message}", sys.stderr)


def report(damage: Mapping[int, str], used: int, warn: Warn) -> None:
    """Warn of damaged steps, in whose place another is used."""
    for step, reason in damage.items():
        warn(f"checkpoint of step {step} is damaged ({reason}); using step {used} instead")


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Keep a step from being removed while it is read, by a shared lock that changes nothing on disk.

    Raises:
      Damaged: the step is not a folder, or no longer.
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
    """Remove a step, unless somebody is reading it: first its name, in one go, then its files."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB):
            gone = folder.with_name(f"{folder.name}.pruned")
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
    finally:
        os.close(handle)


def number(path: pathlib.Path) -> int | None:
    """Of the step that a folder is, or was before it was set aside; None of a folder with another name."""
    found = _NUMBERED.fullmatch(path.name)
    return int(found[1]) if found else None


def prepare(root: pathlib.Path) -> list[pathlib.Path]:
    """Make the folder of steps; remove what killed runs left half written or half removed, and set aside what has the
    name of a step and is no folder. Only for who holds the lock.

    Returns:
      what was set aside, under its new name.

    Raises:
      CheckpointError: a file or a link is in its place.
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
    """Remove what killed runs left half written or half removed. Only for who holds the lock."""
    for path in root.iterdir() if root.is_dir() else ():
        if _GARBAGE.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Rename a damaged step so that it is none; an equal one that was set aside before makes room.

    Returns:
      where it is now.
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
    """Whether a folder has the files that make a step, sound or not."""
    return not path.is_symlink() and any((path / name).is_file() for name in manifest.FILES)


def _flock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        return False
    except OSError:  # this file system has no locks: go without
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
