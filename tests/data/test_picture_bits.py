"""Sixteen bits in every mode, texts beside the pixels, other formats, other things than files."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from genjax import data
from genjax.data import bit_depth, folders, images, pngs

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(levels, colour, *between, depth=16, interlace=0, after=b""):
    """A PNG written by hand, unfiltered, by §11.2 and §7.2 of the specification."""
    height, width = levels.shape[:2]
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels.reshape(height, -1))
    end = chunk(b"IEND", b"")
    return pngs.SIGNATURE + header + b"".join(between) + chunk(b"IDAT", zlib.compress(rows)) + after + end


def rounded(levels):
    """level / 257, rounded: never a tie, as 257 is odd."""
    return np.rint(levels / 257).astype(int)


def levels_of(colour, seed=0):
    found = np.random.default_rng(seed).integers(0, 65536, (9, 9, CHANNELS[colour]))
    found[0, :6, :] = np.array([0, 128, 129, 65406, 65407, 65535])[:, None]  # on both sides of the two ends
    return found


@pytest.mark.parametrize("colour", [0, 2])
def test_opaque_sixteen_bits_are_rounded_in_every_channel(tmp_path, colour):
    levels = levels_of(colour)
    (tmp_path / "x.png").write_bytes(png(levels, colour))
    assert (images.read(tmp_path / "x.png", 9, 3, BLACK) == rounded(levels)).all()


def test_every_level_of_sixteen_bits_is_rounded(tmp_path):
    levels = np.arange(65536).reshape(256, 256, 1)
    (tmp_path / "x.png").write_bytes(png(np.concatenate([levels, levels[::-1], levels[:, ::-1]], -1), 2))
    found = images.read(tmp_path / "x.png", 256, 3, BLACK)
    assert (found == rounded(np.concatenate([levels, levels[::-1], levels[:, ::-1]], -1))).all()


@pytest.mark.parametrize("colour", [4, 6])
def test_alpha_of_sixteen_bits_is_composited(tmp_path, colour):
    levels = levels_of(colour)
    levels[2:5, :, -1], levels[5:, :, -1] = 0, 65535
    (tmp_path / "x.png").write_bytes(png(levels, colour))
    colours, alpha = levels[..., :-1] / 257, levels[..., -1:] / 65535
    exact = colours * alpha + np.array((10, 200, 90)) * (1 - alpha)
    found = images.read(tmp_path / "x.png", 9, 3, (10, 200, 90))
    assert np.abs(found - exact).max() <= 1.5  # colours, alpha and their product are rounded, by 1/2 each
    assert (found[2:5] == (10, 200, 90)).all() and (found[5:] == rounded(levels[5:, :, :-1])).all()


@pytest.mark.parametrize("colour", [0, 2])
def test_one_level_of_sixteen_bits_is_transparent(tmp_path, colour):
    levels = levels_of(colour)
    levels[3, 3], levels[3, 4] = 1000, 1001  # the neighbour has the same high byte
    (tmp_path / "x.png").write_bytes(png(levels, colour, chunk(b"tRNS", struct.pack(">H", 1000) * CHANNELS[colour])))
    expected = np.broadcast_to(rounded(levels), (9, 9, 3)).copy()
    expected[3, 3] = (1, 2, 3)
    assert (images.read(tmp_path / "x.png", 9, 3, (1, 2, 3)) == expected).all()


@pytest.mark.parametrize("depth", [2, 4])
def test_one_level_of_few_bits_is_transparent(tmp_path, depth):
    top = 2**depth - 1
    row = np.array([0, top, 1, top] * 2)
    packed = bytes(
        sum(int(v) << (8 - depth * (i + 1)) for i, v in enumerate(row[j : j + 8 // depth]))
        for j in range(0, 8, 8 // depth)
    )
    header = chunk(b"IHDR", struct.pack(">2I5B", 8, 8, depth, 0, 0, 0, 0))
    body = chunk(b"tRNS", struct.pack(">H", top)) + chunk(b"IDAT", zlib.compress((b"\0" + packed) * 8))
    (tmp_path / "x.png").write_bytes(pngs.SIGNATURE + header + body + chunk(b"IEND", b""))
    expected = np.where(row[None, :, None] == top, (1, 2, 3), (row * 255 // top)[None, :, None])
    assert (images.read(tmp_path / "x.png", 8, 3, (1, 2, 3)) == expected).all()


def tiff(levels, order, photometric, packing=1):
    """One strip, as it is (1) or deflated (8); TIFF 6.0 §2: header, strip, depths of the channels, directory."""
    height, width, channels = levels.shape
    pixels = levels.astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if packing == 8 else pixels
    pixels += bytes(len(pixels) % 2)
    bits = 8 + len(pixels)
    where = (bits, 3) if channels > 1 else (16 << (16 if order == ">" else 0), 3)
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, None), (259, 3, 1, packing)]
    entries += [(262, 3, 1, photometric), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height)]
    entries += [(279, 4, 1, len(pixels))]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        body = (
            struct.pack(f"{order}I", where[0])
            if value is None
            else (struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value))
        )
        directory += struct.pack(f"{order}HHI", tag, kind, count) + body
    start = bits + 2 * channels
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return head + pixels + struct.pack(f"{order}{channels}H", *[16] * channels) + directory + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [1, 2])
@pytest.mark.parametrize("packing", [1, 8])
def test_tiffs_of_sixteen_bits_are_rounded(tmp_path, order, photometric, packing):
    levels = levels_of(0 if photometric == 1 else 2)
    (tmp_path / "x.tif").write_bytes(tiff(levels, order, photometric, packing))
    assert (images.read(tmp_path / "x.tif", 9, 3, BLACK) == rounded(levels)).all()


@pytest.mark.parametrize("packing", [1, 8])
def test_white_is_zero_is_turned_around(tmp_path, packing):
    levels = levels_of(0)
    (tmp_path / "x.tif").write_bytes(tiff(levels, "<", 0, packing))
    assert (images.read(tmp_path / "x.tif", 9, 1, BLACK) == rounded(65535 - levels)).all()


def test_big_maps_of_sixteen_bits_are_rounded(tmp_path):
    levels = levels_of(2)
    (tmp_path / "x.ppm").write_bytes(b"P6 9 9 65535\n" + levels.astype(">u2").tobytes())
    assert (images.read(tmp_path / "x.ppm", 9, 3, BLACK) == rounded(levels)).all()


@pytest.mark.parametrize("colour", [0, 2, 6])
def test_twelve_bits_in_sixteen_are_warned_of(tmp_path, colour):
    levels = levels_of(colour) % 4096
    if colour == 6:
        levels[..., 3] = 65535
    (tmp_path / "x.png").write_bytes(png(levels, colour))
    with pytest.warns(UserWarning, match="12 bits"):
        images.read(tmp_path / "x.png", 9, 3, BLACK)
    with pytest.warns(UserWarning, match=r"1 pictures, 'x.png' one: .*12 bits"):
        data.folder(tmp_path, 9)
    levels[0, 0, 0] = bit_depth.DARK
    for quiet in (levels, np.zeros_like(levels)):  # neither is a picture with a level in reach, nor one that is black
        (tmp_path / "x.png").write_bytes(png(quiet, colour))
        images.read(tmp_path / "x.png", 9, 3, BLACK)


PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("international", [False, True])
def test_text_beside_the_pixels_is_passed_over(tmp_path, compressed, international):
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    told, text = PngImagePlugin.PngInfo(), "a cat, " * 450_000  # 3 MB
    if international:
        told.add_itxt("workflow", text, zip=compressed)
    else:
        told.add_text("parameters", text, zip=compressed)
    Image.fromarray(PIXELS).save(tmp_path / "x.png", pnginfo=told)
    assert (images.read(tmp_path / "x.png", 16, 3, BLACK) == PIXELS).all()
    assert (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY) == limits


def test_profiles_and_text_behind_the_pixels_are_passed_over(tmp_path):
    profile = chunk(b"iCCP", b"big\0\0" + zlib.compress(bytes(3 << 20)))
    levels = levels_of(2)
    (tmp_path / "x.png").write_bytes(png(levels, 2, profile, after=chunk(b"tEXt", b"a\0" + bytes(90 << 20))))
    assert (images.read(tmp_path / "x.png", 9, 3, BLACK) == rounded(levels)).all()


def test_orientation_in_a_text_is_heeded(tmp_path):
    told = PngImagePlugin.PngInfo()
    told.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="3"/>')
    Image.fromarray(PIXELS).save(tmp_path / "x.png", pnginfo=told)
    assert (images.read(tmp_path / "x.png", 16, 3, BLACK) == PIXELS[::-1, ::-1]).all()


def test_a_wrong_checksum_of_a_text_is_damage(tmp_path):
    content = bytearray(png(levels_of(2), 2, chunk(b"tEXt", b"a\0bc")))
    content[content.index(b"bc")] ^= 1
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(data.DataError, match="checksum"):
        images.read(tmp_path / "x.png", 9, 3, BLACK)


LOSSLESS = {
    ".png": {},
    ".apng": {"format": "PNG"},
    ".dib": {},
    ".tga": {"compression": "tga_rle"},
    ".icb": {"format": "TGA"},
}
LOSSLESS |= {".pcx": {}, ".jp2": {}, ".qoi": {}, ".dds": {}, ".ico": {"sizes": [(16, 16)]}, ".pnm": {}}
LOSSY = {".jpe": {"format": "JPEG"}, ".jfif": {"format": "JPEG"}, ".mpo": {"format": "JPEG"}, ".avif": {"quality": 95}}


@pytest.mark.parametrize("suffix", [*LOSSLESS, *LOSSY])
def test_every_format_that_pillow_reads_safely_is_read(tmp_path, suffix):
    smooth = np.repeat(np.add.outer(np.arange(16), np.arange(16))[..., None] * 8, 3, -1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / f"x{suffix.upper()}", **(LOSSLESS | LOSSY)[suffix])
    found = data.folder(tmp_path, 16).train["image"][0].astype(int)
    assert np.abs(found - smooth).max() <= (0 if suffix in LOSSLESS else 12)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_jpeg_2000_is_read_unless_it_has_deep_colours(tmp_path, mode):
    source = Image.fromarray(levels_of(0)[..., 0].astype(np.uint16)) if mode == "I;16" else Image.new(mode, (9, 9))
    source.save(tmp_path / "x.jp2", irreversible=False)
    found = images.read(tmp_path / "x.jp2", 9, 1, BLACK)
    assert (found == (rounded(levels_of(0)) if mode == "I;16" else 0)).all()
    content = bytearray((tmp_path / "x.jp2").read_bytes())
    start = content.index(b"\xff\x4f\xff\x51") + 42
    assert content[start] == (15 if mode == "I;16" else 7)
    content[start] = 11
    (tmp_path / "x.jp2").write_bytes(content)
    if mode in ("LA", "RGB", "RGBA"):
        with pytest.raises(data.DataError, match="12 bits in JPEG 2000"):
            images.read(tmp_path / "x.jp2", 9, 1, BLACK)


@pytest.mark.parametrize("fmt", images.BY_NAME)
def test_formats_without_a_mark_are_read_by_their_names_only(tmp_path, fmt):
    Image.fromarray(PIXELS).save(tmp_path / f"x.{fmt.lower()}")
    assert (images.read(tmp_path / f"x.{fmt.lower()}", 16, 3, BLACK) == PIXELS).all()
    (tmp_path / f"x.{fmt.lower()}").rename(tmp_path / "x.png")
    with pytest.raises(data.DataError, match="cannot identify"):
        images.read(tmp_path / "x.png", 16, 3, BLACK)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    (tmp_path / "null.png").symlink_to("/dev/zero")
    for name, kind in (("x.png", "a pipe"), ("null.png", "a device"), (".", "a folder")):
        with pytest.raises(data.DataError, match=kind):
            images.read(tmp_path / name, 8, 3, BLACK)
    with pytest.raises(data.DataError, match="no images.*'pipes and devices' 2"):
        data.folder(tmp_path, 8)
    Image.fromarray(PIXELS).save(tmp_path / "y.png")
    assert data.folder(tmp_path, 8).left_out == {"pipes and devices": 2}


def test_pixels_in_flight_are_bounded(tmp_path, monkeypatch):
    for i in range(24):
        Image.new("L", (10, 10 + i), i).save(tmp_path / f"{i:02}.png")
    held, most = [0], [0]
    plain = folders._Allowance.take

    def watched(self, pixels):
        inner = plain(self, pixels)

        class Watch:
            def __enter__(self):
                inner.__enter__()
                held[0] += pixels
                most[0] = max(most[0], held[0])

            def __exit__(self, *error):
                held[0] -= pixels
                inner.__exit__(*error)

        return Watch()

    monkeypatch.setattr(folders._Allowance, "take", watched)
    monkeypatch.setattr(folders, "MAX_IN_FLIGHT", 100)  # less than any of them: one at a time
    found = data.folder(tmp_path, 4)
    assert len(found.train["image"]) + len(found.heldout["image"]) == 24
    assert most[0] <= 330 and held[0] == 0


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_big_pictures_are_read_in_bands_without_a_seam(tmp_path, monkeypatch, colour):
    levels = levels_of(colour)
    key = chunk(b"tRNS", struct.pack(">H", 65535) * CHANNELS[colour]) if colour < 3 else b""
    (tmp_path / "x.png").write_bytes(png(levels, colour, key))
    whole = images.read(tmp_path / "x.png", 9, 3, (1, 2, 3))
    for band in (1, 20, 81):
        monkeypatch.setattr(bit_depth, "BAND", band)
        assert (images.read(tmp_path / "x.png", 9, 3, (1, 2, 3)) == whole).all()


HELD = """
import resource, sys
from genjax import data
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data.folder(sys.argv[1], 8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_big_pictures(tmp_path):
    for i in range(4):
        Image.new("RGB", (9459, 9459), (i, 0, 0)).save(tmp_path / f"{i}.png")
    run = subprocess.run([sys.executable, "-c", HELD, tmp_path], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1_200_000  # kilobytes; 89 million pixels of 4 bytes are 358,000
