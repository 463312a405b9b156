"""What tensorflow-datasets has prepared, read without TensorFlow: a small builder of our own prepares it here."""

import importlib.machinery
import importlib.util
import io
import sys
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genjax import data

tfds: Any = pytest.importorskip("tensorflow_datasets")


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return io.BytesIO(buffer.getvalue())


def image_of(label, height=4, width=5):
    return np.full((height, width, 3), 10 * label, np.uint8)


class _Builder(tfds.core.GeneratorBasedBuilder):
    VERSION, pkg_dir_path = tfds.core.Version("1.10.0"), None
    SPLITS = {"train": range(20), "test": range(3)}

    def _info(self):
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=25)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(labels) for split, labels in self.SPLITS.items()}

    def _generate_examples(self, labels):
        for label in labels:
            yield label, {"image": png(self.pixels(label)), "label": label}

    def pixels(self, label):
        return image_of(label)


class GenjaxPlain(_Builder):
    pass


class GenjaxMixed(_Builder):
    def pixels(self, label):
        return image_of(label, 4 + label % 3)


class GenjaxTrainOnly(_Builder):
    SPLITS = {"train": range(20)}


class GenjaxNoImage(_Builder):
    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({"label": np.int64}))

    def _generate_examples(self, labels):
        for label in labels:
            yield label, {"label": label}


class GenjaxUnlabelled(_Builder):
    def _info(self):
        features = {"picture": tfds.features.Image(shape=(4, 5, 3)), "id": np.int64}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, labels):
        for label in labels:
            yield label, {"picture": png(image_of(label)), "id": label}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (GenjaxPlain, GenjaxMixed, GenjaxTrainOnly, GenjaxNoImage, GenjaxUnlabelled):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def shows_its_labels(split, labels):
    return sorted(split["label"]) == list(labels) and (split["image"][:, 1, 1, 2] == 10 * split["label"]).all()


def test_splits_are_read_with_their_labels(root):
    found = data.tfds("genjax_plain", root)
    assert found.train["image"].shape == (20, 4, 5, 3) and found.train["label"].dtype == np.int32
    assert shows_its_labels(found.train, range(20)) and shows_its_labels(found.heldout, range(3))
    assert "tensorflow" not in sys.modules


def test_records_and_their_order_are_those_of_tensorflow_datasets_own_reader(root):
    found = data.tfds("genjax_plain", root)
    theirs = tfds.builder_from_directory(root / "genjax_plain" / "1.10.0")
    for split, ours in (("train", found.train), ("test", found.heldout)):
        examples = list(theirs.as_data_source(split=split))
        assert (np.stack([example["image"] for example in examples]) == ours["image"]).all()
        assert [int(example["label"]) for example in examples] == ours["label"].tolist()


def test_newest_version_is_read(root, tmp_path):
    (tmp_path / "genjax_plain").mkdir()
    (tmp_path / "genjax_plain" / "1.10.0").symlink_to(root / "genjax_plain" / "1.10.0")
    for older in ("1.9.0", "incomplete.1.11.0"):
        (tmp_path / "genjax_plain" / older).mkdir()
        (tmp_path / "genjax_plain" / older / "dataset_info.json").write_text("{}")
    assert len(data.tfds("genjax_plain", tmp_path).train["image"]) == 20


def test_mixed_sizes_need_a_size(root):
    with pytest.raises(data.DataError, match="pass size"):
        data.tfds("genjax_mixed", root)
    found = data.tfds("genjax_mixed", root, size=4)
    assert found.train["image"].shape == (20, 4, 4, 3) and shows_its_labels(found.train, range(20))


def test_rows_are_held_out_where_there_is_no_test_split(root):
    found = data.tfds("genjax_train_only", root)
    assert len(found.heldout["label"]) >= 1
    assert sorted([*found.train["label"], *found.heldout["label"]]) == list(range(20))


def test_heldout_split_can_be_chosen_and_must_exist(root):
    assert shows_its_labels(data.tfds("genjax_plain", root, heldout_split="train").heldout, range(20))
    with pytest.raises(data.DataError, match="no split 'valid'; it has .*train"):
        data.tfds("genjax_plain", root, heldout_split="valid")


def test_images_are_found_under_any_name_and_labels_are_optional(root):
    assert set(data.tfds("genjax_unlabelled", root).train) == {"image"}
    with pytest.raises(data.DataError, match="expected one feature of uint8 images"):
        data.tfds("genjax_no_image", root)


def test_other_formats_are_refused_with_the_recipe(root, tmp_path):
    folder = tmp_path / "genjax_plain" / "1.10.0"
    folder.mkdir(parents=True)
    for file in (root / "genjax_plain" / "1.10.0").iterdir():
        (folder / file.name).write_bytes(file.read_bytes().replace(b'"array_record"', b'"tfrecord"'))
    with pytest.raises(data.DataError, match="tfrecord.*array_record"):
        data.tfds("genjax_plain", tmp_path)


def test_damaged_sets_are_data_errors(root, tmp_path):
    folder = tmp_path / "genjax_plain" / "1.10.0"
    folder.mkdir(parents=True)
    for file in (root / "genjax_plain" / "1.10.0").iterdir():
        content = file.read_bytes()
        (folder / file.name).write_bytes(content if file.suffix == ".json" else content[: len(content) // 2])
    with pytest.raises(data.DataError, match="genjax_plain"):
        data.tfds("genjax_plain", tmp_path)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(data.DataError, match="damaged"):
        data.tfds("genjax_plain", tmp_path)


def test_unprepared_sets_need_tensorflow(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match=r"pip install 'jax-genmodels\[tf\]'.*folder.*npz"):
        data.tfds("caltech101", tmp_path)


def test_unknown_names_are_met_with_the_nearest(tmp_path):
    with pytest.raises(data.DataError, match="did you mean .*fashion_mnist"):
        data.tfds("fashon_mnist", tmp_path)


def test_with_tensorflow_a_set_is_prepared_and_the_gpus_are_left_alone(tmp_path, monkeypatch):
    hidden = []
    config = types.SimpleNamespace(set_visible_devices=lambda devices, kind: hidden.append((devices, kind)))
    stand_in: Any = types.ModuleType("tensorflow")
    stand_in.__spec__ = importlib.machinery.ModuleSpec("tensorflow", None)
    stand_in.config = config
    monkeypatch.setitem(sys.modules, "tensorflow", stand_in)
    found = data.tfds("genjax_plain", tmp_path)
    assert shows_its_labels(found.train, range(20)) and hidden == [([], "GPU")]
