"""NumPy's formats read as data only: no pickles, no object is made, nothing is allocated that the file cannot hold."""

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
    """What stands before the numbers of an array.

    Fields:
      shape: of the array.
      dtype: of its numbers.
      fortran: whether the first index varies fastest.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool

    @property
    def nbytes(self) -> int:
        """The numbers' size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self):
        return f"{self.dtype}{list(self.shape)}"


def npy(path: pathlib.Path) -> np.ndarray:
    """The array in a ``.npy`` file.

    Raises:
      DataError: the file is missing, damaged, or shorter than it claims, or holds objects.
    """
    with files.open_regular(path) as file:
        try:
            return _numbers(file, header(file), files.length(file), files.length(file))
        except Exception as error:
            raise DataError(f"{path} is no readable .npy file: {_reason(error)}") from error


def headers(path: pathlib.Path) -> dict[str, Header]:
    """Shapes and types of all arrays of an ``.npz`` file, from the first bytes of each.

    Raises:
      DataError: the file is missing, damaged, encrypted or packed in a way that cannot be read.
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
    """One array of an ``.npz`` file.

    Raises:
      DataError: it is missing, damaged, holds objects, or claims more than the file can hold.
    """
    with files.open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as inside:
                return _numbers(inside, header(inside), archive.getinfo(f"{key}.npy").file_size, files.length(file))
        except Exception as error:
            raise DataError(f"{path}: {key!r} cannot be read: {_reason(error)}") from error


def header(file: Any) -> Header:
    """Read the header, which is a literal and is not evaluated.

    Raises:
      ValueError: there is none.
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


def _numbers(file: Any, about: Header, length: int, stored: int) -> np.ndarray:
    if about.dtype.hasobject:
        raise DataError(f"it holds {about}; Python objects are not read")
    if about.nbytes > length:
        raise DataError(f"it claims to be {about}, more than the file holds")
    files.demand_plausible(about.nbytes, stored)
    files.demand_memory(about.nbytes)
    content = np.empty(about.nbytes, np.uint8)
    place = 0
    while place < len(content):
        got = file.readinto(content[place : place + CHUNK].data)
        if not got:
            raise DataError(f"it claims to be {about}, more than the file holds")
        place += got
    if file.read(1):
        raise DataError(f"it claims to be {about}, less than the file holds")
    return content.view(about.dtype).reshape(about.shape, order="F" if about.fortran else "C")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
