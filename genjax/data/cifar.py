"""CIFAR-10 (Krizhevsky 2009), from its binary version or from lossless mosaics; the Python version is pickles.

A record of the binary version is one byte of label and 3,072 bytes of image, channel by channel. A mosaic shows 1,000
images in 25 rows of 40, row by row; their labels stand in one ``.npy`` file per split.
"""

import pathlib
import tarfile
import zlib

import numpy as np
from PIL import Image

from genjax.data.dataset import DataError, Dataset, Split

FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
ARCHIVE = "cifar-10-binary.tar.gz"
PER_BATCH, RECORD, SIDE = 10_000, 3073, 32


def load(folder: pathlib.Path) -> Dataset | None:
    """CIFAR-10 from a folder that holds it in one of its three forms; None when it does not.

    The forms: ``data_batch_1.bin``, ... (also in ``cifar-10-batches-bin/``); ``cifar-10-binary.tar.gz``, read in place;
    the mosaics ``train-*.webp`` and ``test-*.webp``, in order of their names, with ``train-labels.npy`` and
    ``test-labels.npy``.

    Raises:
      DataError: a file is damaged or of the wrong length.
    """
    for place in (folder, folder / FOLDER):
        if all((place / name).is_file() for name in TRAIN + TEST):
            return _dataset({name: (place / name).read_bytes() for name in TRAIN + TEST})
    if (folder / ARCHIVE).is_file():
        return _dataset(_members(folder / ARCHIVE))
    if (folder / "train-labels.npy").is_file() and (folder / "test-labels.npy").is_file():
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
    """The batches, by their exact names, as plain files of the right size only; nothing is extracted to disk."""
    wanted = {f"{FOLDER}/{name}": name for name in TRAIN + TEST}
    batches = {}
    try:
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                plain = member.isreg() and member.size == PER_BATCH * RECORD
                if member.name in wanted and plain and (file := archive.extractfile(member)):
                    batches[wanted[member.name]] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{path}: {error}; delete the file and fetch it again") from error
    if missing := set(wanted.values()) - batches.keys():
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}, or they have the wrong size; fetch it again")
    return batches


def _mosaics(folder: pathlib.Path, split: str) -> Split:
    try:
        label = np.load(folder / f"{split}-labels.npy", allow_pickle=False)
        tiles = [_tiles(path) for path in sorted(folder.glob(f"{split}-*.webp"))]
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: {error}") from error
    num = sum(map(len, tiles))
    if label.shape != (num,) or num == 0:
        raise DataError(
            f"{folder}: {num} images in {split}-*.webp, but labels of shape {label.shape}; one each is needed"
        )
    return {"image": np.concatenate(tiles), "label": label.astype(np.int32)}


def _tiles(path: pathlib.Path) -> np.ndarray:
    with Image.open(path, formats=["WEBP"]) as mosaic:
        if mosaic.width % SIDE or mosaic.height % SIDE or mosaic.mode != "RGB":
            raise DataError(f"{path}: expected RGB tiles of {SIDE}×{SIDE}, got {mosaic.mode} {mosaic.size}")
        rows, columns = mosaic.height // SIDE, mosaic.width // SIDE
        grid = np.asarray(mosaic).reshape(rows, SIDE, columns, SIDE, 3)
    return grid.swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
