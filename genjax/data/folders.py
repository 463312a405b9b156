"""Folders of pictures as data sets."""

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
"""Maximum number of decoded pixels in memory at a time, over all threads: the limit of one picture."""
LITTER = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archivers and network drives leave behind, whose pictures are skipped."""


def folder(
    path: str | os.PathLike[str],
    size: int,
    *,
    channels: int = 3,
    heldout_fraction: float = 0.05,
    background: images.Colour = (255, 255, 255),
    on_bad_image: Literal["raise", "skip"] = "raise",
) -> Dataset:
    """Load all pictures below a folder into memory, as uint8[n size size channels].

    Files are chosen by their suffix (``images.SUFFIXES``, in either case) in the folder and all its subfolders. A link
    to a folder is followed unless that folder has been read already. All other files are skipped and counted in
    ``left_out``, and so are empty files, pipes and devices, names that start with a dot or with ``~$``, and LITTER. The
    rows are sorted by the bytes of the relative path, with ``/`` between its parts, whatever the locale.
    ``genjax.data.images`` describes how modes, transparency and orientation are read.

    A picture is held out if the SHA-256 of its relative path is below ``heldout_fraction`` of 2²⁵⁶; of two or more
    pictures at least one, of a single picture none. If every picture lies in a folder directly below ``path``, these
    folders, sorted by their bytes, are the classes 0, 1, ...; otherwise there is no "label".

    Args:
      path: path of the folder.
      size: height and width, to which the central square of a picture is resampled (``images.fit``).
      channels: 1 or 3.
      heldout_fraction: expected fraction of held-out pictures, in (0, 1).
      background: RGB in 0 to 255, seen through transparent pixels.
      on_bad_image: "raise", or "skip" with a warning if at most 1 % of the pictures are bad.

    Raises:
      DataError: the folder is missing, holds no picture, or holds bad pictures; the message lists all of these.
      ValueError: ``size``, ``channels``, ``heldout_fraction`` or ``on_bad_image`` is out of range.
    """
    if size < 1 or channels not in (1, 3):
        raise ValueError(f"size, channels: expected a size of 1 or more, and 1 or 3 channels; got {size}, {channels}")
    if on_bad_image not in ("raise", "skip"):
        raise ValueError(f'on_bad_image: expected "raise" or "skip", got {on_bad_image!r}')
    root = dataset.expand_path(path)
    names, left_out = _list(root)
    pictures = _read_all(root, names, size, channels, background)
    if pictures.bad:
        _report(root, pictures.bad, len(names), on_bad_image)
        left_out["unreadable"] = len(pictures.bad)
    if dark := pictures.dark:
        warnings.warn(f"{str(root)!r}: {len(dark)} pictures, {min(dark)!r} one: {images.DARK_REMARK}", stacklevel=2)
    kept = [i for i in range(len(names)) if names[i] not in pictures.bad]
    rows = {"image": pictures.image[kept] if pictures.bad else pictures.image} | _labels(names, kept)
    heldout = dataset.hold_out([os.fsencode(names[i].as_posix()) for i in kept], heldout_fraction)
    return dataset.split_rows(root.resolve().name, rows, heldout)._replace(left_out=dict(left_out))


def _list(root: pathlib.Path) -> tuple[list[pathlib.PurePath], collections.Counter[str]]:
    """List the pictures, and count the skipped files; folders come before links to folders, so each is read once."""
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; expected the folder that holds the images")
    names: list[pathlib.PurePath] = []
    left_out: collections.Counter[str] = collections.Counter()
    folders, links, visited = [root], list[pathlib.Path](), set[tuple[int, int]]()
    while folders or links:
        links.sort(key=os.fsencode, reverse=True)
        current = folders.pop() if folders else links.pop()
        for entry in _entries(current, visited):
            status, path = _status(entry), pathlib.Path(entry.path)
            suffix = path.suffix.lower()
            if entry.name.startswith((".", "~$")) or entry.name in LITTER:
                left_out["hidden"] += 1
            elif status and stat.S_ISDIR(status.st_mode):
                (links if entry.is_symlink() else folders).append(path)
            elif suffix not in images.SUFFIXES:
                left_out[suffix or "without suffix"] += 1
            elif status and not stat.S_ISREG(status.st_mode):
                left_out["pipes and devices"] += 1
            elif status and not status.st_size:
                left_out["empty"] += 1
            else:
                names.append(path.relative_to(root))
    if not names:
        known, met = ", ".join(images.SUFFIXES), ", ".join(f"{kind!r} {n}" for kind, n in left_out.most_common(6))
        raise DataError(
            f"{root} holds no images; expected files whose names end in {known}" + (f"; there are {met}" if met else "")
        )
    return sorted(names, key=lambda name: os.fsencode(name.as_posix())), left_out


def _entries(folder: pathlib.Path, visited: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """List a folder; empty if it has been visited."""
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            return []
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from error


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:  # a link to nowhere
        return None


class _Pictures(NamedTuple):
    """Images of a folder, errors of the unreadable ones by name, and names of nearly black images of 16 bits."""

    image: UInt8[np.ndarray, "n h w c"]
    bad: dict[pathlib.PurePath, str]
    dark: set[str]


def _read_all(
    root: pathlib.Path, names: list[pathlib.PurePath], size: int, channels: int, background: images.Colour
) -> _Pictures:
    """Read the pictures in threads, as decoders release the interpreter's lock."""
    files.demand_memory(len(names) * size * size * channels)
    pictures = _Pictures(np.zeros((len(names), size, size, channels), np.uint8), {}, set())
    allowance = _Allowance(MAX_IN_FLIGHT)

    def read(i: int) -> None:
        try:
            picture = images.picture(root / names[i], size, channels, background, allowance.take)
            pictures.image[i] = picture.pixels
            if picture.dark:
                pictures.dark.add(names[i].as_posix())
        except DataError as error:
            pictures.bad[names[i]] = str(error)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(names))))
    return pictures


class _Allowance:
    """Limit of the decoded pixels over all threads; a larger picture waits until no other is decoded."""

    def __init__(self, most: int) -> None:
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
