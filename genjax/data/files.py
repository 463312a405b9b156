"""Files that somebody else has written: only regular ones are opened, and no more is read than is allowed."""

import io
import json
import os
import pathlib
import stat
from typing import Any

from genjax.data.dataset import DataError

PLAIN = 1 << 26
RATIO = 300
"""More than 300 bytes for each that is stored, once there are more than 64 MB, is taken for a decompression bomb:
deflate reaches 1032 on zeros, images that people train on stay below 100."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: pathlib.Path) -> io.BufferedReader:
    """The file, open for reading.

    Raises:
      DataError: there is none, or no file stands there: a folder, a device, or a pipe, which would be waited for.
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
        _demand_regular(path, os.fstat(file.fileno()).st_mode)  # another may stand there by now
    except DataError:
        file.close()
        raise
    return file


def is_regular(path: pathlib.Path) -> bool:
    """Whether a file that can be read stands there."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def length(file: io.BufferedReader) -> int:
    """Of an open file, in bytes."""
    return os.fstat(file.fileno()).st_size


def read(path: pathlib.Path, most: int) -> bytes:
    """The whole content.

    Raises:
      DataError: as ``open_regular``; or there are more than ``most`` bytes.
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
    """What stands in a file of JSON, with a byte-order mark or without.

    Raises:
      DataError: as ``read``; or it is no JSON.
    """
    try:
        return json.loads(read(path, most).decode("utf-8-sig"))
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error


def most_plausible(stored: int) -> int:
    """The bytes that so many stored ones may unpack to."""
    return max(PLAIN, RATIO * stored)


def demand_plausible(claimed: int, stored: int) -> None:
    """Refuse to unpack what would grow as only a decompression bomb does.

    Raises:
      DataError: more than RATIO times what is stored.
    """
    if claimed > most_plausible(stored):
        raise DataError(f"{stored} bytes claim to hold {claimed}: a decompression bomb?")


def demand_memory(nbytes: int) -> None:
    """Refuse to hold in memory what the machine has not.

    Raises:
      DataError: says how much there is.
    """
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # nobody says
        return
    if nbytes > total:
        raise DataError(f"{nbytes:,} bytes of images are more than the {total:,} of this machine's memory; take fewer")


def _demand_regular(path: pathlib.Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "something else")
        raise DataError(f"{path} is {kind}, not a file")
