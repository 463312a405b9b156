"""One picture file to one array: every mode Pillow reads, by stated rules, and nothing silently wrong.

==================  =====================================================================================
in the file         becomes
==================  =====================================================================================
1, L, P, RGB        its colours; palettes are looked up
CMYK, YCbCr, ...    RGB by Pillow
16 bits, I;16 or I  level / 257, rounded, so that 65535 becomes 255; other ranges are refused
F                   255 x, rounded, for x in [0, 1]; other ranges are refused
transparent         composited on the background, before anything is resized
EXIF orientation    applied
animation           its first frame
==================  =====================================================================================
"""

import pathlib
from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from genjax.data.dataset import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MAX_PIXELS = 89_478_485
"""More pixels than this, a quarter of a gigabyte in RGB, are taken for a decompression bomb."""

Colour = tuple[int, int, int]


def read(path: pathlib.Path, size: int, channels: int, background: Colour) -> UInt8[np.ndarray, "h w c"]:
    """The picture in a file, brought to ``size`` × ``size`` by ``fit``.

    Args:
      path: a file of one of FORMATS, whatever its name.
      size: height and width of the result.
      channels: 3, or 1 for luma, 0.299 R + 0.587 G + 0.114 B.
      background: what shows through transparent pixels, RGB in 0 to 255.

    Raises:
      DataError: the file is no such picture, truncated, damaged, or has more than MAX_PIXELS.
    """
    try:
        image = fit(_opaque(_load(path), background), size).convert("L" if channels == 1 else "RGB")
    except DataError:
        raise
    except Exception as error:  # decoders of damaged files raise anything
        raise DataError(f"{error or 'damaged'} ({type(error).__name__})") from error
    return np.asarray(image).reshape(size, size, channels)


def fit(image: Image.Image, size: int) -> Image.Image:
    """The central square, resampled to ``size`` by Pillow's Lanczos filter, which averages where it shrinks.

    Equal to resizing the shorter side to ``size`` and cropping the centre. A square of this size comes back unchanged.
    """
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    box = (left, top, left + side, top + side)
    if side == size:
        return image.crop(box)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def fit_array(image: UInt8[np.ndarray, "h w c"], size: int) -> UInt8[np.ndarray, "{size} {size} c"]:
    """``fit`` for an array of 1, 3 or 4 channels."""
    fitted = fit(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), size)
    return np.asarray(fitted).reshape(size, size, image.shape[-1])


def fit_arrays(images: Iterable[np.ndarray], size: int) -> UInt8[np.ndarray, "n {size} {size} c"]:
    """``fit_array`` for each."""
    return np.stack([fit_array(image, size) for image in images])


def _load(path: pathlib.Path) -> Image.Image:
    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{image.width}×{image.height} pixels, more than {MAX_PIXELS}: a decompression bomb?")
        if image.format == "PNG":
            _verify(path)
        image.load()
        return ImageOps.exif_transpose(image)


def _verify(path: pathlib.Path) -> None:
    """Checks the checksums of a PNG, which decoding alone does not."""
    with Image.open(path, formats=FORMATS) as image:
        image.verify()


def _opaque(image: Image.Image, background: Colour) -> Image.Image:
    if image.mode == "F":
        return _eight_bits(np.asarray(image), 1)
    if image.mode.startswith("I"):
        return _eight_bits(np.asarray(image.convert("I")), 65535)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _eight_bits(levels: np.ndarray, full: int) -> Image.Image:
    if not (levels.min() >= 0 and levels.max() <= full):
        raise DataError(f"levels {levels.min()} to {levels.max()}; expected 0 to {full}")
    return Image.fromarray(np.rint(levels * (255 / full)).astype(np.uint8))
