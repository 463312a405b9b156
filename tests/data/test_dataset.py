"""Splits by hash, fingerprints, the embedded digits."""

import hashlib

import numpy as np
import pytest

from genjax import data
from genjax.data import dataset


@pytest.fixture
def small():
    rows = lambda n, first: {
        "image": np.arange(first, first + n * 12, dtype=np.uint8).reshape(n, 2, 2, 3),
        "label": np.arange(n, dtype=np.int32),
    }
    return data.Dataset("small", rows(4, 0), rows(2, 100))


def test_digits_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    digits = data.digits()
    image, label = (np.concatenate([digits.train[k], digits.heldout[k]]) for k in ("image", "label"))
    expected = {
        (bytes(np.round(v * 255 / 16).astype(np.uint8)), int(y))
        for v, y in zip(sklearn.data, sklearn.target, strict=True)
    }
    assert {(bytes(v), int(y)) for v, y in zip(image, label, strict=True)} == expected
    assert len(image) == len(sklearn.data) == len(expected) == 1797


def test_digits_splits_are_stratified_uint8_and_use_the_whole_range():
    digits = data.digits()
    assert digits.train["image"].shape == (1600, 8, 8, 1) and digits.heldout["image"].shape == (197, 8, 8, 1)
    assert digits.train["image"].dtype == np.uint8 and digits.train["label"].dtype == np.int32
    assert (digits.train["image"].min(), digits.train["image"].max()) == (0, 255)
    assert np.bincount(digits.heldout["label"]).tolist() == [19, 20, 19, 20, 20, 20, 20, 20, 19, 20]


def test_digits_heldout_rows_are_those_of_the_stated_rule():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    rank = lambda i: hashlib.sha256(b"%d" % i).hexdigest()
    chosen = []
    for digit in range(10):
        rows = sorted(np.flatnonzero(sklearn.target == digit), key=rank)
        chosen += rows[: 19 if digit in (0, 2, 8) else 20]
    assert (data.digits().heldout["image"][..., 0] == np.round(sklearn.images[sorted(chosen)] * 255 / 16)).all()


def test_digits_have_the_same_fingerprint_on_every_machine():
    assert data.fingerprint(data.digits()).startswith("7897553b989c")


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("change", ["value", "dtype", "shape", "name", "order", "absent"])
def test_fingerprint_sees_every_change_of_content(small, split, change):
    rows = dict(getattr(small, split))
    if change == "value":
        rows["image"] = rows["image"] ^ (np.arange(rows["image"].size) == 5).reshape(rows["image"].shape).astype(
            np.uint8
        )
    if change == "dtype":
        rows["label"] = rows["label"].astype(np.uint32)
    if change == "shape":
        rows["image"] = rows["image"].reshape(-1, 2, 3, 2)
    if change == "name":
        rows["labels"] = rows.pop("label")
    if change == "order":
        rows = {k: v[::-1] for k, v in rows.items()}
    if change == "absent":
        del rows["label"]
    assert data.fingerprint(small._replace(**{split: rows})) != data.fingerprint(small)


def test_fingerprint_ignores_name_order_of_keys_and_memory_layout(small):
    other = {k: np.asfortranarray(v) for k, v in reversed(small.train.items())}
    assert data.fingerprint(data.Dataset("other", other, small.heldout)) == data.fingerprint(small)


def test_fingerprint_tells_the_splits_apart(small):
    assert data.fingerprint(small) != data.fingerprint(data.Dataset("small", small.heldout, small.train))


def test_held_out_rows_keep_their_side_when_others_come():
    names = dataset.row_names(2000)
    mask = dataset.hold_out(names, 0.05)
    assert (mask[:1000] == dataset.hold_out(names[:1000], 0.05)).all()
    assert abs(mask.mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)


def test_held_out_rule_is_the_stated_one():
    names = [b"a/1.png", b"a/2.png", b"\xff", "ä\n".encode()] + dataset.row_names(50)
    below = [int(hashlib.sha256(name).hexdigest(), 16) < 0.3 * 2**256 for name in names]
    assert dataset.hold_out(names, 0.3).tolist() == below


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 1 - 1e-9])
@pytest.mark.parametrize("num", [1, 2, 3])
def test_both_sides_have_a_row_when_there_are_two(num, fraction):
    count = dataset.hold_out(dataset.row_names(num), fraction).sum()
    assert count == 0 if num == 1 else 1 <= count <= num - 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_outside_the_unit_interval_are_refused(fraction):
    with pytest.raises(ValueError, match="heldout_fraction"):
        dataset.hold_out([b"a", b"b"], fraction)


def test_labels_must_match_images_and_splits_each_other(small):
    short = small.train | {"label": small.train["label"][:-1]}
    with pytest.raises(data.DataError, match="differ in length.*4.*3"):
        dataset.validated(small._replace(train=short))
    with pytest.raises(data.DataError, match="names or shapes"):
        dataset.validated(small._replace(heldout={"image": small.heldout["image"]}))
    with pytest.raises(data.DataError, match="at least one"):
        dataset.validated(small._replace(train={k: v[:0] for k, v in small.train.items()}))
    assert dataset.validated(small) is small
