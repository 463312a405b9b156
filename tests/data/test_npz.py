"""Arrays in one file, under the names people use."""

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from genjax import data

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 5, 3), np.uint8)
LABELS = np.arange(40)


def save(tmp_path, **arrays):
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


@pytest.mark.parametrize(
    "names", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"]
)
def test_splits_and_labels_are_found_by_name(tmp_path, names):
    arrays = dict(zip(names.split(), (IMAGES[:30], LABELS[:30], IMAGES[30:], LABELS[30:]), strict=True))
    found = data.npz(save(tmp_path, val_images=IMAGES[:1], val_labels=LABELS[:1], **arrays))
    assert found.name == "set"
    assert (found.train["image"] == IMAGES[:30]).all() and (found.heldout["image"] == IMAGES[30:]).all()
    assert (found.heldout["label"] == LABELS[30:]).all() and found.train["label"].dtype == np.int32


@pytest.mark.parametrize("test", ["test", "heldout"])
def test_splits_need_no_labels(tmp_path, test):
    found = data.npz(save(tmp_path, train=IMAGES[:30], **{test: IMAGES[30:]}))
    assert (found.heldout["image"] == IMAGES[30:]).all() and set(found.train) == {"image"}


@pytest.mark.parametrize("names", ["images labels", "image label", "x y", "odd_name labels"])
def test_rows_are_held_out_where_no_split_is(tmp_path, names):
    image, label = names.split()
    found = data.npz(save(tmp_path, **{image: IMAGES, label: LABELS, "names": np.array(["a"] * 40)}))
    both = np.concatenate([found.train["label"], found.heldout["label"]])
    assert len(found.heldout["label"]) >= 1 and sorted(both) == list(range(40))
    for split in (found.train, found.heldout):
        assert (split["image"] == IMAGES[split["label"]]).all()


def test_key_chooses_and_every_array_has_the_same_rows_held_out(tmp_path):
    many = np.random.default_rng(1).integers(0, 256, (300, 6, 5, 3), np.uint8)
    path = save(tmp_path, small=many[:, :3, :3], large=many)
    with pytest.raises(data.DataError, match=r"key=.*small: uint8\[300, 3, 3, 3\].*large"):
        data.npz(path)
    small, large = (data.npz(path, key=key) for key in ("small", "large"))
    assert (small.heldout["image"] == large.heldout["image"][:, :3, :3]).all()
    with pytest.raises(data.DataError, match="expected an array 'huge'.*small"):
        data.npz(path, key="huge")


def test_channels_and_columns_of_labels_are_completed(tmp_path):
    found = data.npz(save(tmp_path, images=IMAGES[..., 0], labels=LABELS[:, None]))
    assert found.train["image"].shape[1:] == (6, 5, 1) and found.train["label"].ndim == 1


@pytest.mark.parametrize(
    "array, fix",
    [
        (IMAGES / 255, "float64.*uint8"),
        (IMAGES.transpose(0, 3, 1, 2), "move the channels to the end"),
        (IMAGES[..., :2], "1 or 3 channels"),
        (IMAGES.reshape(40, -1), r"\[n h w\]"),
        (IMAGES[:0], "at least one"),
        (IMAGES[:, :0], "at least one"),
    ],
)
def test_other_arrays_are_refused_with_the_fix(tmp_path, array, fix):
    with pytest.raises(data.DataError, match=fix):
        data.npz(save(tmp_path, images=array))


@pytest.mark.parametrize("labels", [LABELS[:-1], LABELS + 0.5, np.eye(40, dtype=int), np.array(["a"] * 40)])
def test_labels_must_be_one_integer_per_image(tmp_path, labels):
    with pytest.raises(data.DataError, match="differ in length|one integer per image"):
        data.npz(save(tmp_path, images=IMAGES, labels=labels))


def test_splits_must_agree(tmp_path):
    with pytest.raises(data.DataError, match="names or shapes"):
        data.npz(save(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES))


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_objects_are_never_unpickled(tmp_path):
    path = save(tmp_path, images=np.array([Trap(tmp_path / "sprung")], object))
    with pytest.raises(data.DataError, match="object"):
        data.npz(path)
    assert not (tmp_path / "sprung").exists()


def test_missing_and_damaged_files_are_data_errors(tmp_path):
    with pytest.raises(data.DataError, match="no readable .npz"):
        data.npz(tmp_path / "none.npz")
    content = save(tmp_path, images=IMAGES).read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for damaged in (b"", content[:100], content[:-100], b"\x93NUMPY", bytes(flipped)):
        (tmp_path / "set.npz").write_bytes(damaged)
        with pytest.raises(data.DataError, match="set.npz"):
            data.npz(tmp_path / "set.npz")


def test_claimed_sizes_are_never_allocated(tmp_path):
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 10, 1 << 10, 1)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    tracemalloc.start()
    with pytest.raises(data.DataError, match="more than the file holds"):
        data.npz(tmp_path / "set.npz")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("key, size", [("images32", 32), ("images64", 64)])
def test_emoji_are_read(data_dir, key, size):
    found = data.npz(data_dir / "noto_emoji" / "noto_emoji.npz", key=key)
    assert found.train["image"].shape[1:] == (size, size, 3)
    assert len(found.train["image"]) + len(found.heldout["image"]) == 3583


def test_numbers_beyond_32_bits_are_refused_as_labels(tmp_path):
    for big in (2**32 + 3, 2**31, -(2**31) - 1):
        with pytest.raises(data.DataError, match=f"32 bits.*{big}"):
            data.npz(save(tmp_path, images=IMAGES, labels=np.full(40, big)))
    with pytest.raises(data.DataError, match="32 bits"):
        data.npz(save(tmp_path, images=IMAGES, labels=np.full(40, 2**64 - 1, np.uint64)))
    assert data.npz(save(tmp_path, images=IMAGES, labels=np.full(40, 255, np.uint8))).train["label"].max() == 255


def test_columns_first_and_big_endian_arrays_are_read(tmp_path):
    found = data.npz(save(tmp_path, images=np.asfortranarray(IMAGES), labels=LABELS.astype(">i8")))
    assert (found.train["image"] == IMAGES[found.train["label"]]).all()


def npy(shape, content=b"", descr="'|u1'"):
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + content


HEADERS = {
    "open brackets": b"\x93NUMPY\x01\x00\xff\x1f" + b"(" * 0x1FFF,
    "deep": b"\x93NUMPY\x01\x00\x40\x1f" + b"-" * 8000,
    "below zero": npy((-5, 4, 4), bytes(80)),
    "a digit too many": npy("(" + "9" * 5000 + ",4,4)"),
    "not a shape": npy("'no'"),
    "fields": npy((4, 4, 4), bytes(64), "[('a', '|u1')]"),
    "objects": npy((4, 4, 4), bytes(512), "'|O'"),
    "no type": npy((4, 4, 4), bytes(64), "'lurking.Image'"),
    "more than there is": npy((40, 4, 4), bytes(9)),
    "less than there is": npy((4, 4, 4), bytes(65)),
    "a later version": b"\x93NUMPY\x09\x00" + npy((4, 4, 4), bytes(64))[8:],
    "not utf-8": b"\x93NUMPY\x03\x00\x04\x00\x00\x00\xff\xff\xff\xff",
    "nothing": b"",
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("what", HEADERS)
def test_headers_of_any_kind_end_in_data_errors(tmp_path, what):
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("images.npy", HEADERS[what])
    with pytest.raises(data.DataError, match="set.npz"):
        data.npz(tmp_path / "set.npz")


def patched(content, offset_local, offset_central, value):
    """The same zip file with two bytes changed in the first local header and in the first central one (APPNOTE 4.3)."""
    content = bytearray(content)
    for signature, offset in ((b"PK\x03\x04", offset_local), (b"PK\x01\x02", offset_central)):
        start = content.index(signature) + offset
        content[start : start + len(value)] = value
    return bytes(content)


@pytest.mark.parametrize("method", [9, 93, 97, 14, 12, 99])  # Deflate64, Zstandard, WavPack, LZMA, bzip2, AES
def test_packings_that_are_not_those_of_numpy_are_data_errors(tmp_path, method):
    path = save(tmp_path, images=IMAGES)
    path.write_bytes(patched(path.read_bytes(), 8, 10, method.to_bytes(2, "little")))
    with pytest.raises(data.DataError, match="set.npz"):
        data.npz(path)


def test_encrypted_archives_are_data_errors(tmp_path):
    path = save(tmp_path, images=IMAGES)
    path.write_bytes(patched(path.read_bytes(), 6, 8, b"\x01\x00"))
    with pytest.raises(data.DataError, match="encrypted"):
        data.npz(path)


def test_forged_lengths_are_not_believed(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", npy((1 << 30, 4, 1), bytes(400)))
    content = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(patched(content, 22, 24, b"\xfe\xff\xff\xff"))
    with pytest.raises(data.DataError, match="bomb|more than the file"):
        data.npz(tmp_path / "set.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_packings_are_data_errors(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "set.npz", "w", compression) as archive:
        archive.writestr("images.npy", npy((40, 30, 3), bytes(3600)))
    content = bytearray((tmp_path / "set.npz").read_bytes())
    for i in range(30, len(content) - 60, 3):
        content[i] ^= 0xFF
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(data.DataError, match="set.npz"):
        data.npz(tmp_path / "set.npz")


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    path = save(tmp_path, images=np.zeros((200, 1000, 1000), np.uint8))
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    with pytest.raises(data.DataError, match="bomb"):
        data.npz(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_devices_and_folders_are_no_archives(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", "/dev/zero", tmp_path, "", "a\0b", "~nobody-of-this-name/x.npz"):
        with pytest.raises(data.DataError):
            data.npz(path)
