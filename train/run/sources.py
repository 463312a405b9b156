"""Which data set a ``--data`` flag means."""

import difflib
import functools
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from genjax import data, random
from genjax.theory import pixels
from genjax.types import Batch, Images, Key, Loss, Params
from train.run import conditions, data_forms
from train.run.config import UsageError

FORMS = "digits, tfds:NAME, folder:PATH or npz:PATH[#KEY]"
MORE = {"codes": "codes:WORKDIR of a VQ-VAE", "ring": "ring"}
"""Kinds of data that only some models take, as their settings say in ``kinds``."""

SHAPES, READS = data_forms.SHAPES, data_forms.READS
FLAGS = {
    'pass on_bad_image="skip"': "pass --on-bad-image skip",
    "choose one with key=": "choose one with --data npz:PATH#KEY",
    "pass size,": "pass --size,",
    "prepare it in another data_dir": "prepare it in another --data-dir",
    "give the images as a folder of files or as an .npz file": "give the images as --data folder:PATH or npz:PATH",
}
"""What the library advises, and what a command takes for it."""

OF_DATA_DIR = (
    conditions.Condition(
        functools.partial(data_forms.is_read, "data_dir"), f"of a run with --data {data_forms.readers('data_dir')}"
    ),
)
"""When a command that asks a run reads where its data lie."""


def check(settings: Any) -> None:
    """Refuse a ``--data`` that names no kind of data, and settings that its kind does not heed.

    Raises:
      UsageError: with the forms there are, or the setting and why not.
      genjax.data.DataError: there is no such folder.
    """
    _demand_form(settings)
    kind, _, path = settings.data.partition(":")
    if kind == "folder" and not os.path.isdir(path):
        raise data.DataError(f"{path}: there is no such folder; say where your images are with --data folder:PATH")
    own = SHAPES.get(settings.data, (0, 0, 0))
    heeded = data_forms.settings_of(settings.data)
    for name, same in (("size", own[0]), ("channels", own[2]), ("on_bad_image", "refuse")):
        value, unset = getattr(settings, name), "refuse" if name == "on_bad_image" else 0
        if name not in heeded and value not in (unset, same):
            flag = f"--{name.replace('_', '-')} {value}"
            raise UsageError(f"{flag}: --data {settings.data} takes none{_WHY.get(settings.data, '')}; leave it out")
    if getattr(settings, "binarization", "none") == "static" and settings.size not in (0, own[0]):
        raise UsageError(f"--size {settings.size}: black and white images would turn grey at another size")


_WHY = {
    "tfds:binarized_mnist": ", as black and white images would turn grey",
    "ring": ", as points are no pictures",
}


def _demand_form(settings: Any) -> None:
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
    size, channels = _asked(settings)
    known = SHAPES.get(settings.data)
    if size and channels:
        return (size, size, channels)
    return (size or known[0], size or known[1], channels or known[2]) if known else None


def _asked(settings: Any) -> tuple[int | None, int | None]:
    return data_forms.size_and_channels({name: getattr(settings, name) for name in ("data", "size", "channels")})


def images(settings: Any, key: Key, rows: Batch) -> tuple[Key, Images]:
    """Rows as a model wants them: keys, one per example, and images in [-1, 1], drawn black or white if asked."""
    keys = random.example_keys(key, rows["image"].shape[0])
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
    image_keys, flip_keys = random.split(random.example_keys(key, rows["image"].shape[0]), 2)
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
    """The data set, without the class that ``exclude_class`` names.

    Args:
      settings: of the script: ``data``, and what its kind reads (READS).

    Raises:
      genjax.data.DataError: it is missing, broken or out of reach.
      UsageError: there is no such class, or nothing but it.
    """
    try:
        whole = _load(settings)
    except data.DataError as error:
        raise data.DataError(_in_flags(str(error))) from error
    if getattr(settings, "binarization", "none") == "static":
        for split in (whole.train, whole.heldout):
            if len(levels := np.unique(split["image"])) > 2 or not {*levels.tolist()} <= {0, 255}:
                raise UsageError(
                    f"--binarization static: {whole.name} has {len(levels)} levels, not black and white alone; "
                    "use --data tfds:binarized_mnist, or --binarization dynamic"
                )
    if settings.exclude_class < 0:
        return whole
    if "label" not in whole.train:
        raise UsageError(f"--exclude-class {settings.exclude_class}: {whole.name} has no labels")
    kept = whole.train["label"] != settings.exclude_class
    if kept.all() or not kept.any():
        classes = np.unique(whole.train["label"]).tolist()
        raise UsageError(
            f"--exclude-class {settings.exclude_class}: expected one of the classes {classes} of {whole.name}"
        )
    return whole._replace(train={name: array[kept] for name, array in whole.train.items()})


def _load(settings: Any) -> data.Dataset:
    kind, _, rest = settings.data.partition(":")
    size, channels = _asked(settings)
    if kind == "folder":
        on_bad_image: Literal["raise", "skip"] = "skip" if settings.on_bad_image == "skip" else "raise"
        return data.folder(
            rest, size or data_forms.SIZE, channels=channels or data_forms.CHANNELS, on_bad_image=on_bad_image
        )
    if kind == "ring":
        return data.ring()
    if kind == "tfds":
        whole = data.tfds(rest, settings.data_dir or None, size=None if settings.data in SHAPES else size)
    elif kind == "npz":
        path, key = _path_and_key(rest)
        whole = data.npz(path, key=key)
    else:
        whole = data.digits()
    return data.fit(whole, size, channels)


def _path_and_key(named: str) -> tuple[str, str | None]:
    """PATH or PATH#KEY; names of files and keys may hold a #, so that the longest name of a file that is there wins."""
    parts = named.split("#")
    for i in range(len(parts), 0, -1):
        path = "#".join(parts[:i])
        if os.path.exists(os.path.expanduser(path)):
            return path, "#".join(parts[i:]) or None
    path, _, key = named.partition("#")
    return path, key or None


def _in_flags(message: str) -> str:
    for theirs, ours in FLAGS.items():
        message = message.replace(theirs, ours)
    return message


class Source(NamedTuple):
    """Where a script's data come from.

    Fields:
      check: ``(settings)``; refuses what names no data.
      shape: ``(settings) -> (h, w, c)`` of the images, or None where only the data tell.
      load: ``(settings) -> Dataset``.
      fingerprint: ``(settings, dataset) -> str``: equal for the same data, wherever they lie.
      has_images: False where the rows of the data are no images; a recipe is then built for the shape None.
    """

    check: Callable[[Any], None]
    shape: Callable[[Any], tuple[int, int, int] | None]
    load: Callable[[Any], data.Dataset]
    fingerprint: Callable[[Any, data.Dataset], str] = lambda settings, dataset: data.fingerprint(dataset)
    has_images: bool = True

    def shape_of(self, dataset: data.Dataset) -> tuple[int, int, int] | None:
        """The shape (h, w, c) of the images of a data set; None where its rows are no images."""
        return tuple(dataset.train["image"].shape[1:]) if self.has_images else None


IMAGES = Source(check, shape, load)
"""Images, as ``--data`` names them."""
