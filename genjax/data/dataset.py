"""What a data set is: named arrays in two splits; what holds for all of them, and who is held out."""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

Split = dict[str, np.ndarray]
"""Named arrays with a common leading axis n."""


class DataError(ValueError):
    """The data are missing, broken, or not what was asked for; the message says which, and what to do."""


class Dataset(NamedTuple):
    """Images in memory, in two splits.

    Fields:
      name: what to call it.
      train: ``{"image": uint8[n h w c], "label": int32[n]}``; no "label" where there are none.
      heldout: the same names; rows that training never sees.
    """

    name: str
    train: Split
    heldout: Split


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
    name, train, heldout = dataset
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
