"""Arrays in one file, under the names people use."""

import io
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
