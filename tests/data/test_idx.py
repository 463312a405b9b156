"""The IDX parser, against hand-made files."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from genjax import data
from genjax.data import idx

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
GOOD = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + ARRAY.tobytes()


@pytest.mark.parametrize("pack, name", [(bytes, "x-ubyte"), (gzip.compress, "x-ubyte.gz")])
def test_array_is_read_plain_and_gzipped(tmp_path, pack, name):
    (tmp_path / name).write_bytes(pack(GOOD))
    assert (idx.read(tmp_path / name) == ARRAY).all()


BROKEN = {
    "empty": (b"", "nothing"),
    "magic": (b"\x89PNG" + GOOD[4:], "89 50 4e 47"),
    "floats": (bytes([0, 0, 13, 3]) + GOOD[4:], "00 00 0d 03"),
    "header": (GOOD[:9], "ends within the header"),
    "short": (GOOD[:-1], "24 bytes.*only 23"),
    "long": (GOOD + b"x", "there are more"),
    "no data": (GOOD[:16], "only 0"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_the_reason(tmp_path, case, pack):
    content, reason = BROKEN[case]
    path = tmp_path / ("x.gz" if pack is gzip.compress else "x")
    path.write_bytes(pack(content))
    with pytest.raises(data.DataError, match=reason) as error:
        idx.read(path)
    assert str(path) in str(error.value) and "fetch it again" in str(error.value)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.98])
def test_truncated_gzip_is_refused(tmp_path, part):
    packed = gzip.compress(np.random.default_rng(0).bytes(5000))
    (tmp_path / "x.gz").write_bytes(packed[: int(part * len(packed))])
    with pytest.raises(data.DataError):
        idx.read(tmp_path / "x.gz")


def test_damaged_gzip_is_refused(tmp_path):
    content = bytes([0, 0, 8, 1]) + struct.pack(">I", 5000) + np.random.default_rng(0).bytes(5000)
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 4
    (tmp_path / "x.gz").write_bytes(packed)
    with pytest.raises(data.DataError):
        idx.read(tmp_path / "x.gz")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_claimed_sizes_are_never_allocated(tmp_path, pack):
    path = tmp_path / ("x.gz" if pack is gzip.compress else "x")
    path.write_bytes(pack(bytes([0, 0, 8, 3]) + struct.pack(">3I", *[2**32 - 1] * 3)))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="only 0"):
        idx.read(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_gzip_bombs_are_read_no_further_than_the_header_says(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 9) + bytes(40 << 20)))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="there are more"):
        idx.read(tmp_path / "x.gz")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_missing_files_are_data_errors(tmp_path):
    with pytest.raises(data.DataError, match="no-such-file"):
        idx.read(tmp_path / "no-such-file")
