"""Reader of the data sets that tensorflow-datasets has prepared, in the ``array_record`` format.

Reading needs neither tensorflow-datasets nor TensorFlow; preparing needs both. The rows have the order of
tensorflow-datasets. Its own reader imports the classes that ``features.json`` names. This reader imports nothing: it
takes names, shapes and types from that file, and refuses classes from other packages, so that no file decides which
code runs.
"""

import difflib
import importlib.util
import io
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from genjax.data import dataset, download, examples, files, images
from genjax.data.dataset import DataError, Dataset, Split

HELDOUT_FRACTION = 0.05
CHUNK = 500
NAME = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)*")
OWN_FEATURES = "tensorflow_datasets.core.features"
"""Module of tensorflow-datasets' own feature classes."""
_CLASS = re.compile(re.escape(OWN_FEATURES) + r"(\.\w+){1,2}", re.ASCII)
_IMAGE, _LABEL = "image_feature.Image", ("class_label_feature.ClassLabel", "tensor_feature.Tensor", "scalar.Scalar")
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class _Features(NamedTuple):
    """Names of the features of images and labels (empty without labels), and number of channels."""

    image: str
    label: str
    channels: int


def load(name: str, root: pathlib.Path, size: int | None, heldout_split: str | None) -> Dataset | None:
    """Load the newest version of a data set in ``root/name/``; None if there is none.

    Raises:
      DataError: the data set is in another format, names a class of another package, or has no suitable images, splits
        or sizes.
    """
    try:
        versions = [path.parent for path in (root / name).glob("*/dataset_info.json") if _version(path.parent)]
    except OSError as error:
        raise DataError(f"{root / name}: {error.strerror}") from error
    if not versions:
        return None
    newest = max(versions, key=_version)
    try:
        return dataset.validated(_open(name, newest, size, heldout_split))
    except DataError:
        raise
    except Exception as error:  # damaged records raise anything
        raise DataError(f"{newest} is damaged ({error}); delete it and prepare {name} again") from error


def demand_name(name: str) -> None:
    """Refuse names that cannot be in the catalogue: paths, community collections, modules and classes.

    Raises:
      DataError: the message describes a valid name.
    """
    if not NAME.fullmatch(name):
        raise DataError(
            f"{name!r} is no name of the catalogue of tensorflow-datasets: expected letters, digits and _, and the "
            "configuration after a slash where there is one"
        )


def _open(name: str, folder: pathlib.Path, size: int | None, heldout_split: str | None) -> Dataset:
    info = _mapping(files.read_json(folder / "dataset_info.json"), "the description")
    features = _features(name, folder / "features.json")
    kind = info.get("fileFormat")
    if kind != "array_record":
        raise DataError(
            f"{folder} is in the format {kind!r}, which only TensorFlow reads; prepare it in another data_dir, with "
            f'tensorflow_datasets.builder("{name}", data_dir=..., file_format="array_record").download_and_prepare()'
        )
    shards = {str(split.get("name")): split for split in map(_split, info.get("splits", []))}
    heldout = heldout_split or next((split for split in ("test", "validation") if split in shards), None)
    for split in {"train", heldout} - {None}:
        if split not in shards:
            raise DataError(f"{name} has no split {split!r}; it has {', '.join(map(repr, shards)) or 'none'}")
    train = _read(name, _paths(folder, info, shards["train"]), features, size)
    if heldout:
        return Dataset(name, train, _read(name, _paths(folder, info, shards[heldout]), features, size))
    mask = dataset.hold_out(dataset.row_names(len(train["image"])), HELDOUT_FRACTION)
    return dataset.split_rows(name, train, mask)


def prepare(name: str, root: pathlib.Path) -> None:
    """Let tensorflow-datasets download a data set and prepare it in ``root/name/``.

    Raises:
      DataError: TensorFlow, the data set or the network is missing, or tensorflow-datasets fails.
    """
    import tensorflow_datasets

    _demand_known(name, tensorflow_datasets.list_builders(with_community_datasets=False))
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name} is not prepared in {root}, and preparing it needs TensorFlow: pip install 'jax-genmodels[tf]'; "
            "or give the images as a folder of files or as an .npz file"
        )
    import tensorflow

    tensorflow.config.set_visible_devices([], "GPU")  # otherwise TensorFlow takes the memory of every GPU
    try:
        plain, options = tensorflow_datasets.core.naming.parse_builder_name_kwargs(name)
        cls = tensorflow_datasets.builder_cls(str(plain))  # `builder` might read the files in the folder instead
        builder = cls(data_dir=root, file_format="array_record", **options)
        _demand_network(builder)
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(f"{name}: tensorflow-datasets could not prepare it in {root}: {error}") from error


def _demand_known(name: str, known: list[str]) -> None:
    if name.split("/")[0] not in known:
        close = difflib.get_close_matches(name, known)
        hint = f"did you mean {' or '.join(close)}?" if close else "see tensorflow.org/datasets/catalog"
        raise DataError(f"{name}: tensorflow-datasets has no data set of this name; {hint}")


def _demand_network(builder: Any) -> None:
    """Fail within seconds if offline, where tensorflow-datasets would try for minutes."""
    first = next((url for url in builder.url_infos or () if url.startswith("https://")), None)
    if first and (reason := download.unreachable(first)):
        raise DataError(reason)


def _version(path: pathlib.Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() and len(part) < 10 for part in parts) else ()


def _features(name: str, path: pathlib.Path) -> _Features:
    """Read the names of images and labels in ``features.json``; no class of the file is imported."""
    described = _mapping(files.read_json(path), "features.json")
    for cls in _classes(described):
        if not (isinstance(cls, str) and _CLASS.fullmatch(cls)):
            raise DataError(
                f"{path} names the class {cls!r}, which is none of {OWN_FEATURES}; no code that a file names is run"
            )
    features = _mapping(_mapping(described.get("featuresDict", {}), "featuresDict").get("features", {}), "features")
    kinds = {key: str(_mapping(node, key).get("pythonClassName", "")) for key, node in features.items()}
    named = [key for key, kind in kinds.items() if kind.endswith(_IMAGE)]
    chosen = ["image"] if "image" in named else named
    about = _mapping(features[chosen[0]].get("image", {}), "image") if len(chosen) == 1 else {}
    if not chosen or about.get("dtype") != "uint8":
        held = ", ".join(f"{key!r}: {kind.rpartition('.')[2]!r}" for key, kind in kinds.items()) or "nothing"
        raise DataError(f"{name}: expected one feature of uint8 images, or one named image; it has {held}")
    sides = _mapping(about.get("shape", {}), "shape").get("dimensions", [])
    channels = int(sides[2]) if isinstance(sides, list) and len(sides) == 3 else 3
    if channels not in _MODES:
        raise DataError(f"{name}: expected images of 1, 3 or 4 channels; {path} says {channels}")
    return _Features(chosen[0], "label" if _is_class(features.get("label"), kinds.get("label", "")) else "", channels)


def _classes(described: Any) -> Iterator[Any]:
    """Yield every class name in the description, at any depth, in the present form of the file and in older ones."""
    stack = [described]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield from (node[key] for key in ("pythonClassName", "python_class_name") if key in node)
            if "content" in node and "type" in node:  # before 2022
                yield node["type"]
            stack += node.values()
        elif isinstance(node, list):
            stack += node


def _is_class(feature: Any, kind: str) -> bool:
    if not kind.endswith(_LABEL):
        return False
    about = feature.get("tensor")
    return not about or (str(about.get("dtype", "")).startswith(("int", "uint")) and not about.get("shape"))


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{what}: expected a mapping, got {str(value)[:40]!r}")
    return value


def _split(value: Any) -> dict[str, Any]:
    return _mapping(value, "splits")


def _paths(folder: pathlib.Path, info: dict[str, Any], split: dict[str, Any]) -> list[tuple[pathlib.Path, int]]:
    """Paths of the files of a split inside the folder, with the number of records of each."""
    lengths = [int(count) for count in split.get("shardLengths", [])]
    template = split.get("filepathTemplate") or _TEMPLATE
    words = {"DATASET": info.get("name"), "SPLIT": split.get("name"), "FILEFORMAT": "array_record"}
    paths = []
    for i, count in enumerate(lengths):
        name = str(template)
        for word, value in {**words, "SHARD_X_OF_Y": f"{i:05d}-of-{len(lengths):05d}"}.items():
            name = name.replace(f"{{{word}}}", str(value))
        if not re.fullmatch(r"[\w+-][\w.+-]*", name):
            raise DataError(f"{folder}: expected plain names of files, got {name!r}")
        paths.append((folder / name, count))
    return paths


def _read(name: str, shards: list[tuple[pathlib.Path, int]], features: _Features, size: int | None) -> Split:
    labels: list[int] = []
    rows: list[np.ndarray] = []
    stored = sum(path.stat().st_size for path, _ in shards if files.is_regular(path))
    for record in _records(shards):
        values = examples.parse(record)
        image = _decode(values[features.image][0], features.channels)
        rows.append(images.fit_array(image, size) if size else image)
        if rows[-1].shape != rows[0].shape:
            raise DataError(f"{name}: its images differ in shape; pass size, the height and width to bring them to")
        files.demand_plausible(len(rows) * rows[0].nbytes, stored)
        if features.label:
            labels.append(int(values[features.label][0]))
    if not rows:
        raise DataError(f"{name}: a split is empty")
    return {"image": np.stack(rows)} | ({"label": dataset.to_int32(np.array(labels))} if features.label else {})


def _records(shards: list[tuple[pathlib.Path, int]]) -> Iterator[bytes]:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise DataError(f"reading {shards[0][0].parent} needs the package array_record, which is not here") from error
    for path, count in shards:
        if not files.is_regular(path):
            raise DataError(f"{path} is missing, or not a file")
        reader = array_record_module.ArrayRecordReader(str(path))
        try:
            if reader.num_records() != count:
                raise DataError(f"{path}: expected {count} records, got {reader.num_records()}")
            for first in range(0, count, CHUNK):
                yield from reader.read(list(range(first, min(first + CHUNK, count))))
        finally:
            reader.close()


def _decode(encoded: Any, channels: int) -> np.ndarray:
    """Decode the stored pixels without applying an orientation, as tensorflow-datasets does."""
    with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG", "GIF", "BMP")) as image:
        images.demand_pixels(image)
        pixels = np.asarray(image.convert(_MODES[channels]))
    return pixels.reshape(image.height, image.width, channels)
