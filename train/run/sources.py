"""Data sets by the names that ``--data`` gives them, and their rows as models take them."""

import difflib
import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from genjax import data, random
from genjax.theory import pixels
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar
from train.run import conditions, data_forms
from train.run.config import ImageRun, UsageError

if TYPE_CHECKING:
    from train.run.load import Record

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
"""Advice in the library's messages, and the flag that stands for it."""

OF_DATA_DIR = (
    conditions.Condition(
        functools.partial(data_forms.is_read, "data_dir"), f"of a run with --data {data_forms.readers('data_dir')}"
    ),
)
"""The condition under which a command that asks a run reads ``data_dir``."""


def check(settings: ImageRun) -> None:
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


def _demand_form(settings: ImageRun) -> None:
    kind, _, rest = settings.data.partition(":")
    named = {"tfds", "folder", "npz", *settings.kinds} - {"ring"}
    if settings.data in {"digits", "ring"} & {"digits", *settings.kinds} or (kind in named and rest):
        return
    known = {f"tfds:{name}" for name in (kind, kind.replace("-", "_"))} & SHAPES.keys()
    close = [*known, *difflib.get_close_matches(kind, ["digits", "tfds", "folder", "npz"], n=1)]
    hint = f"; did you mean {close[0]}?" if close else ""
    more = "".join(f", or {MORE[kind]}" for kind in settings.kinds)
    raise UsageError(f"--data {settings.data}: expected {FORMS}{more}{hint}")


def shape(settings: ImageRun) -> tuple[int, int, int] | None:
    """Return (h, w, c) of the images, or None where only the data tell it."""
    size, channels = _asked(settings)
    known = SHAPES.get(settings.data)
    if size and channels:
        return (size, size, channels)
    return (size or known[0], size or known[1], channels or known[2]) if known else None


def _asked(settings: ImageRun) -> tuple[int | None, int | None]:
    return data_forms.size_and_channels({name: getattr(settings, name) for name in ("data", "size", "channels")})


def points(settings: ImageRun) -> bool:
    """True for data that are points in the plane, unbounded, rather than images."""
    return data_forms.kind(settings.data) == "ring"


def images(settings: ImageRun, key: Key, rows: Batch) -> tuple[Key, Images]:
    """Bring rows to what a model takes: keys, one per example, and images in [-1, 1], binarised if the settings say so.

    Args:
      settings: settings of the run.
      key: key, or keys [b] of the examples.
      rows: rows of the data set as they are stored.
    """
    keys = random.example_keys(key, rows["image"].shape[0])
    if convert := _STORED.get(data_forms.kind(settings.data)):
        return keys, convert(settings, rows["image"])
    if getattr(settings, "binarization", "none") != "dynamic":
        return keys, data.scale(rows["image"])
    model_keys, pixel_keys = random.split(keys, 2)
    return model_keys, data.binarize(pixel_keys, data.scale(rows["image"]))


_STORED: dict[str, Callable[[Any, Any], Images]] = {
    "codes": lambda settings, maps: pixels.from_level(maps, settings.levels),
    "ring": lambda settings, points: points,
}
"""Model inputs of the kinds of data that are not stored as bytes."""


def training_images(settings: ImageRun, key: Key, rows: Batch) -> tuple[Key, Images]:
    """Do as ``images`` for a training step: mirror half of the rows if the settings say so."""
    image_keys, flip_keys = random.split(random.example_keys(key, rows["image"].shape[0]), 2)
    return images(
        settings, image_keys, {**rows, "image": data.flip(flip_keys, rows["image"])} if settings.flip else rows
    )


def on_rows(settings: ImageRun, loss: Loss, *, training: bool = False) -> Loss:
    """Make a loss on rows of the data set as they are stored from a loss on images.

    Args:
      settings: settings of the run.
      loss: loss on batches of images in [-1, 1].
      training: True for a training step, which may mirror images.
    """
    convert = training_images if training else images

    def loss_on_rows(key: Key, params: Params, rows: Batch) -> tuple[Scalar, Metrics]:
        keys, batch = convert(settings, key, rows)
        return loss(keys, params, {**rows, "image": batch})

    return loss_on_rows


def load(settings: ImageRun) -> data.Dataset:
    """Load the data set, without the class that ``exclude_class`` names.

    Raises:
      genjax.data.DataError: it is missing, broken or out of reach.
      UsageError: there is no such class, or nothing but it.
    """
    try:
        whole = _load(settings)
    except data.DataError as error:
        raise data.DataError(_in_flags(str(error))) from error
    if getattr(settings, "binarization", "none") == "static":
        _check_black_and_white(whole)
    return whole if settings.exclude_class < 0 else _without_class(settings, whole)


def _check_black_and_white(whole: data.Dataset) -> None:
    for split in (whole.train, whole.heldout):
        if len(levels := np.unique(split["image"])) > 2 or not {*levels.tolist()} <= {0, 255}:
            raise UsageError(
                f"--binarization static: {whole.name} has {len(levels)} levels, not black and white alone; "
                "use --data tfds:binarized_mnist, or --binarization dynamic"
            )


def _without_class(settings: ImageRun, whole: data.Dataset) -> data.Dataset:
    if "label" not in whole.train:
        raise UsageError(f"--exclude-class {settings.exclude_class}: {whole.name} has no labels")
    kept = whole.train["label"] != settings.exclude_class
    if kept.all() or not kept.any():
        classes = np.unique(whole.train["label"]).tolist()
        raise UsageError(
            f"--exclude-class {settings.exclude_class}: expected one of the classes {classes} of {whole.name}"
        )
    return whole._replace(train={name: array[kept] for name, array in whole.train.items()})


def _load(settings: ImageRun) -> data.Dataset:
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


def _path_and_key(name: str) -> tuple[str, str | None]:
    """Split PATH or PATH#KEY; both may hold a #, so that the longest name of an existing file wins."""
    parts = name.split("#")
    for i in range(len(parts), 0, -1):
        path = "#".join(parts[:i])
        if os.path.exists(os.path.expanduser(path)):
            return path, "#".join(parts[i:]) or None
    path, _, key = name.partition("#")
    return path, key or None


def _in_flags(message: str) -> str:
    for advice, flag in FLAGS.items():
        message = message.replace(advice, flag)
    return message


class Source(NamedTuple):
    """The data of a recipe.

    Attributes:
      check: refuses settings that name no data, ``(settings)``.
      shape: (h, w, c) of the images, ``(settings)``; None where only the data tell it.
      load: data set, ``(settings) -> Dataset``.
      fingerprint: string that is equal for equal data, wherever they lie, ``(settings, dataset)``.
      origin: run whose data are images, ``(record) -> record``: the run itself, or where its data are codes, the run
        that made them.
      check_run: refuses a run whose data cannot be turned back into images any more, ``(record)``.
      has_images: False where the rows of the data are no images; a recipe is then built for the shape None.
    """

    check: Callable[[Any], None]
    shape: Callable[[Any], tuple[int, int, int] | None]
    load: Callable[[Any], data.Dataset]
    fingerprint: Callable[[Any, data.Dataset], str] = lambda settings, dataset: data.fingerprint(dataset)
    origin: "Callable[[Record], Record]" = lambda run: run
    check_run: "Callable[[Record], None]" = lambda run: None
    has_images: bool = True

    def shape_of(self, dataset: data.Dataset) -> tuple[int, int, int] | None:
        """Return (h, w, c) of the images of a data set, or None where its rows are no images."""
        return tuple(dataset.train["image"].shape[1:]) if self.has_images else None


IMAGES = Source(check, shape, load)
"""Images, as ``--data`` names them."""
