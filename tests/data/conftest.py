"""Small sets in MNIST's form."""

import gzip
import struct

import numpy as np
import pytest


def encode(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def put(folder, num_train=5, num_test=3, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, num in (("train", num_train), ("t10k", num_test)):
        label = np.arange(num, dtype=np.uint8)
        image = np.broadcast_to(label[:, None, None], (num, 4, 6))
        (folder / f"{name}-images-idx3-ubyte{suffix}").write_bytes(pack(encode(image)))
        (folder / f"{name}-labels-idx1-ubyte{suffix}").write_bytes(pack(encode(label)))


@pytest.fixture
def idx_bytes():
    """An array of bytes in the IDX format."""
    return encode


@pytest.fixture
def put_mnist():
    """Puts the four files of MNIST into a folder: labels 0, 1, ..., and image i, 4 by 6 pixels, of level i."""
    return put
