"""Any folder of pictures as a data set."""

import concurrent.futures
import os
import pathlib
import warnings
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from genjax.data import dataset, images
from genjax.data.dataset import DataError, Dataset

MAX_BAD = 0.01


def folder(
    path: str | os.PathLike[str],
    size: int,
    *,
    channels: int = 3,
    heldout_fraction: float = 0.05,
    background: images.Colour = (255, 255, 255),
    on_bad_image: Literal["raise", "skip"] = "raise",
) -> Dataset:
    """All pictures below a folder, in memory, as uint8[n size size channels].

    Files are taken by their suffix (``images.SUFFIXES``, in either case) from the folder and all below it; names that
    start with a dot are left out, and links to folders are not followed. The order is that of the bytes of the path
    relative to the folder, with ``/`` between its parts, whatever the locale. How modes, transparency and orientation
    are read stands in ``genjax.data.images``.

    Held out is a picture whose relative path has a SHA-256 below ``heldout_fraction`` of 2²⁵⁶; of two or more pictures
    at least one, of a single one none. When every picture lies in a folder just below ``path``, these folders, in
    order of their bytes, are the classes 0, 1, ...; otherwise there is no "label".

    Args:
      path: the folder.
      size: height and width; a picture's central square is resampled to it (``images.fit``).
      channels: 1 or 3.
      heldout_fraction: in (0, 1).
      background: RGB in 0 to 255, seen through transparent pixels.
      on_bad_image: "raise", or "skip" with a warning when no more than 1 % of the pictures are bad.

    Raises:
      DataError: there is no such folder, no picture, or a bad one; all bad ones are listed.
      ValueError: ``size``, ``channels`` or ``heldout_fraction`` is out of range.
    """
    if size < 1 or channels not in (1, 3):
        raise ValueError(f"size, channels: expected a size of 1 or more, and 1 or 3 channels; got {size}, {channels}")
    root = pathlib.Path(path).expanduser()
    names = _list(root)
    image, bad = _read_all(root, names, size, channels, background)
    if bad:
        _report(root, bad, len(names), on_bad_image)
    kept = [i for i in range(len(names)) if names[i] not in bad]
    rows = {"image": image[kept] if bad else image} | _labels(names, kept)
    heldout = dataset.hold_out([os.fsencode(names[i].as_posix()) for i in kept], heldout_fraction)
    return dataset.divide(root.resolve().name, rows, heldout)


def _list(root: pathlib.Path) -> list[pathlib.PurePath]:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected the folder that holds the images")
    found = []
    for place, folders, files in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        suits = (name for name in files if not name.startswith(".") and name.lower().endswith(images.SUFFIXES))
        found += [pathlib.Path(place, name).relative_to(root) for name in suits]
    if not found:
        raise DataError(f"{root} holds no images; expected files whose names end in {', '.join(images.SUFFIXES)}")
    return sorted(found, key=lambda name: os.fsencode(name.as_posix()))


def _raise(error: OSError) -> None:
    raise DataError(f"{error.filename}: {error.strerror}") from error


def _read_all(
    root: pathlib.Path, names: list[pathlib.PurePath], size: int, channels: int, background: images.Colour
) -> tuple[UInt8[np.ndarray, "n h w c"], dict[pathlib.PurePath, str]]:
    """The images, and why some could not be read; several at once, as decoders release the interpreter's lock."""
    out = np.zeros((len(names), size, size, channels), np.uint8)
    bad = {}

    def place(i: int) -> None:
        try:
            out[i] = images.read(root / names[i], size, channels, background)
        except DataError as error:
            bad[names[i]] = str(error)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(place, range(len(names))))
    return out, bad


def _report(root: pathlib.Path, bad: dict[pathlib.PurePath, str], num: int, on_bad_image: str) -> None:
    some = "\n".join(f"  {name.as_posix()!r}: {bad[name]}" for name in sorted(bad)[:20])
    more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
    message = f"{root}: {len(bad)} of {num} images cannot be read:\n{some}{more}"
    if on_bad_image == "raise":
        raise DataError(f'{message}\nrepair or remove them, or pass on_bad_image="skip"')
    if len(bad) > MAX_BAD * num:
        raise DataError(f"{message}\nthese are more than {MAX_BAD:.0%}, too many to skip")
    warnings.warn(message, stacklevel=3)


def _labels(names: list[pathlib.PurePath], kept: list[int]) -> dataset.Split:
    if any(len(name.parts) != 2 for name in names):
        return {}
    classes = sorted({name.parts[0] for name in names}, key=os.fsencode)
    number = {name: i for i, name in enumerate(classes)}
    return {"label": np.array([number[names[i].parts[0]] for i in kept], np.int32)}
