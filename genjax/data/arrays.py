"""Readers of NumPy's formats, without pickles; nothing is allocated that the file cannot hold."""

import io
import math
import pathlib
import zipfile
from typing import Any, NamedTuple

import numpy as np

from genjax.data import files
from genjax.data.dataset import DataError

MOST_MEMBERS = 10_000
CHUNK = 1 << 24


class Header(NamedTuple):
    """Header of a stored array.

    Attributes:
      shape: shape of the array.
      dtype: type of its numbers.
      fortran: True if the first index varies fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def nbytes(self) -> int:
        """Size of the numbers in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def npy(path: pathlib.Path) -> np.ndarray:
    """Read the array in a ``.npy`` file.

    Raises:
      DataError: the file is missing or damaged, holds objects, or is shorter than its header says.
    """
    with files.open_regular(path) as file:
        try:
            return _numbers(file, header(file), files.length(file), files.length(file))
        except Exception as error:
            raise DataError(f"{path} is no readable .npy file: {_reason(error)}") from error


def headers(path: pathlib.Path) -> dict[str, Header]:
    """Read the headers of all arrays of an ``.npz`` file.

    Raises:
      DataError: the file is missing, damaged, encrypted or compressed by an unknown method.
    """
    with _opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
                if len(members) > MOST_MEMBERS:
                    raise DataError(f"{len(members)} arrays, more than {MOST_MEMBERS}")
                return {info.filename.removesuffix(".npy"): _first_bytes(archive, info) for info in members}
        except Exception as error:  # zipfile and NumPy raise anything for damaged files
            raise DataError(f"{path} is no readable .npz file: {_reason(error)}") from error


def member(path: pathlib.Path, key: str) -> np.ndarray:
    """Read one array of an ``.npz`` file.

    Raises:
      DataError: the array is missing or damaged, holds objects, or claims more bytes than the file can hold.
    """
    with files.open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as inside:
                return _numbers(inside, header(inside), archive.getinfo(f"{key}.npy").file_size, files.length(file))
        except Exception as error:
            raise DataError(f"{path}: {key!r} cannot be read: {_reason(error)}") from error


def header(file: Any) -> Header:
    """Read a header, a literal that is parsed and not evaluated.

    Raises:
      ValueError: the file has no valid header.
    """
    read = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(file) != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if min(shape, default=0) < 0:
        raise ValueError(f"expected lengths of 0 and more, got {shape}")
    return Header(shape, dtype, fortran)


def _opened(path: pathlib.Path) -> io.BufferedReader:
    try:
        return files.open_regular(path)
    except DataError as error:
        raise DataError(f"{path} is no readable .npz file: {error}") from error


def _first_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    with archive.open(info) as file:
        return header(file)


def _numbers(file: Any, head: Header, length: int, stored: int) -> np.ndarray:
    if head.dtype.hasobject:
        raise DataError(f"it holds {head}; Python objects are not read")
    if head.nbytes > length:
        raise DataError(f"it claims to be {head}, more than the file holds")
    files.demand_plausible(head.nbytes, stored)
    files.demand_memory(head.nbytes)
    content = np.empty(head.nbytes, np.uint8)
    position = 0
    while position < len(content):
        num = file.readinto(content[position : position + CHUNK].data)
        if not num:
            raise DataError(f"it claims to be {head}, more than the file holds")
        position += num
    if file.read(1):
        raise DataError(f"it claims to be {head}, less than the file holds")
    return content.view(head.dtype).reshape(head.shape, order="F" if head.fortran else "C")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
