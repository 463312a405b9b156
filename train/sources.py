"""Which data set a ``--data`` flag means."""

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from genjax import data, random
from genjax.theory import pixels
from genjax.types import Batch, Images, Key, Loss, Params
from train import reads
from train.config import UsageError

FORMS = "digits, tfds:NAME, folder:PATH or npz:PATH[#KEY]"
MORE = {"codes": "codes:WORKDIR of a VQ-VAE", "ring": "ring"}
"""Kinds of data that only some models take, as their settings say in ``kinds``."""


# The shapes that are known before anything is read.
SHAPES = {
    "digits": (8, 8, 1),
    "ring": (1, 1, 2),
    "tfds:mnist": (28, 28, 1),
    "tfds:fashion_mnist": (28, 28, 1),
    "tfds:binarized_mnist": (28, 28, 1),
    "tfds:cifar10": (32, 32, 3),
}

READS = {
    "digits": {"flip", "without"},
    "ring": {"without"},
    "npz": {"flip", "without"},
    "folder": {"flip", "without", "size", "channels"},
    "tfds": {"flip", "without", "size", "data_dir"},
    "codes": {"data_dir"},
}
"""The settings of images that each kind of data reads."""


def read(settings: Any) -> set[str]:
    """The settings of images that the data at hand read."""
    every = {name for names in READS.values() for name in names}  # where ``check`` will say that there are no such data
    return READS.get(settings.data.partition(":")[0], every) - ({"size"} if settings.data in SHAPES else set())


def readers(name: str) -> str:
    """The ``--data`` that read a setting of images, for a message."""
    kinds = [kind for kind, names in READS.items() if name in names and kind not in MORE]
    shown = {"tfds": "tfds:NAME", "folder": "folder:PATH", "npz": "npz:PATH"}
    return f"with --data {' or '.join(shown.get(kind, kind) for kind in kinds)}"


OF_DATA_DIR = (reads.Condition(lambda asked: "data_dir" in read(asked), lambda: f"of a run {readers('data_dir')}"),)
"""When a command that asks a run reads where its data lie."""


def check(settings: Any) -> None:
    """Refuse a ``--data`` that names no kind of data.

    Raises:
      UsageError: with the forms there are.
    """
    kind, _, rest = settings.data.partition(":")
    named = {"tfds", "folder", "npz", *settings.kinds} - {"ring"}
    if settings.data in {"digits", "ring"} & {"digits", *settings.kinds} or (kind in named and rest):
        return
    known = {f"tfds:{name}" for name in (kind, kind.replace("-", "_"))} & SHAPES.keys()
    close = [*known, *difflib.get_close_matches(kind, ["digits", "tfds", "folder", "npz"], n=1)]
    hint = f"; did you mean {close[0]}?" if close else ""
    more = "".join(f", or {MORE[kind]}" for kind in settings.kinds)
    raise UsageError(f"--data {settings.data}: expected {FORMS}{more}{hint}")


def shape(settings: Any) -> tuple[int, int, int] | None:
    """(h, w, c) of the images, where the settings tell it; None where only the data does."""
    if settings.data.startswith("folder:"):
        return (settings.size, settings.size, settings.channels)
    return SHAPES.get(settings.data)


def images(settings: Any, key: Key, rows: Batch) -> tuple[Key, Images]:
    """Rows as a model wants them: keys, one per example, and images in [-1, 1], drawn black or white if asked."""
    keys = random.per_example(key, rows["image"].shape[0])
    if settings.data.startswith("codes:"):
        return keys, pixels.from_level(rows["image"], settings.levels)
    if settings.data == "ring":
        return keys, rows["image"]
    if getattr(settings, "binarization", "none") != "dynamic":
        return keys, data.scale(rows["image"])
    model_keys, pixel_keys = random.split(keys, 2)
    return model_keys, data.binarize(pixel_keys, data.scale(rows["image"]))


def training_images(settings: Any, key: Key, rows: Batch) -> tuple[Key, Images]:
    """The same for a training step, mirrored if asked."""
    image_keys, flip_keys = random.split(random.per_example(key, rows["image"].shape[0]), 2)
    return images(
        settings, image_keys, {**rows, "image": data.flip(flip_keys, rows["image"])} if settings.flip else rows
    )


def on_rows(settings: Any, loss: Loss, *, training: bool = False) -> Loss:
    """A model's loss on rows of the data set as they lie in memory; mirrored in training, if asked."""
    brought = training_images if training else images

    def on_images(key: Key, params: Params, rows: Batch):
        keys, found = brought(settings, key, rows)
        return loss(keys, params, {**rows, "image": found})

    return on_images


def load(settings: Any) -> data.Dataset:
    """The data set, without the class that ``without`` names.

    Args:
      settings: of the script: ``data``, ``data_dir``, and the ``size`` and ``channels`` of images from a folder.

    Raises:
      genjax.data.DataError: it is missing, broken or out of reach.
      UsageError: there is no such class, or nothing but it.
    """
    whole = _load(settings)
    if getattr(settings, "binarization", "none") == "static":
        for split in (whole.train, whole.heldout):
            if len(levels := np.unique(split["image"])) > 2 or not {*levels.tolist()} <= {0, 255}:
                raise UsageError(
                    f"--binarization static: {whole.name} has {len(levels)} levels, not black and white alone; "
                    "use --data tfds:binarized_mnist, or --binarization dynamic"
                )
    if settings.without < 0:
        return whole
    if "label" not in whole.train:
        raise UsageError(f"--without {settings.without}: {whole.name} has no labels")
    kept = whole.train["label"] != settings.without
    if kept.all() or not kept.any():
        classes = np.unique(whole.train["label"]).tolist()
        raise UsageError(f"--without {settings.without}: expected one of the classes {classes} of {whole.name}")
    return whole._replace(train={name: array[kept] for name, array in whole.train.items()})


def _load(settings: Any) -> data.Dataset:
    kind, _, rest = settings.data.partition(":")
    if kind == "tfds":
        return data.tfds(rest, settings.data_dir or None, size=None if settings.data in SHAPES else settings.size)
    if kind == "folder":
        return data.folder(rest, settings.size, channels=settings.channels)
    if kind == "ring":
        return data.ring()
    if kind == "npz":
        path, _, key = rest.partition("#")
        return data.npz(path, key=key or None)
    return data.digits()


class Source(NamedTuple):
    """Where a script's data come from.

    Fields:
      check: ``(settings)``; refuses what names no data.
      shape: ``(settings) -> (h, w, c)`` of the images, or None where only the data tell.
      load: ``(settings) -> Dataset``.
      fingerprint: ``(settings, dataset) -> str``: equal for the same data, wherever they lie.
    """

    check: Callable[[Any], None]
    shape: Callable[[Any], tuple[int, int, int] | None]
    load: Callable[[Any], data.Dataset]
    fingerprint: Callable[[Any, data.Dataset], str] = lambda settings, dataset: data.fingerprint(dataset)


IMAGES = Source(check, shape, load)
"""Images, as ``--data`` names them."""
