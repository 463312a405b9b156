"""The lock on the folder of a run: one run at a time, in a folder that can be written to."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import jax

from train.run import files

_ME = {"pid": os.getpid(), "host": platform.node(), "process": uuid.uuid4().hex}
_held: dict[pathlib.Path, int] = {}  # handles of the lock files of this process, by folder


class WorkdirError(Exception):
    """The folder of the run is locked by another run, not writable, or no folder: exit code 2."""


class Locked(WorkdirError):
    """Another run holds the folder.

    Attributes:
      owner: entry of that run in the lock file: pid, host and process.
    """

    def __init__(self, path: pathlib.Path, owner: dict[str, Any]):
        known = {"pid", "host"} <= owner.keys()
        who = files.shown(f"pid {owner['pid']} on {owner['host']}") if known else "its pid is not known yet"
        super().__init__(f"workdir {path} is in use by another run ({who}); wait for it, or choose another --workdir")
        self.owner = owner


def resolve(workdir: str | os.PathLike) -> pathlib.Path:
    """Resolve the path of a run's folder: absolute, without links, ``..`` and ``~``.

    Raises:
      WorkdirError: no folder can have this name.
    """
    try:
        path = pathlib.Path(os.path.realpath(os.path.expanduser(workdir)))
        str(path).encode()  # orbax takes no other names
        return path
    except (OSError, ValueError) as error:  # ValueError: a NUL
        raise WorkdirError(f"workdir {files.shown(workdir)}: {error}; choose another --workdir") from error


def primary() -> bool:
    """True if this process writes the files of the run: the first process on several machines, or the only one."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


@contextlib.contextmanager
def lock(workdir: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Lock the folder of a run, which is made if need be, and check that it can be written to.

    The lock is the kernel's (``flock`` on ``.lock``), so it ends with the process, however the process ends. On several
    machines only the first process locks.

    Args:
      workdir: folder of the run.

    Yields:
      absolute path of the folder.

    Raises:
      WorkdirError: another run holds the folder, or the folder cannot be written to; raised at once.
    """
    path = resolve(workdir)
    if not primary():
        yield path
        return
    handle = _open(path)
    try:
        _acquire(path, handle)
        _held[path] = handle
        yield path
    finally:
        if _held.get(path) == handle:
            del _held[path]
        os.close(handle)


def held(path: pathlib.Path) -> bool:
    """True if the folder that this process has locked still exists and is the same one.

    The folder may have been removed, and another run may have begun in its place. Also true where another process of
    the run holds the lock.
    """
    if path not in _held:
        return not primary()
    try:
        return os.path.samestat(os.fstat(_held[path]), os.stat(path / ".lock", follow_symlinks=False))
    except OSError:
        return False


@contextlib.contextmanager
def hold(workdir: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Lock the folder of a run like ``lock``, but re-entrant in this process."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(lock(workdir))
        except Locked as error:
            if error.owner != _ME:
                raise
            path = resolve(workdir)
        yield path


def _open(path: pathlib.Path) -> int:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"can this folder be written to?")
        return os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise WorkdirError(f"workdir {path}: expected a folder, got a file; choose another --workdir") from None
    except OSError as error:
        raise WorkdirError(
            f"workdir {path} cannot be written to: {error.strerror}; choose another --workdir"
        ) from error


def _acquire(path: pathlib.Path, handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_size and not {"pid", "host"} <= _owner(handle).keys():
            raise WorkdirError(f"workdir {path} holds a file .lock that no run wrote; choose another --workdir")
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(_ME).encode(), 0)
    except BlockingIOError:
        raise Locked(path, _owner(handle)) from None
    except OSError as error:
        raise WorkdirError(
            f"workdir {path} cannot be locked: {error.strerror}; put --workdir on a local disk"
        ) from error


def _owner(handle: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except (ValueError, RecursionError):
        return {}
    return owner if isinstance(owner, dict) else {}
