"""Files of settings and numbers, JSON and TOML: what is read back ends in a value or in ``Unreadable``."""

import contextlib
import json
import pathlib
import tomllib
from collections.abc import Iterator
from typing import Any

from train.run import files, usage

LARGEST = 2**24
"""Bytes of a file of settings or numbers; more is something else."""


class Unreadable(ValueError):
    """The file is not what it should be; the message says which file, and ``reason`` what is wrong with it."""

    def __init__(self, path: pathlib.Path, reason: object):
        super().__init__(f"{files.shown(path)}: {reason}")
        self.reason = str(reason)


def text(path: pathlib.Path, most: int = LARGEST) -> str:
    """What stands in a text file, without a byte-order mark.

    Raises:
      Unreadable: it is missing, no plain file, too large, or not UTF-8.
    """
    try:
        return files.content(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(path, f"byte {error.start} is no UTF-8 text") from error
    except (OSError, ValueError) as error:  # the name may hold a NUL
        raise Unreadable(path, getattr(error, "strerror", None) or error) from error


def json_object(path: pathlib.Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
      Unreadable: there is none, or it names a key twice.
    """
    return _table(path, "JSON", lambda content: json.loads(content, object_pairs_hook=_once))


def toml(path: pathlib.Path) -> dict[str, Any]:
    """The table that a TOML file holds.

    Raises:
      Unreadable: there is none.
    """
    return _table(path, "TOML", tomllib.loads)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Around the writing of what the user asked for: a disk that is full, or that does not let us, is one line.

    Raises:
      UsageError: what is in the way.
    """
    try:
        yield
    except OSError as error:
        raise usage.UsageError(
            f"{files.shown(path)}: cannot be written: {error.strerror}; name another file"
        ) from error


def _table(path: pathlib.Path, kind: str, read: Any) -> dict[str, Any]:
    content = text(path)
    try:
        found = read(content)
    except RecursionError as error:
        raise Unreadable(path, "it is nested too deeply") from error
    except (ValueError, OverflowError) as error:  # of numbers with thousands of digits too
        raise Unreadable(path, f"not {kind}: {error}") from error
    if not isinstance(found, dict):
        raise Unreadable(path, f"expected an object in braces, got {usage.show(found)}")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {usage.show(name)} twice")
        found[name] = value
    return found
