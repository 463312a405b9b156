"""What ``--data`` reads: every kind of images at any size, settings that a kind does not heed, words of the command."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from genjax import data
from genjax.data import images
from train import pixelcnn, vae
from train.run import config, data_forms, record, sources


def settings(data_="digits", schema=vae.Config, **more):
    return dataclasses.replace(schema(), data=data_, **more)


@pytest.fixture
def archive(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 10, 14, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(30))
    return f"npz:{tmp_path / 'set.npz'}"


@pytest.fixture
def pictures(tmp_path):
    for i in range(6):
        (tmp_path / "pics" / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 30), (40 * i, 9, 200)).save(tmp_path / "pics" / f"c{i % 2}" / f"{i}.png")
    return f"folder:{tmp_path / 'pics'}"


def luma(image):
    """Rec. 601, as Pillow's fixed-point numbers have it: at most 1/2 off, and a rounding."""
    return image @ np.array([0.299, 0.587, 0.114])


def test_images_stay_as_they_are_where_nothing_is_asked(archive, pictures):
    for kind, shape in (("digits", (8, 8, 1)), (archive, (10, 14, 3)), (pictures, (64, 64, 3)), ("ring", (1, 1, 2))):
        assert sources.load(settings(kind)).train["image"].shape[1:] == shape
    assert data.fingerprint(sources.load(settings())) == data.fingerprint(data.digits())


@pytest.mark.parametrize("size, channels", [(16, 0), (0, 3), (5, 3), (8, 1), (0, 1)])
def test_every_kind_comes_to_the_size_and_channels_asked_with_its_labels(archive, pictures, size, channels):
    for kind in ("digits", archive, pictures):
        plain, found = sources.load(settings(kind)), sources.load(settings(kind, size=size, channels=channels))
        shape = found.train["image"].shape[1:]
        own = plain.train["image"].shape[1:]
        assert shape == ((size or own[0]), (size or own[1]), channels or own[2])
        assert sources.shape(settings(kind, size=size, channels=channels)) in (None, shape)
        for split in ("train", "heldout"):
            assert (getattr(found, split)["label"] == getattr(plain, split)["label"]).all()
            assert getattr(found, split)["image"].dtype == np.uint8


def test_sizes_are_those_of_the_reader_of_folders(archive, tmp_path):
    whole = data.npz(archive.removeprefix("npz:"))
    found = sources.load(settings(archive, size=7, channels=1))
    for i in range(3):
        Image.fromarray(whole.train["image"][i]).save(tmp_path / "x.png")
        assert (images.read(tmp_path / "x.png", 7, 1, (0, 0, 0)) == found.train["image"][i]).all()
    grey = sources.load(settings(archive, channels=1)).train["image"][..., 0]
    assert np.abs(grey - luma(whole.train["image"])).max() <= 0.51
    colour = sources.load(settings(channels=3)).train["image"]
    assert (colour == data.digits().train["image"]).all()
    assert sources.load(settings(size=8)).train["image"].tobytes() == data.digits().train["image"].tobytes()


def test_published_sets_come_to_any_size(tmp_path, put_mnist):
    put_mnist(tmp_path)
    for size in (0, 32):
        told = settings("tfds:mnist", data_dir=str(tmp_path), size=size)
        found = sources.load(told).train
        assert found["image"].shape[1:] == ((size, size, 1) if size else (4, 6, 1))
        assert (found["image"] == found["label"][:, None, None, None]).all()  # image i is of level i
    assert sources.shape(settings("tfds:mnist", size=32)) == (32, 32, 1)
    assert sources.shape(settings("tfds:cifar10", channels=1)) == (32, 32, 1)


def test_empty_splits_come_along(tmp_path):
    np.savez(tmp_path / "one.npz", images=np.full((1, 4, 4), 7, np.uint8))
    found = sources.load(settings(f"npz:{tmp_path / 'one.npz'}", size=6, channels=3))
    assert found.train["image"].shape == (1, 6, 6, 3) and found.heldout["image"].shape == (0, 6, 6, 3)


@pytest.mark.parametrize(
    "kind, more, named",
    [
        ("ring", {"size": 8}, "--size 8"),
        ("ring", {"channels": 3}, "--channels 3"),
        ("tfds:binarized_mnist", {"size": 32}, "--size 32.*grey"),
        ("tfds:binarized_mnist", {"channels": 3}, "--channels 3"),
        ("codes:x", {"size": 8}, "--size 8"),
        ("digits", {"on_bad_image": "skip"}, "--on-bad-image skip"),
        ("tfds:mnist", {"on_bad_image": "skip"}, "--on-bad-image skip"),
        ("npz:x", {"on_bad_image": "skip"}, "--on-bad-image skip"),
        ("tfds:mnist", {"size": 32, "binarization": "static"}, "--size 32.*grey"),
    ],
)
def test_settings_that_a_kind_does_not_heed_are_refused_by_name(kind, more, named):
    schema = pixelcnn.Config if kind.startswith("codes") else vae.Config
    if kind == "ring":
        schema = type("Ring", (vae.Config,), {"kinds": ("ring",)})
    with pytest.raises(config.UsageError, match=named):
        sources.check(settings(kind, schema, **more))
    sources.check(settings(kind, schema))


def test_own_size_may_be_named():
    sources.check(settings("tfds:binarized_mnist", size=28, channels=1))
    with pytest.raises(ValueError, match="binarized_mnist is black and white"):
        data.tfds("binarized_mnist", size=32)


def test_every_kind_says_what_it_reads():
    names = {field.name for field in dataclasses.fields(config.ImageRun)}
    assert set().union(*data_forms.READS.values()) <= names
    kinds = {"digits", "ring", "tfds", "folder", "npz", "codes"}
    assert {data_forms.kind(kind) for kind in data_forms.READS} == kinds
    assert (
        data_forms.settings_of("tfds:mnist") == {"size", "channels", "data_dir"}
        and data_forms.settings_of("nothing") == set()
    )


def test_old_records_keep_their_shapes(archive, pictures, tmp_path):
    for kind, shape in (("digits", (8, 8, 1)), (archive, (10, 14, 3)), (pictures, (64, 64, 3))):
        old = dataclasses.asdict(settings(kind)) | {"size": 64, "channels": 3}
        del old["on_bad_image"]
        (tmp_path / "config.json").write_text(
            json.dumps({"run_id": "a", "config": old, "data": {"fingerprint": "b"}, "starts": []})
        )
        read = config.read(vae.Config, "vae", str(tmp_path / "config.json"))
        assert sources.load(read).train["image"].shape[1:] == shape
        record.check(tmp_path, settings(kind))  # the same command goes on
        with pytest.raises(config.UsageError, match="size: .* -> 32"):
            record.check(tmp_path, settings(kind, size=32))


def test_sets_of_the_catalogue_whose_size_is_not_known_come_to_64_as_before():
    assert data_forms.size_and_channels(dataclasses.asdict(settings("tfds:kmnist"))) == (64, None)
    old = {"data": "tfds:kmnist", "size": 64, "channels": 3}
    assert data_forms.upgrade(old) == {"data": "tfds:kmnist", "size": 64, "channels": 0}


def test_names_with_a_hash_are_found(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 4), np.uint8)
    for name in ("a#b.npz", "a.npz"):
        np.savez(tmp_path / name, **{"one": pixels, "two": 255 - pixels, "k#1": pixels // 2})
    for name in ("a#b.npz", "a.npz"):
        for key, expected in (("one", pixels), ("two", 255 - pixels), ("k#1", pixels // 2)):
            found = sources.load(settings(f"npz:{tmp_path / name}#{key}"))
            held = np.concatenate([found.train["image"], found.heldout["image"]])[..., 0]
            assert sorted(map(bytes, held)) == sorted(map(bytes, expected))
    with pytest.raises(data.DataError, match="none.npz"):
        sources.load(settings(f"npz:{tmp_path / 'none.npz'}#one"))


def test_advice_speaks_of_flags(tmp_path, pictures):
    np.savez(tmp_path / "two.npz", one=np.zeros((3, 4, 4), np.uint8), two=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(data.DataError, match="--data npz:PATH#KEY"):
        sources.load(settings(f"npz:{tmp_path / 'two.npz'}"))
    (tmp_path / "pics" / "c0" / "bad.png").write_bytes(b"x")
    with pytest.raises(data.DataError, match="--on-bad-image skip"):
        sources.load(settings(pictures))
    texts = "".join(path.read_text() for path in pathlib.Path(data.__file__).parent.glob("*.py"))
    for theirs in sources.FLAGS:  # each is still what some module says
        assert theirs in texts


def test_few_bad_pictures_are_skipped_and_counted(tmp_path):
    (tmp_path / "many").mkdir()
    for i in range(100):
        Image.new("L", (4, 4), i).save(tmp_path / "many" / f"{i}.png")
    (tmp_path / "many" / "bad.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match="1 of 101"):
        found = sources.load(settings(f"folder:{tmp_path / 'many'}", on_bad_image="skip"))
    assert data.summary(found).endswith("left out: 1 file (unreadable 1)")
