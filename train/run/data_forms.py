"""The forms of ``--data``: which settings each of them reads, and the shapes that are known before anything is read."""

from collections.abc import Mapping
from typing import Any

from train.checkpoint import steps

SHAPES = {
    "digits": (8, 8, 1),
    "ring": (1, 1, 2),
    "tfds:mnist": (28, 28, 1),
    "tfds:fashion_mnist": (28, 28, 1),
    "tfds:binarized_mnist": (28, 28, 1),
    "tfds:cifar10": (32, 32, 3),
}
"""(h, w, c) of the images as they are, where the name tells it."""

READS = {
    "digits": frozenset({"size", "channels"}),
    "ring": frozenset[str](),
    "tfds": frozenset({"size", "channels", "data_dir"}),
    "tfds:binarized_mnist": frozenset({"data_dir"}),
    "folder": frozenset({"size", "channels", "on_bad_image"}),
    "npz": frozenset({"size", "channels"}),
    "codes": frozenset({"data_dir"}),
}
"""What a kind of data, or one data set of it, reads of ``size``, ``channels``, ``data_dir`` and ``on_bad_image``."""

IMPORTED = "imported"
"""The fingerprint of data that a run has not seen."""

SIZE, CHANNELS = 64, 3
"""What pictures of a folder come to where nothing is asked; the size also of sets of the catalogue not in SHAPES."""


def kind(data: str) -> str:
    """What stands before the colon."""
    return data.partition(":")[0]


def reads(data: str) -> frozenset[str]:
    """The settings of READS that this data set reads."""
    return READS.get(data, READS.get(kind(data), frozenset()))


def heeds(name: str, settings: Any) -> bool:
    """Whether the data at hand can do what a setting of images asks; of no data, ``sources.check`` has more to say."""
    if kind(settings.data) not in READS:
        return True
    if name == "flip":
        return kind(settings.data) not in ("ring", "codes")  # a mirrored map of codes is no code of the mirrored image
    if name == "exclude_class":
        return kind(settings.data) != "codes"
    return name in reads(settings.data)


def heeding(name: str) -> str:
    """The forms of ``--data`` that ``heeds`` a setting, for a message."""
    shown = {"digits": "digits", "tfds": "tfds:NAME", "folder": "folder:PATH", "npz": "npz:PATH"}
    found = [form for of, form in shown.items() if name in ("flip", "exclude_class") or name in READS[of]]
    return f"{', '.join(found[:-1])} or {found[-1]}" if len(found) > 1 else found[0]


def asked(values: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """The size and the channels that the images are brought to; None leaves them as they are."""
    data = values["data"]
    default_size = SIZE if kind(data) == "folder" or (kind(data) == "tfds" and data not in SHAPES) else None
    default_channels = CHANNELS if kind(data) == "folder" else None
    return values["size"] or default_size, values["channels"] or default_channels


def meant(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the size and the channels that they amount to: an asked default is no other setting."""
    if "size" not in values or not isinstance(values.get("data"), str):
        return dict(values)
    size, channels = asked(values)
    return {**values, "size": size or 0, "channels": channels or 0}


def recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run's record in today's meaning.

    Until ``on_bad_image`` came, ``size`` and ``channels`` were heeded for pictures of a folder only (``size`` also for
    sets of the catalogue not in SHAPES), and stood at 64 and 3 in the records of all other runs.
    """
    if "on_bad_image" in values or not isinstance(data := values.get("data"), str):
        return dict(values)
    unread = {"channels"} if kind(data) == "tfds" and data not in SHAPES else {"size", "channels"}
    return {**values, **(dict.fromkeys(unread & values.keys(), 0) if kind(data) != "folder" else {})}


def same_data(about: Mapping[str, Any], *fingerprints: str) -> bool:
    """Whether the data at hand can be those that a record tells of; with a warning where nobody can say.

    Of codes an older record has the fingerprint of the maps, which differ by an index between versions and machines.
    """
    known = str(about.get("fingerprint"))
    if known in (IMPORTED, *fingerprints):
        return True
    of_codes = str(about.get("name")).startswith("codes of ") and not known.startswith("codes:")
    if of_codes and any(found.startswith("codes:") for found in fingerprints):
        steps.warn("the record is older than what tells codes apart: they are taken to be of the same VQ-VAE")
        return True
    return False
