"""Safe reading of foreign files: regular files only, with limits on size and decompression."""

import io
import json
import os
import pathlib
import stat
from typing import Any

from genjax.data.dataset import DataError

PLAIN = 1 << 26
RATIO = 300
"""Maximum ratio of unpacked to stored bytes, above 64 MB. A higher ratio is taken for a decompression bomb: deflate
reaches 1032 on zeros, and real images stay below 100."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: pathlib.Path) -> io.BufferedReader:
    """Open a regular file for reading.

    Raises:
      DataError: the file is missing, or is a folder, a device, or a pipe, which would block.
    """
    try:
        _demand_regular(path, os.stat(path).st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        _demand_regular(path, os.fstat(file.fileno()).st_mode)  # the path may have changed since
    except DataError:
        file.close()
        raise
    return file


def is_regular(path: pathlib.Path) -> bool:
    """True if the path is a regular file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def length(file: io.BufferedReader) -> int:
    """Length of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def read(path: pathlib.Path, most: int) -> bytes:
    """Read the whole content.

    Raises:
      DataError: the file is not regular, or has more than ``most`` bytes.
    """
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if len(content) > most:
        raise DataError(f"{path} has more than {most} bytes")
    return content


def read_json(path: pathlib.Path, most: int = 1 << 24) -> Any:
    """Parse a JSON file, with or without a byte-order mark.

    Raises:
      DataError: the file is not regular, too long, or not JSON.
    """
    try:
        return json.loads(read(path, most).decode("utf-8-sig"))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error


def most_plausible(stored: int) -> int:
    """Maximum number of bytes that this number of stored bytes may unpack to."""
    return max(PLAIN, RATIO * stored)


def demand_plausible(claimed: int, stored: int) -> None:
    """Refuse to unpack a likely decompression bomb.

    Raises:
      DataError: the content claims more than ``most_plausible(stored)`` bytes.
    """
    if claimed > most_plausible(stored):
        raise DataError(f"{stored} bytes claim to hold {claimed}: a decompression bomb?")


def demand_memory(nbytes: int) -> None:
    """Refuse to allocate more than the memory of the machine.

    Raises:
      DataError: the message says how much memory there is.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # unknown on this system
        return
    if nbytes > total:
        raise DataError(f"{nbytes:,} bytes of images are more than the {total:,} of this machine's memory; take fewer")


def _demand_regular(path: pathlib.Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "something else")
        raise DataError(f"{path} is {kind}, not a file")
