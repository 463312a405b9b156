"""Any folder of pictures as a data set."""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import stat
import threading
import warnings
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genjax.data import dataset, files, images
from genjax.data.dataset import DataError, Dataset

MAX_BAD = 0.01
MAX_IN_FLIGHT = images.MAX_PIXELS
"""Pixels that are held decoded at a time, whatever the number of threads: as many as one picture may have."""
LITTER = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archivers and network drives leave, with pictures in them that are nobody's."""


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

    Files are taken by their suffix (``images.SUFFIXES``, in either case) from the folder and all below it. A link to a
    folder is followed unless that folder has been read already. Left out, and counted in ``left_out``, are all other
    files, empty ones, pipes and devices, and what archivers, editors and network drives leave: names that start with a
    dot or with ``~$``, and LITTER. The order is that of the bytes of the path relative to the folder, with ``/``
    between its parts, whatever the locale. How modes, transparency and orientation are read stands in
    ``genjax.data.images``.

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
      ValueError: ``size``, ``channels``, ``heldout_fraction`` or ``on_bad_image`` is out of range.
    """
    if size < 1 or channels not in (1, 3):
        raise ValueError(f"size, channels: expected a size of 1 or more, and 1 or 3 channels; got {size}, {channels}")
    if on_bad_image not in ("raise", "skip"):
        raise ValueError(f'on_bad_image: expected "raise" or "skip", got {on_bad_image!r}')
    root = dataset.place(path)
    names, left_out = _list(root)
    found = _read_all(root, names, size, channels, background)
    if found.bad:
        _report(root, found.bad, len(names), on_bad_image)
        left_out["unreadable"] = len(found.bad)
    if found.dark:
        warnings.warn(
            f"{str(root)!r}: {len(found.dark)} pictures, {min(found.dark)!r} one: {images.DARK_REMARK}", stacklevel=2
        )
    kept = [i for i in range(len(names)) if names[i] not in found.bad]
    rows = {"image": found.image[kept] if found.bad else found.image} | _labels(names, kept)
    heldout = dataset.hold_out([os.fsencode(names[i].as_posix()) for i in kept], heldout_fraction)
    return dataset.divide(root.resolve().name, rows, heldout)._replace(left_out=dict(left_out))


def _list(root: pathlib.Path) -> tuple[list[pathlib.PurePath], collections.Counter[str]]:
    """The pictures, and how often what was left out; folders before links to folders, so that each is read once."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected the folder that holds the images")
    found: list[pathlib.PurePath] = []
    left_out: collections.Counter[str] = collections.Counter()
    folders, links, seen = [root], list[pathlib.Path](), set[tuple[int, int]]()
    while folders or links:
        links.sort(key=os.fsencode, reverse=True)
        place = folders.pop() if folders else links.pop()
        for entry in _entries(place, seen):
            about, path = _about(entry), pathlib.Path(entry.path)
            suffix = path.suffix.lower()
            if entry.name.startswith((".", "~$")) or entry.name in LITTER:
                left_out["hidden"] += 1
            elif about and stat.S_ISDIR(about.st_mode):
                (links if entry.is_symlink() else folders).append(path)
            elif suffix not in images.SUFFIXES:
                left_out[suffix or "without suffix"] += 1
            elif about and not stat.S_ISREG(about.st_mode):
                left_out["pipes and devices"] += 1
            elif about and not about.st_size:
                left_out["empty"] += 1
            else:
                found.append(path.relative_to(root))
    if not found:
        known, met = ", ".join(images.SUFFIXES), ", ".join(f"{kind!r} {n}" for kind, n in left_out.most_common(6))
        raise DataError(
            f"{root} holds no images; expected files whose names end in {known}" + (f"; there are {met}" if met else "")
        )
    return sorted(found, key=lambda name: os.fsencode(name.as_posix())), left_out


def _entries(place: pathlib.Path, seen: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """What a folder holds, once."""
    try:
        about = os.stat(place)
        if (about.st_dev, about.st_ino) in seen:
            return []
        seen.add((about.st_dev, about.st_ino))
        with os.scandir(place) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{place}: {error.strerror}") from error


def _about(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:  # a link to nowhere
        return None


class _Found(NamedTuple):
    """The images; why some could not be read; the names of those of 16 bits that are nearly black."""

    image: UInt8[np.ndarray, "n h w c"]
    bad: dict[pathlib.PurePath, str]
    dark: set[str]


def _read_all(
    root: pathlib.Path, names: list[pathlib.PurePath], size: int, channels: int, background: images.Colour
) -> _Found:
    """Several at once, as decoders release the interpreter's lock."""
    files.demand_memory(len(names) * size * size * channels)
    found = _Found(np.zeros((len(names), size, size, channels), np.uint8), {}, set())
    allowance = _Allowance(MAX_IN_FLIGHT)

    def place(i: int) -> None:
        try:
            picture = images.picture(root / names[i], size, channels, background, allowance.take)
            found.image[i] = picture.pixels
            if picture.dark:
                found.dark.add(names[i].as_posix())
        except DataError as error:
            found.bad[names[i]] = str(error)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(place, range(len(names))))
    return found


class _Allowance:
    """So many pixels at a time among all threads; a picture that has more waits until it is alone."""

    def __init__(self, most: int):
        self.most, self.taken, self.changed = most, 0, threading.Condition()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + pixels <= self.most)
            self.taken += pixels
        try:
            yield
        finally:
            with self.changed:
                self.taken -= pixels
                self.changed.notify_all()


def _report(root: pathlib.Path, bad: dict[pathlib.PurePath, str], num: int, on_bad_image: str) -> None:
    some = "\n".join(f"  {name.as_posix()!r}: {bad[name]}" for name in sorted(bad)[:20])
    more = f"\n  and {len(bad) - 20} more" if len(bad) > 20 else ""
    message = dataset.legible(f"{root}: {len(bad)} of {num} images cannot be read:\n{some}{more}")
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
