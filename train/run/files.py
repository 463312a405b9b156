"""Files of commands and runs: written whole or not at all, and never through a link."""

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
    """Write a file, text as UTF-8: all of it, durably, or nothing.

    The content is written beside the file under a random name, and then renamed in one go.

    Raises:
      OSError: the file cannot be written, or is a link.
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
            _flock(file.fileno())  # else `clean` would take it for a leftover
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
    """Add text to the end of a file, which need not exist: all of the text, or nothing.

    Raises:
      OSError: the file cannot be written, or is a link.
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
    """Make ``replace`` call ``claim(path)`` first, which raises OSError for a file that must not be touched."""
    token = _claim.set(claim)
    try:
        yield
    finally:
        _claim.reset(token)


def sync(folder: pathlib.Path) -> None:
    """Write the names in a folder durably to disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def clean(folder: pathlib.Path) -> None:
    """Remove the leftovers of killed calls of ``replace``; files that are being written stay."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _PARTIAL.fullmatch(path.name) and stat.S_ISREG(path.lstat().st_mode):
            with contextlib.suppress(OSError), open(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "rb") as file:
                if _flock(file.fileno()):
                    path.unlink()


def check_output(path: str | os.PathLike, suffixes: Sequence[str] = (), *, flag: str = "--out") -> pathlib.Path:
    """Refuse, before any work, a file that could not be written at the end.

    Args:
      path: path of the file; ``~`` is the home folder.
      suffixes: allowed suffixes; all if there are none.
      flag: flag that named the file.

    Returns:
      absolute path.

    Raises:
      UsageError: the file is a folder, a link, a device or write-protected; or its folder is missing, or cannot be
        written to.
    """
    what = f"{flag} {shown(path)}"
    try:
        out = pathlib.Path(os.path.expanduser(path)).absolute()
        if suffixes and out.suffix not in suffixes:
            raise UsageError(f"{what}: expected a name that ends in {' or '.join(suffixes)}")
        if not out.parent.is_dir():
            raise UsageError(f"{what}: there is no folder {shown(out.parent)}")
        with contextlib.suppress(FileNotFoundError):
            mode = out.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise UsageError(f"{what}: is a link to {shown(os.readlink(out))}; name the file itself")
            if stat.S_ISDIR(mode):
                raise UsageError(f"{what}: is a folder; name a file")
            if not stat.S_ISREG(mode):
                raise UsageError(f"{what}: is a device or a pipe; name a file")
            if not os.access(out, os.W_OK):
                raise UsageError(f"{what}: is write-protected; name another file")
        with tempfile.TemporaryFile(dir=out.parent) as probe:
            probe.write(b"can this folder be written to?")
    except OSError as error:
        raise UsageError(f"{what}: cannot be written: {error.strerror}; name another file") from error
    except ValueError as error:  # a NUL
        raise UsageError(f"{what}: {error}; name another file") from error
    return out


def content(path: str | os.PathLike, most: int = 64 << 20) -> bytes:
    """Read the bytes of a plain file.

    Raises:
      OSError: the file is missing, is no plain file, or holds more than ``most`` bytes.
    """
    if os.path.isdir(path):  # for which the error of ``open`` lacks the name
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # a pipe may have no writer
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "expected a plain file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"expected at most {most} bytes, got {status.st_size}", str(path))
        return file.read()


def lines(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The JSON objects of a ``.jsonl`` file, one a line; a line without an object is passed over.

    Raises:
      OSError: the file cannot be read, as for ``content``.
    """
    for text in content(path, 1 << 32).decode("utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            if isinstance(value, dict):
                yield value


def shown(text: str | os.PathLike, keep: str = "") -> str:
    """Escape a name, or any text out of a file, for the terminal: control characters are spelled out.

    >>> print(shown("runs/café"), shown("runs/\\x1b[2J"))
    runs/café runs/\\x1b[2J

    Args:
      text: text to escape.
      keep: control characters to leave as they are, such as line breaks.
    """
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in os.fspath(text))


def _flock(handle: int) -> bool:
    """Lock a file; True if this process now has the file to itself."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # another process has the lock, or the file system has no locks
        return False
