"""Data sets that tensorflow-datasets has prepared, read without TensorFlow; which only preparing them needs.

Only the ``array_record`` format can be read so. The order of the records is tensorflow-datasets' own.
"""

import difflib
import importlib.util
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from genjax.data import dataset, download, images
from genjax.data.dataset import DataError, Dataset, Split

HELDOUT_FRACTION = 0.05
CHUNK = 500


def load(name: str, root: pathlib.Path, size: int | None, heldout_split: str | None) -> Dataset | None:
    """The newest version of the data set that is prepared in ``root/name/``; None where there is none.

    Raises:
      DataError: it is in another format, or holds no images, splits or sizes that would do.
    """
    versions = [path.parent for path in (root / name).glob("*/dataset_info.json") if _version(path.parent)]
    if not versions:
        return None
    newest = max(versions, key=_version)
    try:
        return dataset.checked(_open(name, newest, size, heldout_split))
    except DataError:
        raise
    except Exception as error:  # damaged records raise anything
        raise DataError(f"{newest} is damaged ({error}); delete it and prepare {name} again") from error


def _open(name: str, folder: pathlib.Path, size: int | None, heldout_split: str | None) -> Dataset:
    import tensorflow_datasets

    builder = tensorflow_datasets.builder_from_directory(folder)
    kind = builder.info.file_format and builder.info.file_format.value
    if kind != "array_record":
        raise DataError(
            f"{folder} is in the format {kind}, which only TensorFlow reads; prepare it in another data_dir, with "
            f'tensorflow_datasets.builder("{name}", data_dir=..., file_format="array_record").download_and_prepare()'
        )
    return _divide(name, builder, size, heldout_split)


def prepare(name: str, root: pathlib.Path) -> None:
    """Has tensorflow-datasets download the data set and prepare it in ``root/name/``.

    Raises:
      DataError: there is no TensorFlow, no such data set or no network, or tensorflow-datasets fails.
    """
    import tensorflow_datasets

    _demand_known(name, tensorflow_datasets.list_builders(with_community_datasets=False))
    if importlib.util.find_spec("tensorflow") is None:
        raise DataError(
            f"{name} is not prepared in {root}, and preparing it needs TensorFlow: pip install 'jax-genmodels[tf]'; "
            "or give the images as a folder of files or as an .npz file"
        )
    import tensorflow

    tensorflow.config.set_visible_devices([], "GPU")  # or TensorFlow takes the memory of every GPU
    try:
        builder = tensorflow_datasets.builder(name, data_dir=root, file_format="array_record")
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
    """Fails in seconds; offline, tensorflow-datasets tries for minutes."""
    first = next((url for url in builder.url_infos or () if url.startswith("https://")), None)
    if first and (reason := download.unreachable(first)):
        raise DataError(reason)


def _version(path: pathlib.Path) -> tuple[int, ...]:
    parts = path.name.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _divide(name: str, builder: Any, size: int | None, heldout_split: str | None) -> Dataset:
    splits = list(builder.info.splits)
    heldout = heldout_split or next((split for split in ("test", "validation") if split in splits), None)
    for split in {"train", heldout} - {None}:
        if split not in splits:
            raise DataError(f"{name} has no split {split!r}; it has {', '.join(splits) or 'none'}")
    train = _read(name, builder, "train", size)
    if heldout:
        return Dataset(name, train, _read(name, builder, heldout, size))
    mask = dataset.hold_out(dataset.row_names(len(train["image"])), HELDOUT_FRACTION)
    return dataset.divide(name, train, mask)


def _read(name: str, builder: Any, split: str, size: int | None) -> Split:
    image_key, label_key = _features(name, builder.info.features)
    labels: list[int] = []
    found: list[np.ndarray] = []
    for example in _examples(builder.as_data_source(split=split)):
        image = example[image_key]
        found.append(images.fit_array(image, size) if size else image)
        if label_key:
            labels.append(int(example[label_key]))
    if len({image.shape for image in found}) > 1:
        raise DataError(f"{name}: its images differ in shape; pass size, the height and width to bring them to")
    if not found:
        raise DataError(f"{name}: its split {split!r} is empty")
    return {"image": np.stack(found)} | ({"label": np.array(labels, np.int32)} if label_key else {})


def _examples(source: Any) -> Iterator[dict[str, Any]]:
    for first in range(0, len(source), CHUNK):
        yield from source.__getitems__(list(range(first, min(first + CHUNK, len(source)))))


def _features(name: str, features: Any) -> tuple[str, str]:
    """The names of the images and of the labels, the latter empty where there are none."""
    image = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    if "image" in image:
        image = ["image"]
    if len(image) != 1 or features[image[0]].np_dtype != np.uint8:
        raise DataError(f"{name}: expected one feature of uint8 images, or one named image; it has {features}")
    label = dict(features.items()).get("label")
    is_class = label is not None and label.shape == () and np.issubdtype(label.np_dtype, np.integer)
    return image[0], "label" if is_class else ""
