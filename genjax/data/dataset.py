"""Data sets: named arrays in two splits, their checks and their fingerprint, and the choice of held-out rows."""

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
    """Missing, broken or unsuitable data; the message says which, and what to do.

    Unprintable characters of the message are escaped, because names and texts from files may hold terminal commands.
    """

    def __init__(self, message: object) -> None:
        super().__init__(legible(str(message)))


def legible(text: str) -> str:
    r"""Escape the unprintable characters of a text, except line breaks.

    >>> legible("a\x1b[2J\nb")
    'a\\x1b[2J\nb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class Dataset(NamedTuple):
    """Images in memory, in two splits.

    Attributes:
      name: name of the data set.
      train: training rows, ``{"image": uint8[n h w c], "label": int32[n]}``; without "label" if there are no labels.
      heldout: held-out rows under the same names, which training never sees.
      left_out: number of skipped files by their kind: ``{".heic": 1990}``.
    """

    name: str
    train: Split
    heldout: Split
    left_out: Mapping[str, int] = MappingProxyType({})


def summary(dataset: Dataset) -> str:
    """Summary in one line: ``pics: 475 to train, 25 held out, 2 classes; left out: 2 files (.heic 1, hidden 1)``."""
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

    The name and the path of the data set do not count: equal arrays have equal fingerprints.
    """
    digest = hashlib.sha256()
    for split in ("train", "heldout"):
        for name, array in sorted(getattr(dataset, split).items()):
            digest.update(json.dumps([split, name, array.dtype.str, array.shape]).encode() + b"\n")
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def expand_path(path: str | os.PathLike[str]) -> pathlib.Path:
    """Return the path with ``~`` replaced by the user's home folder.

    Raises:
      DataError: the path is empty or invalid.
    """
    if not os.fspath(path) or "\0" in os.fspath(path):
        raise DataError(f"expected a path, got {os.fspath(path)!r}")
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}") from error


def to_int32(values: np.ndarray) -> Int32[np.ndarray, " n"]:
    """Convert labels of any integer type to int32.

    Raises:
      DataError: a label does not fit.
    """
    span = np.iinfo(np.int32)
    outside = values[(values < span.min) | (values > span.max)]
    if outside.size:
        raise DataError(f"labels: expected whole numbers of 32 bits, got {outside.flat[0]}")
    return values.astype(np.int32)


def unit_hashes(names: Iterable[bytes]) -> Float64[np.ndarray, " n"]:
    """Numbers in [0, 1) that depend only on the names: the first 8 bytes of their SHA-256, over 2⁶⁴."""
    heads = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names]
    return np.array(heads, np.float64) / 2.0**64


def row_names(num: int) -> list[bytes]:
    """Names of the rows of unnamed data: their numbers in decimal."""
    return [str(i).encode() for i in range(num)]


def hold_out(names: list[bytes], fraction: float) -> Bool[np.ndarray, " n"]:
    """Mask of the held-out rows: those with ``unit_hashes(name) < fraction``.

    A row stays in its split when other rows are added or removed, with one exception: of two or more rows, the row of
    the lowest hash is always held out, and the row of the highest never. A single row is for training.

    Args:
      names: distinct names of the rows.
      fraction: expected fraction of held-out rows, in (0, 1).

    Raises:
      ValueError: ``fraction`` is outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"heldout_fraction: expected a number between 0 and 1, got {fraction}")
    hashes = unit_hashes(names)
    num = len(names)
    count = min(max(int((hashes < fraction).sum()), 1), num - 1)
    mask = np.zeros(num, bool)
    mask[np.argsort(hashes, kind="stable")[:count]] = True
    return mask


def split_rows(name: str, rows: Split, heldout: Bool[np.ndarray, " n"]) -> Dataset:
    """Split rows into a data set; the mask ``heldout`` marks the held-out rows."""
    return Dataset(name, {k: v[~heldout] for k, v in rows.items()}, {k: v[heldout] for k, v in rows.items()})


def validated(dataset: Dataset) -> Dataset:
    """Check a data set, and return it.

    Raises:
      DataError: there are no training rows; the arrays of a split differ in length; or the splits differ in names or
        shapes.
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
