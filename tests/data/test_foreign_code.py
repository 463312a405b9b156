"""No file decides what is imported: a module lies ready in the current folder and leaves a mark if anything runs it."""

import json
import sys

import pytest

from genjax import data
from genjax.data import prepared
from train import vae
from train.run import config, sources

OWN = "tensorflow_datasets.core.features"
IMAGE = {
    "pythonClassName": f"{OWN}.image_feature.Image",
    "image": {"dtype": "uint8", "shape": {"dimensions": [4, 4, 3]}},
}
LABEL = {"pythonClassName": f"{OWN}.class_label_feature.ClassLabel", "classLabel": {"numClasses": "9"}}


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module, importable from the current folder and from the folder of data, and the mark that it would leave."""
    mark = tmp_path / "mark"
    for folder in (tmp_path / "here", tmp_path / "data", tmp_path / "data" / "lent" / "1.0.0"):
        folder.mkdir(parents=True)
        (folder / "lurking.py").write_text(f"open({str(mark)!r}, 'w')\nclass Image: pass\nclass Builder: pass\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(".")
    monkeypatch.syspath_prepend(str(tmp_path / "data"))
    yield mark
    assert not mark.exists() and "lurking" not in sys.modules


def lay(tmp_path, features, **info):
    folder = tmp_path / "data" / "lent" / "1.0.0"
    described = {"name": "lent", "fileFormat": "array_record", "splits": [], "version": "1.0.0"}
    (folder / "dataset_info.json").write_text(json.dumps(described | info))
    (folder / "features.json").write_text(json.dumps(features))
    return tmp_path / "data"


def features(name=f"{OWN}.features_dict.FeaturesDict", **more):
    return {"pythonClassName": name, "featuresDict": {"features": {"image": IMAGE, "label": LABEL, **more}}}


FOREIGN = {
    "the whole": features("lurking.Image"),
    "the images": features(image=IMAGE | {"pythonClassName": "lurking.Image"}),
    "another feature": features(other={"pythonClassName": "lurking.Image", "tensor": {}}),
    "within a sequence": features(
        other={
            "pythonClassName": f"{OWN}.sequence_feature.Sequence",
            "sequence": {"feature": {"pythonClassName": "lurking.Image", "tensor": {}}},
        }
    ),
    "of the older form": {"type": "lurking.Image", "content": {}},
    "in the protocol buffers' spelling": features(other={"python_class_name": "lurking.Image"}),
    "beside tensorflow-datasets": features(
        other={"pythonClassName": "tensorflow_datasets.core.features_lurking.Image"}
    ),
    "with a dot too many": features(other={"pythonClassName": f"{OWN}...lurking.Image"}),
    "no text": features(other={"pythonClassName": ["lurking", "Image"]}),
}


@pytest.mark.parametrize("where", FOREIGN)
def test_classes_that_a_folder_names_are_refused_and_not_imported(tmp_path, trap, where):
    root = lay(tmp_path, FOREIGN[where])
    with pytest.raises(data.DataError, match=r"features.json names the class .*(lurking|Image)"):
        data.tfds("lent", root)


def test_modules_and_formats_that_a_folder_names_are_not_imported(tmp_path, trap):
    for info in ({"moduleName": "lurking"}, {"fileFormat": "lurking.Image"}, {"configName": "lurking"}):
        with pytest.raises(data.DataError, match="no split 'train'|in the format 'lurking.Image'"):
            data.tfds("lent", lay(tmp_path, features(), **info))


@pytest.mark.parametrize("template", ["../{SPLIT}", "/etc/{SPLIT}", "lurking/{SPLIT}", "{DATASET.__class__}", "..", 7])
def test_records_lie_in_the_folder(tmp_path, trap, template):
    split = {"name": "train", "shardLengths": ["1"], "filepathTemplate": template}
    with pytest.raises(data.DataError, match="plain names of files|is missing"):
        data.tfds("lent", lay(tmp_path, features(), splits=[split]))


@pytest.mark.parametrize(
    "name",
    ["lurking:Image", "lurking.Image", "../data/lent", "huggingface:lent", "someone:lent", "/etc", "", "lent/../lent"]
    + ["lent:1.0.0", "lent\n", "lent/", "lent@lurking", "~/lent", "lent\\x", "lent/.hidden", "\x1b[2J"],
)
def test_names_of_the_catalogue_are_words(tmp_path, trap, name):
    with pytest.raises(data.DataError, match="no name of the catalogue") as error:
        data.tfds(name, lay(tmp_path, features()))
    assert "\x1b" not in str(error.value)


def test_somebodys_run_names_no_code_either(tmp_path, trap):
    root = lay(tmp_path, features("lurking.Image"))
    record = {"config": {"data": "tfds:lent", "data_dir": str(root)}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    settings = config.read(vae.Config, "vae", str(tmp_path / "config.json"))
    with pytest.raises(data.DataError, match="lurking.Image"):
        sources.load(settings)


def test_preparing_does_not_build_from_what_lies_in_the_folder(tmp_path, trap, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(tfds, "list_builders", lambda with_community_datasets: ["lent"])
    monkeypatch.setattr(prepared.importlib.util, "find_spec", lambda name: True)
    monkeypatch.setitem(
        sys.modules, "tensorflow", type("T", (), {"config": type("C", (), {"set_visible_devices": print})})
    )
    root = lay(tmp_path, features("lurking.Image"))
    (root / "lent" / "1.0.0" / "dataset_info.json").unlink()
    with pytest.raises(data.DataError, match="could not prepare"):
        data.tfds("lent", root)
