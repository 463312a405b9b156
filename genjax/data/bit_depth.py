"""Conversion of channels of 16 bits to 8 bits: level / 257, rounded, so that 65535 becomes 255.

Pillow keeps grey levels of 16 bits, but truncates colours to their high bytes. Decoding the same file with the other
byte order yields the low bytes.
"""

import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from genjax.data.dataset import DataError

DARK = 65536 // 8
"""Lowest level of a plausible maximum. A picture of 16 bits with lower levels only is probably one of 12 bits."""
BAND = 1 << 22
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_WHITE_IS_ZERO = 0


class EightBits(NamedTuple):
    """Picture of eight bits per channel.

    Attributes:
      image: loaded picture.
      dark: True if the file has 16 bits per channel and uses less than an eighth of their range.
    """

    image: Image.Image
    dark: bool = False


def to_eight_bits(image: Image.Image, swapped: Callable[[], AbstractContextManager[Image.Image]]) -> EightBits:
    """Load a picture with eight bits per channel.

    Args:
      image: opened picture.
      swapped: function that opens the same file again, with its bytes exchanged by ``swap_bytes``.

    Raises:
      DataError: a level is outside the range of the mode.
    """
    deep = _is_deep(image)
    image.load()
    if image.mode == "F":
        return EightBits(_unit_interval(np.asarray(image)))
    if image.mode.startswith("I"):
        return _grey(image)
    if not deep:
        return EightBits(image)
    with swapped() as other:
        other.load()
        grey_alpha = deep == "LA;16B"
        mode = "RGBA" if "transparency" in image.info else image.mode
        merged = map_bands((image, other), mode, lambda high, low: _colours(high, low, grey_alpha))
        highest = _highest(image)[:3]
        lit = any(highest) or any(_highest(other)[: 2 if grey_alpha else 3])
        return EightBits(merged, image.mode != "CMYK" and lit and max(highest) < DARK // 256)


def demand_shallow(image: Image.Image, file: io.BufferedReader) -> None:
    """Refuse a JPEG 2000 picture in colours of more than eight bits, which Pillow truncates silently.

    The number of channels is stored 38 bytes after the marker SIZ, followed by their depths (ISO 15444-1, A.5.1).

    Raises:
      DataError: the message says how many bits there are.
    """
    position = file.tell()
    file.seek(0)
    start = (head := file.read(1 << 16)).find(b"\xff\x4f\xff\x51")
    file.seek(position)
    components = int.from_bytes(head[start + 40 : start + 42], "big")
    depths = head[start + 42 : start + 42 + 3 * components : 3] if start >= 0 else b""
    depth = 1 + max((byte & 127 for byte in depths), default=7)
    if depth > 8 and not image.mode.startswith("I"):
        raise DataError(f"colours of {depth} bits in JPEG 2000, of which Pillow reads 8; save it as PNG")


def swap_bytes(image: Any) -> None:
    """Make Pillow decode an opened picture of 16 bits per colour in the other byte order."""
    for i, tile in enumerate(image.tile):
        mode = _raw_mode(tile)
        other = mode[:-1] + _SWAPPED[mode[-1]]
        image.tile[i] = tile._replace(args=other if isinstance(tile.args, str) else (other, *tile.args[1:]))


def map_bands(pictures: tuple[Image.Image, ...], mode: str, change: Callable[..., Image.Image]) -> Image.Image:
    """Apply ``change`` to pictures of one size in bands of a few million pixels, which bounds the memory."""
    width, height = pictures[0].size
    result, rows = Image.new(mode, (width, height)), max(1, BAND // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        result.paste(change(*(picture.crop(box) for picture in pictures)), box)
    return result


def _highest(image: Any) -> list[int]:
    """Highest level of each channel."""
    return [top for _, top in image.getextrema()]


def _is_deep(image: Any) -> str:
    """Return the raw mode of a picture whose colours of 16 bits are truncated; empty for all others."""
    mode = _raw_mode(image.tile[0]) if getattr(image, "tile", None) else ""
    deep = image.mode in ("RGB", "RGBA", "CMYK") and mode[:-1].endswith(";16") and mode[-1] in _SWAPPED
    return mode if deep and not mode.startswith("RGBa") else ""


def _raw_mode(tile: Any) -> str:
    mode = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    return mode if isinstance(mode, str) else ""


def _unit_interval(levels: np.ndarray) -> Image.Image:
    if not (levels.min() >= 0 and levels.max() <= 1):
        raise DataError(f"levels {levels.min()} to {levels.max()}; expected 0 to 1")
    return Image.fromarray(np.rint(levels * 255).astype(np.uint8))


def _grey(image: Image.Image) -> EightBits:
    levels: Integer[np.ndarray, "h w"] = np.asarray(image)
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise DataError(f"levels {low} to {high}; expected 0 to 65535")
    inverted = getattr(image, "tag_v2", {}).get(262) == _WHITE_IS_ZERO  # Pillow applies it for eight bits only
    eight = np.empty(levels.shape, np.uint8)
    for top in range(0, len(levels), rows := max(1, BAND // levels.shape[1])):
        band = levels[top : top + rows].astype(np.int32)
        eight[top : top + rows] = ((65535 - band if inverted else band) + 128) // 257
    grey = Image.fromarray(eight)
    if isinstance(key := image.info.get("transparency"), int):
        grey = Image.merge("LA", (grey, _alpha(levels == key)))
    return EightBits(grey, 0 < (65535 - low if inverted else high) < DARK)


def _colours(image: Image.Image, other: Image.Image, grey_alpha: bool) -> Image.Image:
    """Round levels of two bytes: (256 h + l) / 257 is h + (l - h) / 257, and |l - h| < 256."""
    high: UInt8[np.ndarray, "h w c"] = np.asarray(image)
    low: UInt8[np.ndarray, "h w c"] = np.asarray(other)
    if grey_alpha:  # see pngs.as_rgba
        high, low = low[..., [0, 0, 0, 2]], low[..., [1, 1, 1, 3]]
    slope = low.astype(np.int16) - high
    eight = (high + (slope > 128) - (slope < -128)).astype(np.uint8)
    merged = Image.merge(image.mode, [Image.fromarray(eight[..., i]) for i in range(eight.shape[-1])])
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple):
        levels = high.astype(np.uint16) * 256 + low
        merged.putalpha(_alpha((levels == np.array(key, np.uint16)).all(-1)))
    return merged


def _alpha(hidden: np.ndarray) -> Image.Image:
    return Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))
