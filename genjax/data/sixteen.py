"""Channels of more than eight bits brought to eight: level / 257, rounded, so that 65535 becomes 255.

Pillow keeps grey of sixteen bits, but cuts colours to their high bytes. Decoding the same file as of the other byte
order yields their low bytes.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from genjax.data.dataset import DataError

DARK = 65536 // 8
"""A picture of 16 bits without a level from here on is probably one of 12 bits or fewer."""
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_WHITE_IS_ZERO = 0


class Reduced(NamedTuple):
    """A picture of eight bits per channel.

    Fields:
      image: the picture, loaded.
      dark: whether it had 16 bits per channel and used less than an eighth of their range.
    """

    image: Image.Image
    dark: bool = False


def reduced(image: Image.Image, swapped: Callable[[], AbstractContextManager[Image.Image]]) -> Reduced:
    """The picture, which is loaded, with eight bits per channel.

    Args:
      image: as opened.
      swapped: opens the same file again as ``swap`` would have it.

    Raises:
      DataError: levels outside the range of the mode.
    """
    deep = _is_deep(image)
    image.load()
    if image.mode == "F":
        return Reduced(_unit_interval(np.asarray(image)))
    if image.mode.startswith("I"):
        return _grey(image)
    if not deep:
        return Reduced(image)
    with swapped() as other:
        other.load()
        return _colours(image, np.asarray(image), np.asarray(other), other.mode != image.mode or deep == "LA;16B")


def swap(image: Any) -> None:
    """Have an opened picture of 16 bits per colour decoded as of the other byte order."""
    for i, tile in enumerate(image.tile):
        mode = _raw_mode(tile)
        other = mode[:-1] + _SWAPPED[mode[-1]]
        image.tile[i] = tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))


def _is_deep(image: Any) -> str:
    """The raw mode where it has colours of 16 bits that are cut; empty for all others."""
    mode = _raw_mode(image.tile[0]) if getattr(image, "tile", None) else ""
    deep = image.mode in ("RGB", "RGBA", "CMYK") and mode[:-1].endswith(";16") and mode[-1] in _SWAPPED
    return mode if deep and not mode.startswith("RGBa") else ""


def _raw_mode(tile) -> str:
    mode = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    return mode if isinstance(mode, str) else ""


def _unit_interval(levels: np.ndarray) -> Image.Image:
    if not (levels.min() >= 0 and levels.max() <= 1):
        raise DataError(f"levels {levels.min()} to {levels.max()}; expected 0 to 1")
    return Image.fromarray(np.rint(levels * 255).astype(np.uint8))


def _grey(image: Image.Image) -> Reduced:
    levels: Integer[np.ndarray, "h w"] = np.asarray(image)
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise DataError(f"levels {low} to {high}; expected 0 to 65535")
    levels = levels.astype(np.int32)
    hidden = levels == image.info["transparency"] if isinstance(image.info.get("transparency"), int) else None
    if getattr(image, "tag_v2", {}).get(262) == _WHITE_IS_ZERO:  # which Pillow heeds for eight bits only
        levels = 65535 - levels
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if hidden is not None:
        grey = Image.merge("LA", (grey, _alpha(hidden)))
    return Reduced(grey, 0 < int(levels.max()) < DARK)


def _colours(image: Image.Image, high: UInt8[np.ndarray, "h w c"], low: UInt8[np.ndarray, "h w c"], grey) -> Reduced:
    """The bytes of each level joined, rounded: (256 h + l) / 257 is h + (l - h) / 257, and |l - h| < 256."""
    if grey:  # see pngs.as_rgba
        high, low = low[..., [0, 0, 0, 2]], low[..., [1, 1, 1, 3]]
    slope = low.astype(np.int16) - high
    eight = (high + (slope > 128) - (slope < -128)).astype(np.uint8)
    found = Image.merge(image.mode, [Image.fromarray(eight[..., i]) for i in range(eight.shape[-1])])
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple):
        levels = high.astype(np.uint16) * 256 + low
        found.putalpha(_alpha((levels == np.array(key, np.uint16)).all(-1)))
    colours = slice(0, 3) if image.mode == "RGBA" else slice(None)
    dark = high[..., colours].max() < DARK // 256 and bool(high[..., colours].any() or low[..., colours].any())
    return Reduced(found, bool(dark) and image.mode != "CMYK")


def _alpha(hidden: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))
