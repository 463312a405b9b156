"""Static binarised MNIST: the published text, and its bits packed."""

import numpy as np
import pytest

from genjax import data
from genjax.data import binarized
from genjax.data.dataset import DataError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(binarized, "SPLITS", {"train": 6, "valid": 2, "test": 3})
    rng = np.random.default_rng(0)
    return {split: rng.integers(0, 2, (rows, 784)).astype(np.uint8) for split, rows in binarized.SPLITS.items()}


def write_text(folder, bits):
    for split, rows in bits.items():
        lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        (folder / f"binarized_mnist_{split}.amat").write_text(lines)


def test_text_and_packed_bits_are_the_same_images(small, tmp_path):
    text, packed = tmp_path / "text", tmp_path / "packed"
    text.mkdir(), packed.mkdir()
    write_text(text, small)
    np.savez(packed / "binarized_mnist.npz", **{split: np.packbits(rows, axis=1) for split, rows in small.items()})
    for folder in (text, packed):
        found = binarized.load(folder)
        assert np.array_equal(found.train["image"].reshape(6, 784), 255 * small["train"])
        assert np.array_equal(found.heldout["image"].reshape(3, 784), 255 * small["test"])
    assert binarized.load(tmp_path) is None


def test_damaged_files_are_refused(small, tmp_path):
    write_text(tmp_path, small)
    path = tmp_path / "binarized_mnist_train.amat"
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    with pytest.raises(DataError, match=f"has {len(content) - 5} bytes, expected {len(content)}; download it again"):
        binarized.load(tmp_path)
    path.write_bytes(content[:100] + b"7" + content[101:])
    with pytest.raises(DataError, match="expected lines of 784 digits 0 or 1"):
        binarized.load(tmp_path)
    (tmp_path / "binarized_mnist.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match="binarized_mnist.npz"):
        binarized.load(tmp_path)


def test_the_real_files(data_dir):
    if not (data_dir / "binarized_mnist").is_dir():
        pytest.skip("the folder of real data has no binarized_mnist")
    found = data.tfds("binarized_mnist", data_dir)
    assert found.train["image"].shape == (50_000, 28, 28, 1) and found.heldout["image"].shape == (10_000, 28, 28, 1)
    assert set(np.unique(found.train["image"])) == {0, 255} and "label" not in found.train
    assert np.isclose(found.train["image"].mean() / 255, 0.1306, atol=1e-3)
