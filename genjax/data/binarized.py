"""Static binarised MNIST (Salakhutdinov & Murray 2008; the split of Larochelle & Murray 2011): 50,000, 10,000, 10,000.

Each pixel was drawn black or white once and for all. A published file is text: 784 digits 0 or 1 on each line.
"""

import pathlib

import numpy as np
from jaxtyping import UInt8

from genjax.data import arrays, files
from genjax.data.dataset import DataError, Dataset

SPLITS = {"train": 50_000, "valid": 10_000, "test": 10_000}
FILES = {split: f"binarized_mnist_{split}.amat" for split in SPLITS}
PACKED = "binarized_mnist.npz"
LINE = 2 * 784


def load(folder: pathlib.Path) -> Dataset | None:
    """Load the images, levels 0 and 255 without labels; None if the folder has none of the files.

    Training takes the 50,000 images of the training split; the 10,000 of the test split are held out; the validation
    split is not used. The folder holds the published text files ``binarized_mnist_train.amat`` and ``..._test.amat``;
    or ``binarized_mnist.npz`` with the arrays train and test, ``np.packbits(axis=1)`` of the same pixels.

    Raises:
      DataError: a file is damaged.
    """
    if (folder / PACKED).exists():
        train, heldout = (_unpack(folder / PACKED, split) for split in ("train", "test"))
    elif all((folder / FILES[split]).exists() for split in ("train", "test")):
        train, heldout = (_parse(folder / FILES[split], SPLITS[split]) for split in ("train", "test"))
    else:
        return None
    return Dataset(folder.name, {"image": train}, {"image": heldout})


def _parse(path: pathlib.Path, rows: int) -> UInt8[np.ndarray, "n 28 28 1"]:
    text = np.frombuffer(files.read(path, rows * LINE), np.uint8)
    if text.size != rows * LINE:
        raise DataError(f"{path} has {text.size} bytes, expected {rows * LINE}; download it again")
    bits = text.reshape(rows, 784, 2)
    if not (np.all((bits[..., 0] == ord("0")) | (bits[..., 0] == ord("1"))) and np.all(bits[:, -1, 1] == ord("\n"))):
        raise DataError(f"{path}: expected lines of 784 digits 0 or 1; download it again")
    return _images(bits[..., 0] - ord("0"))


def _unpack(path: pathlib.Path, split: str) -> UInt8[np.ndarray, "n 28 28 1"]:
    packed = arrays.member(path, split)
    if packed.dtype != np.uint8 or packed.shape != (SPLITS[split], 98):
        raise DataError(f"{path}: expected {split} to be uint8[{SPLITS[split]} 98], got {packed.dtype}{packed.shape}")
    return _images(np.unpackbits(packed, axis=1))


def _images(bits: UInt8[np.ndarray, "n 784"]) -> UInt8[np.ndarray, "n 28 28 1"]:
    return (255 * bits).reshape(-1, 28, 28, 1)
