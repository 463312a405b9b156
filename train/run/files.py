"""Files that commands write and runs read back: written whole or not at all, and never through a link."""

import contextlib
import contextvars
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from train.run.usage import UsageError

Claim = Callable[[pathlib.Path], None]
_claim: contextvars.ContextVar[Claim | None] = contextvars.ContextVar("claim", default=None)
_PARTIAL = re.compile(r"\.[0-9a-f]{16}\.partial")


def replace(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file, text as UTF-8: all of it, durable, or nothing.

    It is written beside its place under a random name that nobody has, and then takes its place in one go.

    Raises:
      OSError: it cannot be written, or a link stands in its place.
    """
    path = pathlib.Path(path)
    if claim := _claim.get():
        claim(path)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link, which is not written through", str(path))
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(partial, flags, 0o666), "wb") as file:
            _flock(file.fileno())  # so that nobody takes it for a leftover
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append(path: str | os.PathLike, content: str, *, durable: bool = False) -> None:
    """Add to the end of a file, which is made if need be: all of the text, or nothing.

    Raises:
      OSError: it cannot be written, or a link stands in its place.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        size, rest = os.fstat(handle).st_size, content.encode()
        try:
            while rest:
                rest = rest[os.write(handle, rest) :]
        except OSError:
            os.ftruncate(handle, size)
            raise
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def claimed(claim: Claim) -> Iterator[None]:
    """Inside, ``replace`` first asks ``claim(path)``, which raises OSError where a file is not to be touched."""
    token = _claim.set(claim)
    try:
        yield
    finally:
        _claim.reset(token)


def sync(folder: pathlib.Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean(folder: pathlib.Path) -> None:
    """Remove what ``replace`` was killed over; what is being written stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _PARTIAL.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            with contextlib.suppress(OSError), open(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "rb") as file:
                if _flock(file.fileno()):
                    path.unlink()


def check_output(path: str | os.PathLike, suffixes: Sequence[str] = (), *, flag: str = "--out") -> pathlib.Path:
    """Refuse, before any work, a file that could not be written at the end.

    Args:
      path: of the file; ``~`` is the home folder.
      suffixes: one of which the name must have; any if there are none.
      flag: that named it.

    Returns:
      the path, absolute.

    Raises:
      UsageError: it is a folder, a link or a device; it is write-protected; its folder is missing, or cannot be
        written to.
    """
    said = f"{flag} {shown(path)}"
    try:
        out = pathlib.Path(os.path.expanduser(path)).absolute()
        if suffixes and out.suffix not in suffixes:
            raise UsageError(f"{said}: expected a name that ends in {' or '.join(suffixes)}")
        if not out.parent.is_dir():
            raise UsageError(f"{said}: there is no folder {shown(out.parent)}")
        with contextlib.suppress(FileNotFoundError):
            mode = out.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise UsageError(f"{said}: is a link to {shown(os.readlink(out))}; name the file itself")
            if stat.S_ISDIR(mode):
                raise UsageError(f"{said}: is a folder; name a file")
            if not stat.S_ISREG(mode):
                raise UsageError(f"{said}: is a device or a pipe; name a file")
            if not os.access(out, os.W_OK):
                raise UsageError(f"{said}: is write-protected; name another file")
        with tempfile.TemporaryFile(dir=out.parent) as probe:
            probe.write(b"can this folder be written to?")
    except OSError as error:
        raise UsageError(f"{said}: cannot be written: {error.strerror}; name another file") from error
    except ValueError as error:  # a NUL
        raise UsageError(f"{said}: {error}; name another file") from error
    return out


def content(path: str | os.PathLike, most: int = 64 << 20) -> bytes:
    """The bytes of a plain file.

    Raises:
      OSError: it is not there, is no plain file, or holds more than ``most`` bytes.
    """
    if os.path.isdir(path):  # of which ``open`` knows the number only
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a pipe may have no writer
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a plain file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"expected at most {most} bytes, got {status.st_size}", str(path))
        return file.read()


def lines(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The JSON objects of a ``.jsonl`` file, one a line; a line that is none is passed over.

    Raises:
      OSError: as ``content``.
    """
    for text in content(path, 1 << 32).decode("utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
            if isinstance(found, dict):
                yield found


def shown(text: str | os.PathLike, keep: str = "") -> str:
    """A name, or any text out of a file, as a terminal may show it: what could act on the terminal is spelled out.

    >>> print(shown("runs/café"), shown("runs/\\x1b[2J"))
    runs/café runs/\\x1b[2J

    Args:
      text: whatever came.
      keep: of what cannot be printed, what stays as it is; line breaks, say.
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in os.fspath(text))


def _flock(handle: int) -> bool:
    """Whether this process now has the file to itself."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # somebody else has it, or the file system has no locks
        return False
