"""The folder of steps, as names: which there are, which to take, what to clear away.

``<step>`` is a step. ``<step>.partial…`` is being written, ``<step>.pruned`` being removed: left by a run that was
killed, they are garbage. ``<step>.corrupt`` was found damaged, and is left for a person to look at.
"""

import contextlib
import fcntl
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Literal

from train import manifest

_STEP = re.compile(r"0|[1-9][0-9]*")
_GARBAGE = re.compile(r"[0-9]+\.(partial.*|pruned)")


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


def clean(root: pathlib.Path) -> None:
    """Remove what killed runs left half written or half removed. Only for who holds the lock."""
    for path in root.iterdir() if root.is_dir() else ():
        if _GARBAGE.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def set_aside(folder: pathlib.Path) -> None:
    """Rename a damaged step so that it is none; one that was set aside before makes room."""
    aside = folder.with_name(f"{folder.name}.corrupt")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


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
    if root.is_dir() and any(_GARBAGE.fullmatch(path.name) for path in root.iterdir()):
        return f"{root}: the first checkpoint is still being written; try again in a moment"
    return f"workdir {root.parent} holds no checkpoint; train there first"
