"""PNG files reduced to the chunks of their pixels (W3C, Portable Network Graphics, 3rd ed., §5 and §11).

Image generators write megabytes of text beside the pixels, which Pillow refuses beyond its global limits.
"""

import io
import struct
import zlib
from typing import NamedTuple

from genjax.data.dataset import DataError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEPT = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf")
ORIENTED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""Keywords of texts that may give the orientation."""
MOST_TEXT = 1 << 17
CHUNK = 1 << 20


class Stripped(NamedTuple):
    """PNG without its other chunks.

    Attributes:
      content: PNG file of the same pixels.
      depth: bits per channel.
      colour: colour type: 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGBA.
    """

    content: bytes
    depth: int
    colour: int


def strip(file: io.BufferedReader, most_pixels: int) -> Stripped:
    """Keep the chunks of the pixels, and short texts that may give the orientation; verify all checksums.

    Raises:
      DataError: the file ends early, a checksum is wrong, or the header says more than ``most_pixels``.
    """
    out, depth, colour = bytearray(_exactly(file, len(SIGNATURE))), 0, 0
    name = b""
    while name != b"IEND":
        head = _exactly(file, 8)
        length, name = struct.unpack(">I4s", head)
        body = _body(file, name, length)
        if (check := _exactly(file, 4)) != struct.pack(">I", body.checksum):
            raise DataError(f"the checksum of the chunk {name!r} is wrong")
        if name == b"IHDR" and length == 13:
            width, height, depth, colour = struct.unpack(">2I2B", body.kept[:10])
            if width * height > most_pixels:
                raise DataError(f"{width}×{height} pixels, more than {most_pixels}: a decompression bomb?")
        if body.kept or name in KEPT:
            out += head + body.kept + check
    return Stripped(bytes(out), depth, colour)


def as_rgba(png: Stripped) -> bytes:
    """Relabel grey with alpha of 16 bits as RGBA of 8 bits: R and G are the bytes of grey, B and A those of alpha.

    Both have four bytes per pixel, and the filters of a PNG depend on that number only.
    """
    start = png.content.index(b"IHDR")
    body = bytearray(png.content[start : start + 17])
    body[12:14] = bytes([8, 6])
    return png.content[:start] + body + struct.pack(">I", zlib.crc32(body)) + png.content[start + 21 :]


class _Body(NamedTuple):
    kept: bytes
    checksum: int


def _body(file: io.BufferedReader, name: bytes, length: int) -> _Body:
    """Read a chunk; skip the content of other chunks in small parts."""
    kept, checksum = bytearray(), zlib.crc32(name)
    left, needed = length, name in KEPT or (name in (b"tEXt", b"zTXt", b"iTXt") and length <= MOST_TEXT)
    while left:
        part = _exactly(file, min(left, CHUNK))
        checksum = zlib.crc32(part, checksum)
        if left == length and name not in KEPT and not part.startswith(ORIENTED):
            needed = False
        if needed:
            kept += part
        left -= len(part)
    return _Body(bytes(kept), checksum)


def _exactly(file: io.BufferedReader, length: int) -> bytes:
    if len(part := file.read(length)) < length:
        raise DataError("the file ends within the picture")
    return part
