"""What a data set is: named arrays in two splits; what holds for all of them, and who is held out."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32

KINDS_SHOWN = 6

Split = dict[str, np.ndarray]
"""Named arrays with a common leading axis n."""


class DataError(ValueError):
    """The data are missing, broken, or not what was asked for; the message says which, and what to do.

    What cannot be printed is escaped: the message may hold names and texts that stand in files, and those may hold
    commands for a terminal.
    """

    def __init__(self, message: object):
        super().__init__(legible(str(message)))


def legible(text: str) -> str:
    r"""The text with everything that cannot be printed escaped, line breaks excepted.

    >>> legible("a\x1b[2J\nb")
    'a\\x1b[2J\nb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class Dataset(NamedTuple):
    """Images in memory, in two splits.

    Fields:
      name: what to call it.
      train: ``{"image": uint8[n h w c], "label": int32[n]}``; no "label" where there are none.
      heldout: the same names; rows that training never sees.
      left_out: what was met but not taken, and how often: ``{".heic": 1990}``.
    """

    name: str
    train: Split
    heldout: Split
    left_out: Mapping[str, int] = MappingProxyType({})


def summary(dataset: Dataset) -> str:
    """One line: ``pics: 475 to train, 25 held out, 2 classes; left out: 1992 files (.heic 1990, hidden 2)``."""
    label = dataset.train.get("label")
    classes = "no labels" if label is None else f"{len(np.unique(label))} classes"
    parts = [f"{len(dataset.train['image'])} to train", f"{len(dataset.heldout['image'])} held out", classes]
    most_first = sorted(dataset.left_out.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join([f"{kind} {count}" for kind, count in most_first[:KINDS_SHOWN]])
    more = ", …" if len(most_first) > KINDS_SHOWN else ""
    total = sum(dataset.left_out.values())
    left = f"; left out: {total} file{'s' * (total > 1)} ({kinds}{more})" if total else ""
    return legible(f"{dataset.name}: {', '.join(parts)}{left}").replace("\n", "\\n")


def fingerprint(dataset: Dataset) -> str:
    """SHA-256 over the names, shapes, dtypes and bytes of both splits, in hexadecimal; 0.1 s for MNIST.

    The name of the data set and the place it was read from do not count: equal arrays have equal fingerprints.
    """
    digest = hashlib.sha256()
    for split in ("train", "heldout"):
        for name, array in sorted(getattr(dataset, split).items()):
            digest.update(json.dumps([split, name, array.dtype.str, array.shape]).encode() + b"\n")
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def place(path: str | os.PathLike[str]) -> pathlib.Path:
    """The path, with ``~`` for the user's home folder where there is one.

    Raises:
      DataError: it is empty, or no path at all.
    """
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise DataError(f"expected a path, got {os.fspath(path)!r}")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}") from error


def labels(values: np.ndarray) -> Int32[np.ndarray, " n"]:
    """Whole numbers of any width as int32.

    Raises:
      DataError: one of them does not fit.
    """
    span = np.iinfo(np.int32)
    outside = values[(values < span.min) | (values > span.max)]
    if outside.size:
        raise DataError(f"labels: expected whole numbers of 32 bits, got {outside.flat[0]}")
    return values.astype(np.int32)


def draws(names: Iterable[bytes]) -> Float64[np.ndarray, " n"]:
    """A number in [0, 1) for each name, and by the name alone: the first 8 bytes of its SHA-256, over 2⁶⁴."""
    heads = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names]
    return np.array(heads, np.float64) / 2.0**64


def row_names(num: int) -> list[bytes]:
    """The names of rows without a name: their numbers in decimal."""
    return [str(i).encode() for i in range(num)]


def hold_out(names: list[bytes], fraction: float) -> Bool[np.ndarray, " n"]:
    """Which of the named rows are held out: those with ``draws(name) < fraction``.

    A row keeps its side when others come or go, up to one exception: of two or more rows at least one, that of the
    lowest draw, is held out, and at least one, that of the highest, is not. A single row is for training.

    Args:
      names: one name per row, distinct.
      fraction: expected part of the rows, in (0, 1).

    Raises:
      ValueError: ``fraction`` is outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"heldout_fraction: expected a number between 0 and 1, got {fraction}")
    order = draws(names)
    num = len(names)
    count = min(max(int((order < fraction).sum()), 1), num - 1)
    mask = np.zeros(num, bool)
    mask[np.argsort(order, kind="stable")[:count]] = True
    return mask


def divide(name: str, rows: Split, heldout: Bool[np.ndarray, " n"]) -> Dataset:
    """The data set whose held-out rows are marked in ``heldout``."""
    return Dataset(name, {k: v[~heldout] for k, v in rows.items()}, {k: v[heldout] for k, v in rows.items()})


def checked(dataset: Dataset) -> Dataset:
    """The data set itself, when it is one.

    Raises:
      DataError: there is nothing to train on; a split's arrays differ in length; the splits differ in names or shapes.
    """
    name, train, heldout = dataset[:3]
    if train["image"].size == 0:
        raise DataError(f"{name}: expected at least one image of at least one pixel, got shape {train['image'].shape}")
    for part, split in (("training", train), ("held-out", heldout)):
        lengths = {key: len(array) for key, array in split.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{name}: the {part} arrays differ in length: {lengths}; one label per image is needed")
    shapes = [{key: array.shape[1:] for key, array in split.items()} for split in (train, heldout)]
    if shapes[0] != shapes[1]:
        raise DataError(f"{name}: training and held-out examples differ in names or shapes: {shapes[0]}, {shapes[1]}")
    return dataset
