"""Which data set a ``--data`` flag means."""

import difflib
from typing import Any

from genjax import data
from train.config import UsageError

FORMS = "digits, tfds:NAME, folder:PATH or npz:PATH[#KEY]"


# The shapes that are known before anything is read.
SHAPES = {
    "digits": (8, 8, 1),
    "tfds:mnist": (28, 28, 1),
    "tfds:fashion_mnist": (28, 28, 1),
    "tfds:cifar10": (32, 32, 3),
}


def check(settings: Any) -> None:
    """Refuse a ``--data`` that names no kind of data.

    Raises:
      UsageError: with the forms there are.
    """
    kind, _, rest = settings.data.partition(":")
    if settings.data == "digits" or (kind in ("tfds", "folder", "npz") and rest):
        return
    known = {f"tfds:{name}" for name in (kind, kind.replace("-", "_"))} & SHAPES.keys()
    close = [*known, *difflib.get_close_matches(kind, ["digits", "tfds", "folder", "npz"], n=1)]
    hint = f"; did you mean {close[0]}?" if close else ""
    raise UsageError(f"--data {settings.data}: expected {FORMS}{hint}")


def shape(settings: Any) -> tuple[int, int, int] | None:
    """(h, w, c) of the images, where the settings tell it; None where only the data does."""
    if settings.data.startswith("folder:"):
        return (settings.size, settings.size, settings.channels)
    return SHAPES.get(settings.data)


def load(settings: Any) -> data.Dataset:
    """The data set.

    Args:
      settings: of the script: ``data``, ``data_dir``, and the ``size`` and ``channels`` of images from a folder.

    Raises:
      genjax.data.DataError: it is missing, broken or out of reach.
    """
    kind, _, rest = settings.data.partition(":")
    if kind == "tfds":
        return data.tfds(rest, settings.data_dir or None, size=None if settings.data in SHAPES else settings.size)
    if kind == "folder":
        return data.folder(rest, settings.size, channels=settings.channels)
    if kind == "npz":
        path, _, key = rest.partition("#")
        return data.npz(path, key=key or None)
    return data.digits()
