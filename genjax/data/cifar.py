"""CIFAR-10 (Krizhevsky 2009), from its binary version or from lossless mosaics; not from its pickled Python version.

A record of the binary version is one byte of label and 3,072 bytes of image, channel by channel. A mosaic shows 1,000
images in 25 rows of 40, row by row; the labels are in one ``.npy`` file for each split.
"""

import gzip
import io
import pathlib
import tarfile

import numpy as np
from PIL import Image

from genjax.data import arrays, dataset, files, images
from genjax.data.dataset import DataError, Dataset, Split

FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
ARCHIVE = "cifar-10-binary.tar.gz"
PER_BATCH, RECORD, SIDE = 10_000, 3073, 32
MOST_UNPACKED = 1 << 28  # of 184 MB


def load(folder: pathlib.Path) -> Dataset | None:
    """Load CIFAR-10 from a folder in one of three forms; None if the folder has none of them.

    The forms: ``data_batch_1.bin``, ... (also in ``cifar-10-batches-bin/``); ``cifar-10-binary.tar.gz``, read in place;
    the mosaics ``train-*.webp`` and ``test-*.webp``, in order of their names, with ``train-labels.npy`` and
    ``test-labels.npy``.

    Raises:
      DataError: a file is damaged or of the wrong length.
    """
    for parent in (folder, folder / FOLDER):
        if all(files.is_regular(parent / name) for name in TRAIN + TEST):
            return _dataset({name: files.read(parent / name, PER_BATCH * RECORD) for name in TRAIN + TEST})
    if files.is_regular(folder / ARCHIVE):
        return _dataset(_members(folder / ARCHIVE))
    if all(files.is_regular(folder / f"{split}-labels.npy") for split in ("train", "test")):
        return Dataset("cifar10", _mosaics(folder, "train"), _mosaics(folder, "test"))
    return None


def _dataset(batches: dict[str, bytes]) -> Dataset:
    return Dataset("cifar10", _records(batches, TRAIN), _records(batches, TEST))


def _records(batches: dict[str, bytes], names: tuple[str, ...]) -> Split:
    for name in names:
        if len(batches[name]) != PER_BATCH * RECORD:
            raise DataError(f"{name}: expected {PER_BATCH * RECORD} bytes, got {len(batches[name])}; fetch it again")
    records = np.frombuffer(b"".join(batches[name] for name in names), np.uint8).reshape(-1, RECORD)
    image = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return {"image": np.ascontiguousarray(image), "label": records[:, 0].astype(np.int32)}


def _members(path: pathlib.Path) -> dict[str, bytes]:
    """Read the batches, which must be plain files of the right size; nothing is extracted to disk."""
    names = {f"{FOLDER}/{name}": name for name in TRAIN + TEST}
    batches = {}
    try:
        with files.open_regular(path) as file, tarfile.open(fileobj=_Bounded(file), mode="r|") as archive:
            for member in archive:
                plain = member.isreg() and member.size == PER_BATCH * RECORD
                if member.name in names and plain and (batch := archive.extractfile(member)):
                    batches[names[member.name]] = batch.read()
    except Exception as error:  # a damaged archive raises anything
        raise DataError(f"{path}: {error or type(error).__name__}; delete the file and fetch it again") from error
    if missing := set(names.values()) - batches.keys():
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}, or they have the wrong size; fetch it again")
    return batches


class _Bounded(gzip.GzipFile):
    """Gzip file that stops after the size of CIFAR-10."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(fileobj=file)

    def read(self, size: int | None = -1) -> bytes:
        """Read the next bytes; refuse more than MOST_UNPACKED."""
        if self.tell() > MOST_UNPACKED:
            raise DataError(f"more than {MOST_UNPACKED} bytes: a decompression bomb?")
        return super().read(MOST_UNPACKED if size is None or size < 0 else min(size, MOST_UNPACKED))


def _mosaics(folder: pathlib.Path, split: str) -> Split:
    label = arrays.npy(folder / f"{split}-labels.npy")
    tiles = [_tiles(path) for path in sorted(folder.glob(f"{split}-*.webp"))]
    num = sum(map(len, tiles))
    if label.shape != (num,) or num == 0 or label.dtype.kind not in "iu":
        raise DataError(
            f"{folder}: {num} images in {split}-*.webp, but labels of shape {label.shape}, {label.dtype}; "
            "one whole number each is needed"
        )
    return {"image": np.concatenate(tiles), "label": dataset.to_int32(label)}


def _tiles(path: pathlib.Path) -> np.ndarray:
    try:
        with files.open_regular(path) as file, Image.open(file, formats=["WEBP"]) as mosaic:
            images.demand_pixels(mosaic)
            return _cut(path, mosaic)
    except DataError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise DataError(f"{path}: {error or type(error).__name__}; fetch it again") from error


def _cut(path: pathlib.Path, mosaic: Image.Image) -> np.ndarray:
    if mosaic.width % SIDE or mosaic.height % SIDE or mosaic.mode != "RGB":
        raise DataError(f"{path}: expected RGB tiles of {SIDE}×{SIDE}, got {mosaic.mode} {mosaic.size}")
    rows, columns = mosaic.height // SIDE, mosaic.width // SIDE
    grid = np.asarray(mosaic).reshape(rows, SIDE, columns, SIDE, 3)
    return grid.swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
