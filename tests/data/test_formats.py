"""The formats of published and of prepared sets under damage: pipes, bombs, forged lengths, leftovers of downloads."""

import gzip
import io
import json
import os
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genjax import data
from genjax.data import cifar, download, examples, files, idx

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")


@needs_pipes
@pytest.mark.parametrize(
    "name, pipe",
    [
        ("mnist", "train-images-idx3-ubyte"),
        ("cifar10", "cifar-10-binary.tar.gz"),
        ("binarized_mnist", "binarized_mnist.npz"),
        ("binarized_mnist", "binarized_mnist_train.amat"),
    ],
)
def test_pipes_in_place_of_published_files_are_not_waited_for(tmp_path, monkeypatch, name, pipe):
    monkeypatch.setattr(download, "unreachable", lambda url, open_url: "no network")
    (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / name / pipe)
    (tmp_path / name / "binarized_mnist_test.amat").write_bytes(b"")
    with pytest.raises(data.DataError):
        data.tfds(name, tmp_path)


@needs_pipes
@pytest.mark.parametrize("pipe", ["dataset_info.json", "features.json"])
def test_pipes_in_a_prepared_set_are_not_waited_for(tmp_path, pipe):
    folder = tmp_path / "lent" / "1.0.0"
    folder.mkdir(parents=True)
    for name in {"dataset_info.json", "features.json"} - {pipe}:
        (folder / name).write_text("\ufeff{}", encoding="utf-8")
    os.mkfifo(folder / pipe)
    with pytest.raises(data.DataError, match=f"{pipe} is a pipe"):
        data.tfds("lent", tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[1]", "1", '{"splits": 3}', '{"splits": [3]}', '{"a": ' * 5000, "", "\0"]
)
def test_descriptions_of_any_kind_end_in_data_errors(tmp_path, text):
    for bad, good in (("dataset_info.json", "features.json"), ("features.json", "dataset_info.json")):
        folder = tmp_path / bad / "lent" / "1.0.0"
        folder.mkdir(parents=True)
        (folder / bad).write_text(text)
        (folder / good).write_text(json.dumps({"fileFormat": "array_record"}))
        with pytest.raises(data.DataError):
            data.tfds("lent", tmp_path / bad)


def test_idx_bombs_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PLAIN", 1 << 20)
    header = bytes([0, 0, 8, 1]) + struct.pack(">I", 20 << 20)
    (tmp_path / "x.gz").write_bytes(gzip.compress(header + bytes(20 << 20)))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="bomb"):
        idx.read(tmp_path / "x.gz")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_archives_of_cifar_are_unpacked_no_further_than_they_should_be(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "MOST_UNPACKED", 1 << 20)
    with tarfile.open(tmp_path / cifar.ARCHIVE, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("big"), None)
        info = tarfile.TarInfo("zeros")
        info.size = 40 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="bomb"):
        data.tfds("cifar10", tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"x" * 100])
def test_damaged_labels_and_mosaics_of_cifar_are_data_errors(tmp_path, content):
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}-labels.npy", np.arange(2))
        Image.new("RGB", (64, 32)).save(tmp_path / f"{split}-0.webp")
    whole = data.tfds("cifar10", tmp_path)
    assert len(whole.train["image"]) == 2
    kept = (tmp_path / "train-0.webp").read_bytes()
    (tmp_path / "train-0.webp").write_bytes(content)
    with pytest.raises(data.DataError, match="train-0.webp"):
        data.tfds("cifar10", tmp_path)
    (tmp_path / "train-0.webp").write_bytes(kept)
    (tmp_path / "train-labels.npy").write_bytes(content)
    with pytest.raises(data.DataError, match="train-labels.npy"):
        data.tfds("cifar10", tmp_path)
    np.save(tmp_path / "train-labels.npy", np.array([2**40, 1]))
    with pytest.raises(data.DataError, match="32 bits"):
        data.tfds("cifar10", tmp_path)


def test_downloads_without_an_end_are_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MOST", 5 << 20)

    class Endless(io.BufferedIOBase):
        def read(self, size=-1):
            return bytes(size)

    with pytest.raises(data.DataError, match="more than 5242880 bytes"):
        download.fetch("https://x", tmp_path / "file", "0" * 64, lambda url, seconds: Endless())
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_downloads_are_removed_and_those_in_flight_kept(tmp_path):
    left, others = tmp_path / ".file.abc.part", tmp_path / ".other.abc.part"
    for path in (left, others):
        path.write_bytes(b"half")
    flying = tmp_path / ".file.def.part"
    with open(flying, "xb") as file:
        claimed = download._claim(file)
        sha = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"
        download.fetch("https://x", tmp_path / "file", sha, lambda url, seconds: io.BytesIO(b"x"))
        assert not left.exists() and others.exists() and (flying.exists() or not claimed)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_downloads_go_through_no_link(tmp_path):
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "file").symlink_to(tmp_path / "mine")
    sha = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    download.fetch("https://x", tmp_path / "file", sha, lambda url, seconds: io.BytesIO(b"x"))
    assert (tmp_path / "mine").read_bytes() == b"mine" and (tmp_path / "file").read_bytes() == b"x"


def test_plausible_sizes():
    assert files.most_plausible(10) == files.PLAIN and files.most_plausible(1 << 20) == 300 << 20


def varint(value):
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def record(features):
    """An Example by the wire format's rules, integers packed as the C++ writer does."""
    entries = b""
    for name, values in features.items():
        if isinstance(values[0], bytes):
            feature = field(1, b"".join(field(1, value) for value in values))
        else:
            feature = field(3, field(1, b"".join(map(varint, values))))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


VALUES = st.lists(st.binary(max_size=9), min_size=1, max_size=3) | st.lists(
    st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=3))
def test_records_are_read_back(features):
    assert examples.parse(record(features)) == features


def test_integers_one_by_one_and_floats_beside_them_are_read():
    one_by_one = field(3, varint(1 << 3) + varint(7) + varint(1 << 3) + varint(-2))
    floats = field(2, field(1, struct.pack("<2f", 1, 2)) + varint(1 << 3 | 5) + struct.pack("<f", 3))
    entries = [field(1, b"a") + field(2, one_by_one), field(1, b"f") + field(2, floats)]
    assert examples.parse(field(1, b"".join(field(1, entry) for entry in entries))) == {"a": [7, -2]}


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_a_value_error(content):
    try:
        examples.parse(content)
    except ValueError:
        pass


def test_what_no_memory_holds_is_refused_at_once(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "x.png")
    with pytest.raises(data.DataError, match="this machine's memory"):
        data.folder(tmp_path, 10**7)
    with pytest.raises(data.DataError, match="this machine's memory"):
        data.fit(data.digits(), 10**6)
