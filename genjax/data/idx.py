"""Reader of MNIST's IDX format (LeCun, Cortes & Burges): two zero bytes, type, number of axes, lengths, data."""

import gzip
import io
import math
import pathlib
import struct

import numpy as np
from jaxtyping import UInt8

from genjax.data import files
from genjax.data.dataset import DataError

UNSIGNED_BYTE = 8
CHUNK = 1 << 20


def read(path: pathlib.Path) -> UInt8[np.ndarray, "..."]:
    """Read the array of bytes in a file, gzipped if its name ends in ``.gz``.

    Memory is allocated for bytes that have been read, not for the length that the header claims.

    Raises:
      DataError: the file is truncated, damaged, longer than its header says, or not an IDX file of unsigned bytes.
    """
    try:
        with files.open_regular(path) as file:
            packed = path.suffix == ".gz"
            return _parse(gzip.GzipFile(fileobj=file) if packed else file, files.length(file))
    except Exception as error:  # damaged files raise anything
        raise DataError(f"{path}: {error}; delete the file and fetch it again") from error


def _parse(file: gzip.GzipFile | io.BufferedReader, stored: int) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise ValueError(
            f"expected an IDX file of unsigned bytes, which starts 00 00 08, got {magic.hex(' ') or 'nothing'}"
        )
    lengths = file.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise ValueError("the file ends within the header")
    shape = struct.unpack(f">{magic[3]}I", lengths)
    size = math.prod(shape)
    most = files.most_plausible(stored)
    content = _at_most(file, min(size, most) + 1)
    files.demand_plausible(len(content), stored)
    if len(content) != size:
        got = f"only {len(content)}" if len(content) < size else "more"
        raise ValueError(f"the header says {size} bytes, shape {shape}; there are {got}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _at_most(file: gzip.GzipFile | io.BufferedReader, size: int) -> bytearray:
    content = bytearray()
    while chunk := file.read(min(CHUNK, size - len(content))):
        content += chunk
    return content
