"""Settings that name a place on disk, with ``~`` for the home folder."""

import dataclasses
import os
from typing import Any, TypeVar

from train.run.usage import UsageError

NAMES = (
    "config",
    "workdir",
    "data_dir",
    "out",
    "terms",
    "classifier",
    "inception",
    "source",
    "export",
    "file",
    "recipe",
)
"""Settings that name a place on disk; in ``data`` the place stands after the colon."""

S = TypeVar("S")


def expand_all(settings: S) -> S:
    """Expand ``~`` in every setting that names a place on disk.

    Raises:
      UsageError: there is no such home folder.
    """
    instance: Any = settings
    expanded: dict[str, Any] = {}
    for field in dataclasses.fields(instance):
        text = getattr(settings, field.name)
        if field.name in NAMES:
            expanded[field.name] = expand(field.name, text)
        elif field.name == "data":
            kind, colon, path = text.partition(":")
            expanded["data"] = kind + colon + expand("data", path)
    return dataclasses.replace(instance, **expanded)


def expand(name: str, path: str) -> str:
    """Expand ``~`` in a path.

    Args:
      name: setting that holds the path, for the message.
      path: path as typed.

    Raises:
      UsageError: there is no such home folder.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(f"{name} {path}: there is no such home folder; ./{path} is a file of that name")
    return expanded
