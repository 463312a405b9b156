"""The forms of ``--data``: the settings that each reads, and the image shapes that are known beforehand."""

from collections.abc import Mapping
from typing import Any, Protocol

from train.checkpoint import steps

SHAPES = {
    "digits": (8, 8, 1),
    "ring": (1, 1, 2),
    "tfds:mnist": (28, 28, 1),
    "tfds:fashion_mnist": (28, 28, 1),
    "tfds:binarized_mnist": (28, 28, 1),
    "tfds:cifar10": (32, 32, 3),
}
"""Original shape (h, w, c) of the images, where the name of the data set tells it."""

READS = {
    "digits": frozenset({"size", "channels"}),
    "ring": frozenset[str](),
    "tfds": frozenset({"size", "channels", "data_dir"}),
    "tfds:binarized_mnist": frozenset({"data_dir"}),
    "folder": frozenset({"size", "channels", "on_bad_image"}),
    "npz": frozenset({"size", "channels"}),
    "codes": frozenset({"data_dir"}),
}
"""Settings that a kind of data, or one data set, reads among ``size``, ``channels``, ``data_dir``, ``on_bad_image``."""

IMPORTED = "imported"
"""Fingerprint of the unknown data of imported weights."""

SIZE, CHANNELS = 64, 3
"""Default size and channels of the pictures of a folder; default size also of the catalogue's sets not in SHAPES."""


class WithData(Protocol):
    """Settings that name a data set."""

    @property
    def data(self) -> str:
        """The data set, in a form of ``--data``."""


def kind(data: str) -> str:
    """The kind of a data set: the word before the colon of ``--data``."""
    return data.partition(":")[0]


def settings_of(data: str) -> frozenset[str]:
    """The settings that a data set reads, of those in READS."""
    return READS.get(data, READS.get(kind(data), frozenset()))


def is_read(name: str, settings: WithData) -> bool:
    """True if the data set at hand reads a setting of images; True for an unknown kind of data, refused elsewhere."""
    if kind(settings.data) not in READS:
        return True
    if name == "flip":
        return kind(settings.data) not in ("ring", "codes")  # a mirrored map of codes is no code of the mirrored image
    if name == "exclude_class":
        return kind(settings.data) != "codes"
    return name in settings_of(settings.data)


def readers(name: str) -> str:
    """The forms of ``--data`` that read a setting, for a message."""
    forms = {"digits": "digits", "tfds": "tfds:NAME", "folder": "folder:PATH", "npz": "npz:PATH"}
    reading = [form for kind, form in forms.items() if name in ("flip", "exclude_class") or name in READS[kind]]
    return f"{', '.join(reading[:-1])} or {reading[-1]}" if len(reading) > 1 else reading[0]


def size_and_channels(values: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The size and the channels to convert images to, defaults included; None keeps those of the images."""
    data = values["data"]
    default_size = SIZE if kind(data) == "folder" or (kind(data) == "tfds" and data not in SHAPES) else None
    default_channels = CHANNELS if kind(data) == "folder" else None
    return values["size"] or default_size, values["channels"] or default_channels


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with explicit size and channels, so that a default that is typed equals one that is not."""
    if "size" not in values or not isinstance(values.get("data"), str):
        return dict(values)
    size, channels = size_and_channels(values)
    return {**values, "size": size or 0, "channels": channels or 0}


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an old record, in today's meaning.

    Before there was ``on_bad_image``, ``size`` and ``channels`` were read for pictures of a folder only (``size`` also
    for the catalogue's sets not in SHAPES), and were recorded as 64 and 3 in all other runs.
    """
    if "on_bad_image" in values or not isinstance(data := values.get("data"), str):
        return dict(values)
    unread = {"channels"} if kind(data) == "tfds" and data not in SHAPES else {"size", "channels"}
    return {**values, **(dict.fromkeys(unread & values.keys(), 0) if kind(data) != "folder" else {})}


def same_data(recorded: Mapping[str, Any], *fingerprints: str) -> bool:
    """True if the data at hand can be the data of a record; with a warning where the record is too old to tell.

    An old record of codes holds the fingerprint of the code maps, which differ by an index between versions and
    machines.

    Args:
      recorded: entry "data" of the record.
      fingerprints: fingerprints of the data at hand; one must be that of the record.
    """
    old = str(recorded.get("fingerprint"))
    if old in (IMPORTED, *fingerprints):
        return True
    of_codes = str(recorded.get("name")).startswith("codes of ") and not old.startswith("codes:")
    if of_codes and any(new.startswith("codes:") for new in fingerprints):
        steps.warn("the record is older than what tells codes apart: they are taken to be of the same VQ-VAE")
        return True
    return False
