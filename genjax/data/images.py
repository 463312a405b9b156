"""Reader of picture files as arrays: the rules for every mode that Pillow reads.

==================  =====================================================================================
in the file         result
==================  =====================================================================================
1, L, P, RGB        its colours; palettes are looked up
CMYK, YCbCr, ...    RGB by Pillow
16 bits, I          level / 257, rounded, so that 65535 becomes 255; other ranges are refused
F                   255 x, rounded, for x in [0, 1]; other ranges are refused
transparent         composited on the background, before anything is resized
EXIF orientation    applied
animation           its first frame
==================  =====================================================================================
"""

import contextlib
import io
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError, features

from genjax.data import bit_depth, files, pngs
from genjax.data.dataset import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "DIB", "DDS", "ICO", "QOI")
"""Formats that are recognised by their first bytes, run no program, and detect truncation."""
BY_NAME = ("TGA", "PCX")
"""Formats without a signature: read only from files with their suffixes."""
MAX_PIXELS = 89_478_485
"""Maximum number of pixels, a quarter of a gigabyte in RGB; more are taken for a decompression bomb."""
_CODECS = {"AVIF": "avif", "WEBP": "webp", "JPEG": "jpg", "JPEG2000": "jpg_2000"}
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Colour = tuple[int, int, int]
Allowance = Callable[[int], contextlib.AbstractContextManager[Any]]
"""``allowance(pixels)``: a context that is entered as soon as this number of pixels may be held in memory."""


class Picture(NamedTuple):
    """A picture as an array.

    Attributes:
      pixels: uint8[size size channels].
      dark: True if the file has 16 bits per channel and uses less than an eighth of their range.
    """

    pixels: np.ndarray
    dark: bool


def _formats() -> dict[str, str]:
    readable = [name for name in FORMATS + BY_NAME if name not in _CODECS or features.check(_CODECS[name])]
    return {suffix: name for suffix, name in Image.registered_extensions().items() if name in (*readable, "MPO")}


_FORMAT = _formats()
SUFFIXES = tuple(_FORMAT)
"""Suffixes of the pictures that this Pillow can read, in lower case."""


def read(path: pathlib.Path, size: int, channels: int, background: Colour) -> UInt8[np.ndarray, "h w c"]:
    """Read the picture in a file, resampled to ``size`` × ``size`` by ``fit``.

    Args:
      path: path of a file in one of FORMATS, whatever its name, or in one of BY_NAME with the suffix of the format.
      size: height and width of the result.
      channels: 3, or 1 for luma, 0.299 R + 0.587 G + 0.114 B.
      background: colour behind transparent pixels, RGB in 0 to 255.

    Raises:
      DataError: the file is not regular, not a picture, truncated or damaged, or has more than MAX_PIXELS.
    """
    result = picture(path, size, channels, background)
    if result.dark:
        warnings.warn(f"{str(path)!r}: {DARK_REMARK}", stacklevel=2)
    return result.pixels


DARK_REMARK = (
    "16 bits per channel, and no level reaches an eighth of their range: nearly black as it is read; "
    "where 12 bits are meant, multiply by 16 first"
)


def picture(
    path: pathlib.Path, size: int, channels: int, background: Colour, allowance: Allowance = contextlib.nullcontext
) -> Picture:
    """Read a picture as ``read`` does, and report darkness; ``allowance`` limits the pixels in memory."""
    try:
        with _opened(path) as image, allowance(image.width * image.height):
            whole, dark = bit_depth.to_eight_bits(image, lambda: _opened(path, swapped=True))
            whole = _opaque(whole, background)
            if (side := image.getexif().get(0x0112)) in _TURNED:
                whole = whole.transpose(_TURNED[side])
            fitted = _converted(fit(whole, size), channels)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("cannot identify the format of the picture") from error
    except Exception as error:  # decoders of damaged files raise anything
        raise DataError(f"{error or 'damaged'} ({type(error).__name__})") from error
    return Picture(np.asarray(fitted).reshape(size, size, channels), dark)


def fit(image: Image.Image, size: int) -> Image.Image:
    """Resample the central square to ``size`` by Pillow's Lanczos filter, which averages when it shrinks.

    Equal to resizing the shorter side to ``size`` and cropping the centre. A square of this size comes back unchanged.
    """
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def fit_array(
    image: UInt8[np.ndarray, "h w c"], size: int | None, channels: int | None = None
) -> UInt8[np.ndarray, "h2 w2 c2"]:
    """Apply ``fit`` to an array of 1, 3 or 4 channels, then convert its channels; None keeps size or channels."""
    whole = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    fitted = fit(whole, size) if size else whole
    if channels:
        fitted = _converted(fitted, channels)
    return np.asarray(fitted).reshape(fitted.height, fitted.width, channels or image.shape[-1])


def fit_arrays(
    images: Iterable[np.ndarray], size: int | None, channels: int | None = None
) -> UInt8[np.ndarray, "n h2 w2 c2"]:
    """Apply ``fit_array`` to each image."""
    return np.stack([fit_array(image, size, channels) for image in images])


def demand_pixels(image: Image.Image) -> None:
    """Refuse an opened picture of more than MAX_PIXELS, before it is decoded.

    Raises:
      DataError: the message says how many pixels it has.
    """
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS}: a decompression bomb?")


@contextlib.contextmanager
def _opened(path: pathlib.Path, swapped: bool = False) -> Iterator[Image.Image]:
    """Open a picture without decoding it; ``swapped`` exchanges the bytes of 16-bit levels for ``bit_depth``."""
    with files.open_regular(path) as file:
        stream: Any = file
        formats, grey_alpha, depth = (*FORMATS, *_named(path)), False, 8
        if file.read(len(pngs.SIGNATURE)) == pngs.SIGNATURE:
            file.seek(0)
            png = pngs.strip(file, MAX_PIXELS)
            grey_alpha, depth = swapped and (png.depth, png.colour) == (16, 4), png.depth
            stream, formats = io.BytesIO(pngs.as_rgba(png) if grey_alpha else png.content), ("PNG",)
        stream.seek(0)
        with Image.open(stream, formats=formats) as image:
            demand_pixels(image)
            if image.format == "JPEG2000":
                bit_depth.demand_shallow(image, file)
            if image.mode == "L" and depth < 8 and isinstance(image.info.get("transparency"), int):
                image.info["transparency"] *= 255 // (2**depth - 1)  # scaled like the levels
            if swapped and not grey_alpha:
                bit_depth.swap_bytes(image)
            yield image


def _named(path: pathlib.Path) -> tuple[str, ...]:
    name = _FORMAT.get(path.suffix.lower())
    return (name,) if name in BY_NAME else ()


def _converted(image: Image.Image, channels: int) -> Image.Image:
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _opaque(image: Image.Image, background: Colour) -> Image.Image:
    def composite(part: Image.Image) -> Image.Image:
        canvas = Image.new("RGBA", part.size, (*background, 255))
        return Image.alpha_composite(canvas, part.convert("RGBA")).convert("RGB")

    if image.has_transparency_data:
        return bit_depth.map_bands((image,), "RGB", composite)
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
