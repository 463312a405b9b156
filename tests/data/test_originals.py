"""MNIST, Fashion-MNIST and CIFAR-10 from their published files; real ones where GENJAX_DATA has them."""

import gzip
import io
import socket
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from genjax import data
from genjax.data import cifar, originals


def is_small_set(found):
    image, label = found.train["image"], found.train["label"]
    return image.shape == (5, 4, 6, 1) and (image[:, 0, 0, 0] == label).all() and len(found.heldout["label"]) == 3


@pytest.mark.parametrize("pack, suffix", [(gzip.compress, ".gz"), (bytes, "")])
@pytest.mark.parametrize("place", ["", "mnist"])
def test_idx_files_are_read_from_either_folder_gzipped_or_not(tmp_path, place, pack, suffix, put_mnist):
    put_mnist(tmp_path / place, pack=pack, suffix=suffix)
    found = data.tfds("mnist", tmp_path)
    assert is_small_set(found) and found.name == "mnist"


def test_folder_of_the_name_goes_first(tmp_path, put_mnist):
    put_mnist(tmp_path, num_train=9)
    put_mnist(tmp_path / "mnist")
    assert is_small_set(data.tfds("mnist", tmp_path))


def test_sizes_are_changed_on_request(tmp_path, put_mnist):
    put_mnist(tmp_path)
    found = data.tfds("mnist", tmp_path, size=8)
    assert found.train["image"].shape == (5, 8, 8, 1) and found.heldout["image"].shape == (3, 8, 8, 1)
    assert (found.train["image"][:, 3, 5, 0] == found.train["label"]).all()


def test_labels_and_images_must_be_as_many(tmp_path, put_mnist, idx_bytes):
    put_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(4, np.uint8))))
    with pytest.raises(data.DataError, match=r"\(5, 4, 6\).*\(4,\)"):
        data.tfds("mnist", tmp_path)


def test_empty_sets_are_refused(tmp_path, put_mnist):
    put_mnist(tmp_path, num_train=0)
    with pytest.raises(data.DataError, match="at least one"):
        data.tfds("mnist", tmp_path)


def test_sets_of_the_same_file_names_are_told_apart(data_dir):
    with pytest.raises(data.DataError, match="holds fashion_mnist, not mnist"):
        data.tfds("mnist", data_dir / "fashion_mnist")
    with pytest.raises(data.DataError, match="holds mnist, not fashion_mnist"):
        data.tfds("fashion_mnist", data_dir / "mnist")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name, files", [("mnist", 4), ("fashion_mnist", 4), ("cifar10", 1)])
def test_offline_the_recipe_comes_at_once(tmp_path, no_network, name, files):
    start = time.monotonic()
    with pytest.raises(data.DataError) as error:
        data.tfds(name, tmp_path)
    assert time.monotonic() - start < 3
    message = str(error.value)
    assert message.count("curl") == message.count("sha256") == message.count("-o " + str(tmp_path / name)) == files
    assert "Name or service not known" in message and not list(tmp_path.rglob("*"))


def test_recipe_names_only_what_is_missing(tmp_path, no_network, put_mnist):
    put_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(data.DataError, match="lacks 1 file.*\n.*t10k-labels.*\n.*sha256 f7ae60f9"):
        data.tfds("mnist", tmp_path)


def test_default_folder_is_that_of_tensorflow_datasets(tmp_path, monkeypatch, put_mnist):
    put_mnist(tmp_path / "mnist")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert is_small_set(data.tfds("mnist"))


def test_addresses_are_https_and_checksums_are_whole():
    for original in originals.SETS.values():
        assert original.url.startswith("https://") and original.url.endswith("/")
        assert all(len(bytes.fromhex(sum_)) == 32 for sum_ in original.sha256.values())


@pytest.fixture
def batches(monkeypatch):
    """Six batches of four records each; the level of a pixel tells record, channel, row and column apart."""
    monkeypatch.setattr(cifar, "PER_BATCH", 4)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 32, 32), np.uint8)
    labels = np.arange(24, dtype=np.uint8) % 10
    records = np.concatenate([labels[:, None], pixels.reshape(24, -1)], 1)
    content = {name: records[4 * i : 4 * i + 4].tobytes() for i, name in enumerate(cifar.TRAIN + cifar.TEST)}
    return content, pixels.transpose(0, 2, 3, 1), labels


def is_cifar(found, pixels, labels):
    image, label = (np.concatenate([found.train[key], found.heldout[key]]) for key in ("image", "label"))
    return len(found.train["image"]) == 20 and (image == pixels).all() and (label == labels).all()


@pytest.mark.parametrize("place", ["", "cifar10", "cifar10/cifar-10-batches-bin"])
def test_cifar_is_read_from_its_binary_batches(tmp_path, batches, place):
    content, pixels, labels = batches
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    for name, record in content.items():
        (tmp_path / place / name).write_bytes(record)
    assert is_cifar(data.tfds("cifar10", tmp_path), pixels, labels)
    (tmp_path / place / "data_batch_3.bin").write_bytes(content["data_batch_3.bin"][:-1])
    with pytest.raises(data.DataError, match="data_batch_3.bin: expected 12292 bytes, got 12291"):
        data.tfds("cifar10", tmp_path)


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def put_tar(path, content, extra=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for info, body in extra:
            archive.addfile(info, io.BytesIO(body) if body else None)
        for name, record in content.items():
            archive.addfile(member(f"{cifar.FOLDER}/{name}", size=len(record)), io.BytesIO(record))


def test_cifar_is_read_from_its_archive(tmp_path, batches):
    content, pixels, labels = batches
    put_tar(tmp_path / "cifar10" / cifar.ARCHIVE, content)
    assert is_cifar(data.tfds("cifar10", tmp_path), pixels, labels)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [cifar.ARCHIVE]


def test_hostile_members_write_nothing_and_change_nothing(tmp_path, batches):
    content, pixels, labels = batches
    evil = [
        (member("../../evil.txt", size=4), b"evil"),
        (member(str(tmp_path / "evil.txt"), size=4), b"evil"),
        (member("link", type=tarfile.SYMTYPE, linkname="/etc"), b""),
        (member("link/evil.txt", size=4), b"evil"),
        (member("hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"), b""),
        (member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    ]
    put_tar(tmp_path / "in" / cifar.ARCHIVE, content, evil)
    assert is_cifar(data.tfds("cifar10", tmp_path / "in"), pixels, labels)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [cifar.ARCHIVE]


@pytest.mark.parametrize("fault", ["link", "size", "missing"])
def test_batches_in_an_archive_must_be_plain_files_of_the_right_size(tmp_path, batches, fault):
    content, _, _ = batches
    record = content.pop("test_batch.bin")
    name = f"{cifar.FOLDER}/test_batch.bin"
    extra = {
        "link": [(member(name, type=tarfile.SYMTYPE, linkname="/etc/passwd", size=len(record)), b"")],
        "size": [(member(name, size=len(record) + 1), record + b"x")],
        "missing": [],
    }[fault]
    put_tar(tmp_path / cifar.ARCHIVE, content, extra)
    with pytest.raises(data.DataError, match="lacks test_batch.bin"):
        data.tfds("cifar10", tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.98])
def test_truncated_archives_are_refused(tmp_path, batches, part):
    put_tar(tmp_path / cifar.ARCHIVE, batches[0])
    content = (tmp_path / cifar.ARCHIVE).read_bytes()
    (tmp_path / cifar.ARCHIVE).write_bytes(content[: int(part * len(content))])
    with pytest.raises(data.DataError, match="fetch it again"):
        data.tfds("cifar10", tmp_path)


def test_mosaics_are_cut_row_by_row(tmp_path):
    tiles = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    for split in ("train", "test"):
        for i in range(2):
            rows = [np.concatenate(tiles[3 * i + 0 : 3 * i + 3], 1)]
            Image.fromarray(np.concatenate(rows)).save(tmp_path / f"{split}-{i:02}.webp", lossless=True)
        np.save(tmp_path / f"{split}-labels.npy", np.arange(6, dtype=np.uint8))
    found = data.tfds("cifar10", tmp_path)
    assert (found.train["image"] == tiles).all() and (found.train["label"] == np.arange(6)).all()
    square = np.concatenate([np.concatenate(tiles[:3], 1), np.concatenate(tiles[3:], 1)])
    Image.fromarray(square).save(tmp_path / "train-00.webp", lossless=True)
    (tmp_path / "train-01.webp").unlink()
    assert (data.tfds("cifar10", tmp_path).train["image"] == tiles).all()
    np.save(tmp_path / "train-labels.npy", np.arange(5))
    with pytest.raises(data.DataError, match="6 images.*labels of shape"):
        data.tfds("cifar10", tmp_path)


@pytest.mark.parametrize(
    "name, mean, std",  # of the training pixels; MNIST's as 0.1307, 0.3081 and Fashion's as 0.2860, 0.3530 of 255
    [("mnist", 33.318421, 78.567490), ("fashion_mnist", 72.940352, 90.021183)],
)
def test_real_mnist_has_its_known_counts_and_moments(data_dir, name, mean, std):
    found = data.tfds(name, data_dir)
    assert found.train["image"].shape == (60000, 28, 28, 1) and found.heldout["image"].shape == (10000, 28, 28, 1)
    np.testing.assert_allclose((found.train["image"].mean(), found.train["image"].std()), (mean, std), rtol=1e-6)
    assert found.train["label"][:5].tolist() == {"mnist": [5, 0, 4, 1, 9], "fashion_mnist": [9, 0, 0, 3, 0]}[name]


def test_real_cifar_has_its_known_counts_and_moments(data_dir):
    found = data.tfds("cifar10", data_dir)
    assert np.bincount(found.train["label"]).tolist() == [5000] * 10
    assert np.bincount(found.heldout["label"]).tolist() == [1000] * 10
    mean = found.train["image"].mean((0, 1, 2)) / 255
    np.testing.assert_allclose(mean, (0.49140, 0.48216, 0.44653), atol=1e-5)
