"""One picture file: every mode to known values, every damage to an error."""

import io
import struct
import types
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from genjax import data
from genjax.data import images

WHITE = (255, 255, 255)


def save(path, image, **options):
    image.save(path, **options)
    return path


def read(path, size, channels=3, background=WHITE):
    return images.read(path, size, channels, background)


def info(path):
    with Image.open(path) as image:
        return types.SimpleNamespace(mode=image.mode, n_frames=getattr(image, "n_frames", 1))


def grey(levels):
    """A square of RGB with these levels in every channel."""
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, -1)


L = np.array([[0, 50], [100, 255]], np.uint8)
RGB = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_levels_stay(tmp_path, channels):
    path = save(tmp_path / "x.png", Image.fromarray(L))
    assert (read(path, 2, channels) == grey(L)[..., :channels]).all()


def test_bits_become_black_and_white(tmp_path):
    path = save(tmp_path / "x.png", Image.fromarray(L > 75))
    assert info(path).mode == "1"
    assert (read(path, 2) == grey([[0, 0], [255, 255]])).all()


def test_colours_stay_and_their_luma_is_that_of_rec_601(tmp_path):
    path = save(tmp_path / "x.png", Image.fromarray(RGB))
    assert (read(path, 2) == RGB).all()
    assert (read(path, 2, 1)[..., 0] == np.round(RGB @ [0.299, 0.587, 0.114])).all()


def test_palette_indices_are_looked_up(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "L").convert("P")
    image.putpalette(RGB.reshape(-1).tolist())
    path = save(tmp_path / "x.png", image)
    assert info(path).mode == "P"
    assert (read(path, 2) == RGB).all()


@pytest.mark.parametrize("kind", ["index", "bytes"])
def test_transparent_palette_entries_show_the_background(tmp_path, kind):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8), "L").convert("P")
    image.putpalette(RGB.reshape(-1).tolist())
    path = save(tmp_path / "x.png", image, transparency=1 if kind == "index" else bytes([255, 0, 255, 255]))
    expected = RGB.copy()
    expected[0, 1] = (1, 2, 3)
    assert (read(path, 2, background=(1, 2, 3)) == expected).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colours_show_the_background(tmp_path, mode):
    source = Image.fromarray(L if mode == "L" else RGB)
    path = save(tmp_path / "x.png", source, transparency=100 if mode == "L" else (0, 0, 255))
    expected = np.array(source.convert("RGB"))
    expected[1, 0] = (1, 2, 3)
    assert (read(path, 2, background=(1, 2, 3)) == expected).all()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 90)])
def test_alpha_is_composited_on_the_background(tmp_path, mode, background):
    source = Image.fromarray(L if mode == "L" else RGB).convert(mode)
    alpha = np.array([[0, 255], [128, 51]], np.uint8)
    source.putalpha(Image.fromarray(alpha))
    path = save(tmp_path / "x.png", source)
    hidden = np.asarray(source.convert("RGB"), float)
    exact = hidden * (alpha / 255)[..., None] + np.array(background) * (1 - alpha / 255)[..., None]
    assert np.abs(read(path, 2, background=background) - exact).max() <= 0.51
    assert (read(path, 2, background=background)[0, 0] == background).all()


def test_hidden_colours_do_not_bleed_when_shrunk(tmp_path):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[..., 0] = 255
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    assert (read(path, 8, background=(0, 0, 7)) == (0, 0, 7)).all()


RAMP = np.array([[0, 257, 128], [129, 32896, 65535], [65406, 65407, 1]], np.uint16)
RAMP_8 = [[0, 1, 0], [1, 128, 255], [254, 255, 0]]


@pytest.mark.parametrize("suffix, mode", [("png", "I;16"), ("tif", "I;16"), ("pgm", "I")])
def test_sixteen_bits_are_divided_by_257(tmp_path, suffix, mode):
    path = save(tmp_path / f"x.{suffix}", Image.fromarray(RAMP))
    assert info(path).mode == mode
    assert (read(path, 3) == grey(RAMP_8)).all()
    assert (read(path, 3, 1)[..., 0] == RAMP_8).all()


def test_big_endian_sixteen_bits_are_divided_by_257(tmp_path):
    image = Image.frombytes("I;16B", (3, 3), RAMP.astype(">u2").tobytes())
    assert (read(save(tmp_path / "x.tif", image), 3) == grey(RAMP_8)).all()


def test_integers_of_sixteen_bits_are_read_and_others_refused(tmp_path):
    path = save(tmp_path / "x.tif", Image.fromarray(RAMP.astype(np.int32)))
    assert info(path).mode == "I"
    assert (read(path, 3) == grey(RAMP_8)).all()
    for bad in (65536, -1):
        with pytest.raises(data.DataError, match=str(bad)):
            read(save(tmp_path / "x.tif", Image.fromarray(np.array([[bad, 5]], np.int32))), 1)


def test_floats_in_the_unit_interval_are_read_and_others_refused(tmp_path):
    levels = np.array([[0, 1], [0.5, 0.2]], np.float32)
    path = save(tmp_path / "x.tif", Image.fromarray(levels))
    assert info(path).mode == "F"
    assert (read(path, 2) == grey([[0, 255], [128, 51]])).all()
    for bad in (1.01, -0.01, np.nan, np.inf):
        with pytest.raises(data.DataError, match="expected 0 to 1"):
            read(save(tmp_path / "x.tif", Image.fromarray(np.array([[bad, 0.5]], np.float32))), 1)


@pytest.mark.parametrize("mode, options", [("CMYK", {}), ("CMYK", {"format": "JPEG"}), ("YCbCr", {"format": "JPEG"})])
def test_print_and_video_colours_become_rgb(tmp_path, mode, options):
    for colour in ((255, 0, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)):
        image = Image.new("RGB", (16, 16), colour).convert(mode)
        path = save(tmp_path / "x.tif", image, **options)
        assert np.abs(read(path, 16).astype(int) - colour).max() <= 2


STORED = {  # EXIF 2.3 §4.6.4: what row 0 and column 0 of the file are in the scene
    1: lambda scene: scene,  # top, left
    2: lambda scene: scene[:, ::-1],  # top, right
    3: lambda scene: scene[::-1, ::-1],  # bottom, right
    4: lambda scene: scene[::-1],  # bottom, left
    5: lambda scene: scene.T,  # left, top
    6: lambda scene: scene[:, ::-1].T,  # right, top
    7: lambda scene: scene[::-1, ::-1].T,  # right, bottom
    8: lambda scene: scene[::-1].T,  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.arange(256, dtype=np.uint8).reshape(16, 16)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", stored, exif=exif)
    assert (read(path, 16, 1)[..., 0] == upright).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_first_frame_of_an_animation_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    path = save(tmp_path / f"x.{suffix}", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    assert info(path).n_frames == 3
    assert (read(path, 4) == (255, 0, 0)).all()


@pytest.mark.parametrize("width, height", [(7, 5), (5, 8), (5, 5), (100, 5)])
def test_centre_is_cropped_exactly_when_nothing_is_resized(tmp_path, width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    top, left = (height - 5) // 2, (width - 5) // 2
    assert (read(path, 5) == pixels[top : top + 5, left : left + 5]).all()


def test_resizing_then_cropping_is_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    shorter = np.asarray(Image.fromarray(pixels).resize((32, 16), Image.Resampling.LANCZOS))
    assert (read(path, 16) == shorter[:, 8:24]).all()


def test_fine_patterns_average_out(tmp_path):
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    inner = read(save(tmp_path / "x.png", Image.fromarray(board)), 16, 1)[2:-2, 2:-2].astype(int)
    assert np.abs(inner - 127.5).max() < 2


def test_thin_pictures_do_not_grow_beyond_the_size_asked(tmp_path):
    path = save(tmp_path / "x.png", Image.new("L", (1, 60_000), 77))
    assert (read(path, 64) == 77).all()


def encoded(fmt):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, fmt)
    return buffer.getvalue()


@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.98])
@pytest.mark.parametrize("fmt", images.FORMATS)
def test_truncated_files_are_refused(tmp_path, fmt, part):
    content = encoded(fmt)
    (tmp_path / "x").write_bytes(content)
    assert read(tmp_path / "x", 8).shape == (8, 8, 3)
    (tmp_path / "x").write_bytes(content[: int(part * len(content))])
    with pytest.raises(data.DataError):
        read(tmp_path / "x", 8)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_flipped_bits_of_a_png_are_noticed_or_harmless(tmp_path):
    pixels = np.add.outer(np.arange(8, dtype=np.uint8), np.arange(8, dtype=np.uint8))
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    content, refused = path.read_bytes(), 0
    for i in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[i // 8] ^= 1 << i % 8
        path.write_bytes(damaged)
        try:
            assert (read(path, 8, 1)[..., 0] == pixels).all()
        except data.DataError:
            refused += 1
    assert refused > 0.8 * 8 * len(content)


def test_other_content_is_refused(tmp_path):
    (tmp_path / "x.png").write_text("this is no picture")
    (tmp_path / "x.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for name in ("x.png", "x.eps"):
        with pytest.raises(data.DataError, match="cannot identify"):
            read(tmp_path / name, 8)


def png_header(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 15_000, 60_000])
def test_decompression_bombs_are_refused_and_no_global_is_touched(tmp_path, side):
    (tmp_path / "x.png").write_bytes(png_header(side, side))
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with pytest.raises(data.DataError, match="bomb"):
        read(tmp_path / "x.png", 8)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
    with warnings.catch_warnings(), pytest.raises(data.DataError, match="bomb"):
        warnings.simplefilter("ignore")
        read(tmp_path / "x.png", 8)
