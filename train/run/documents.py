"""JSON and TOML files of settings and numbers: reading ends in a value or in ``Unreadable``."""

import contextlib
import json
import pathlib
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from train.run import files, usage

LARGEST = 2**24
"""Largest size of a file of settings or numbers, in bytes."""


class Unreadable(ValueError):
    """The file is missing or broken.

    Attributes:
      reason: error without the name of the file; the message has both.
    """

    def __init__(self, path: pathlib.Path, reason: object):
        super().__init__(f"{files.shown(path)}: {reason}")
        self.reason = str(reason)


def text(path: pathlib.Path, most: int = LARGEST) -> str:
    """Read a UTF-8 text file, without its byte-order mark.

    Raises:
      Unreadable: the file is missing, no plain file, too large, or not UTF-8.
    """
    try:
        return files.content(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(path, f"byte {error.start} is no UTF-8 text") from error
    except (OSError, ValueError) as error:  # the name may hold a NUL
        raise Unreadable(path, getattr(error, "strerror", None) or error) from error


def json_object(path: pathlib.Path) -> dict[str, Any]:
    """Read the object in a JSON file.

    Raises:
      Unreadable: the file holds no object, or an object names a key twice.
    """
    return _table(path, "JSON", lambda content: json.loads(content, object_pairs_hook=_unique))


def toml(path: pathlib.Path) -> dict[str, Any]:
    """Read the table in a TOML file.

    Raises:
      Unreadable: the file holds no table.
    """
    return _table(path, "TOML", tomllib.loads)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turn an OSError while writing a file that the user asked for into a UsageError.

    Raises:
      UsageError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise usage.UsageError(
            f"{files.shown(path)}: cannot be written: {error.strerror}; name another file"
        ) from error


def _table(path: pathlib.Path, kind: str, parse: Callable[[str], Any]) -> dict[str, Any]:
    content = text(path)
    try:
        table = parse(content)
    except RecursionError as error:
        raise Unreadable(path, "it is nested too deeply") from error
    except (ValueError, OverflowError) as error:  # numbers with thousands of digits included
        raise Unreadable(path, f"not {kind}: {error}") from error
    if not isinstance(table, dict):
        raise Unreadable(path, f"expected an object in braces, got {usage.show(table)}")
    return table


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"it has {usage.show(name)} twice")
        table[name] = value
    return table
