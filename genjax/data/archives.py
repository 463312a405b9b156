"""Arrays of images in one ``.npz`` file."""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from genjax.data import arrays, dataset
from genjax.data.arrays import Header
from genjax.data.dataset import DataError, Dataset

HELDOUT_FRACTION = 0.05


class Layout(NamedTuple):
    """Names of the arrays of a data set; all but the first may be missing."""

    image: str
    label: str
    heldout_image: str = ""
    heldout_label: str = ""


LAYOUTS = (
    Layout("x_train", "y_train", "x_test", "y_test"),
    Layout("train_images", "train_labels", "test_images", "test_labels"),
    Layout("train_images", "train_labels", "val_images", "val_labels"),
    Layout("train_image", "train_label", "heldout_image", "heldout_label"),
    Layout("train", "train_labels", "test", "test_labels"),
    Layout("train", "train_labels", "heldout", "heldout_labels"),
    Layout("images", "labels"),
    Layout("image", "label"),
    Layout("x", "y"),
)


def npz(path: str | os.PathLike[str], *, key: str | None = None) -> Dataset:
    """Read the images of an ``.npz`` file: uint8, [n h w c] or [n h w].

    The images are the array ``key``; or the arrays of the usual names, with their labels and held-out rows if there are
    any (``LAYOUTS``: x_train y_train x_test y_test, train_images ..., images labels, x y, ...); or the only array of
    bytes with three or four axes. If no held-out rows are stored, row i is held out when the SHA-256 of i in decimal is
    below 5 % of 2²⁵⁶ (``dataset.hold_out``): the same rows for every array of a file.

    Args:
      path: path of the file. Nothing in it is unpickled, and nothing is allocated that the file cannot hold.
      key: name of the array of images, if there are several.

    Raises:
      DataError: the file is missing or damaged, or holds no such array; the message lists its arrays.
    """
    path = dataset.expand_path(path)
    headers = arrays.headers(path)
    layout = _layout(path, headers, key)
    train, heldout = (
        _rows(path, headers, image, label) for image, label in (layout[:2], layout[2:]) if not image or image in headers
    )
    if heldout:
        return dataset.validated(Dataset(path.stem, train, heldout))
    whole = dataset.validated(Dataset(path.stem, train, train))
    mask = dataset.hold_out(dataset.row_names(len(train["image"])), HELDOUT_FRACTION)
    return dataset.split_rows(path.stem, whole.train, mask)


def _layout(path: pathlib.Path, headers: dict[str, Header], key: str | None) -> Layout:
    named = [layout for layout in LAYOUTS if layout.image == (key or layout.image) and layout.image in headers]
    if named:
        return max(named, key=lambda layout: sum(name in headers for name in layout))
    bytes_ = [name for name, header in headers.items() if header.dtype == np.uint8 and len(header.shape) in (3, 4)]
    if key in headers or (key is None and len(bytes_) == 1):
        label = next((name for name in ("labels", "label", "y") if name in headers), "")
        return Layout(key or bytes_[0], label)
    held = ", ".join(f"{shown(name)}: {header}" for name, header in headers.items()) or "nothing"
    expected = f"an array {key!r}" if key else 'arrays named as "images", "x_train", ...; or choose one with key='
    raise DataError(f"{path}: expected {expected}; it holds {held}")


def shown(name: str) -> str:
    """Return a name from a file in one line, without control characters."""
    return name if name.isprintable() else repr(name)


def _rows(path: pathlib.Path, headers: dict[str, Header], image: str, label: str) -> dataset.Split:
    if not image:
        return {}
    rows = {"image": _images(path, image, headers[image])}
    if label in headers:
        rows["label"] = _labels(path, label, headers[label])
    return rows


def _images(path: pathlib.Path, key: str, header: Header) -> np.ndarray:
    shape, dtype = header.shape, header.dtype
    if dtype != np.uint8:
        raise DataError(
            f"{path}: {shown(key)} is {header}; expected uint8, levels 0 to 255: round and convert it first"
        )
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        order = "; move the channels to the end" if len(shape) == 4 and shape[1] in (1, 3) else ""
        raise DataError(f"{path}: {shown(key)} is {header}; expected [n h w], or [n h w c] with 1 or 3 channels{order}")
    array = arrays.member(path, key)
    return array if array.ndim == 4 else array[..., None]


def _labels(path: pathlib.Path, key: str, header: Header) -> np.ndarray:
    shape, dtype = header.shape, header.dtype
    if dtype.kind not in "iu" or len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise DataError(f"{path}: {shown(key)} is {header}; expected one integer per image")
    return dataset.to_int32(arrays.member(path, key).reshape(-1))
