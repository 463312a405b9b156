"""Every reader is total: whatever is changed in its files, there comes a value or a DataError."""

import gzip
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from genjax import data
from genjax.data import images

pytestmark = pytest.mark.slow
TRIES = 300


def changed(rng, content):
    """Bits flipped, bytes replaced, parts cut out, doubled or exchanged, ends cut off."""
    out = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start, end = sorted(rng.integers(0, len(out) + 1, 2).tolist())
        kind = rng.integers(0, 6)
        if kind == 0 and out:
            out[rng.integers(0, len(out))] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and out:
            place = int(rng.integers(0, len(out)))
            out[place : place + 4] = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"((((", b"9999"]
            )
        elif kind == 2:
            del out[start : start + 40]
        elif kind == 3:
            out[start:start] = out[start : start + 40]
        elif kind == 4:
            out[start : start + 8], out[end : end + 8] = out[end : end + 8], out[start : start + 8]
        elif rng.random() < 0.3:
            del out[end:]
    return bytes(out)


def is_total(read, paths, seed=0):
    rng = np.random.default_rng(seed)
    whole = {path: path.read_bytes() for path in paths}
    refused = 0
    for _ in range(TRIES):
        path = paths[rng.integers(0, len(paths))]
        path.write_bytes(changed(rng, whole[path]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read()
            except data.DataError as error:
                refused += 1
                assert str(error).replace("\n", "").isprintable()
        path.write_bytes(whole[path])
    read()
    assert refused > TRIES / 20


PIXELS = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
MODES = {
    "L": ".png",
    "LA": ".png",
    "P": ".png",
    "I;16": ".png",
    "RGBA": ".tif",
    "CMYK": ".tif",
    "1": ".bmp",
    "F": ".tif",
}


@pytest.mark.parametrize(
    "suffix",
    [".png", ".jpg", ".webp", ".gif", ".bmp", ".tif", ".ppm", ".avif", ".jp2", ".dds", ".ico", ".qoi"]
    + [".tga", ".pcx"],
)
def test_pictures(tmp_path, suffix):
    Image.fromarray(PIXELS).save(tmp_path / f"x{suffix}")
    is_total(lambda: images.read(tmp_path / f"x{suffix}", 8, 3, (0, 0, 0)), [tmp_path / f"x{suffix}"])


@pytest.mark.parametrize("mode", MODES)
def test_modes(tmp_path, mode):
    source = (
        Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256)
        if mode == "I;16"
        else Image.fromarray(PIXELS).convert(mode)
    )
    if mode == "F":
        source = Image.fromarray(PIXELS[..., 0].astype(np.float32) / 255)
    path = tmp_path / f"x{MODES[mode]}"
    source.save(path)
    is_total(lambda: images.read(path, 8, 3, (0, 0, 0)), [path])


@pytest.mark.parametrize("pack", [np.savez, np.savez_compressed])
def test_npz(tmp_path, pack):
    pack(tmp_path / "x.npz", images=PIXELS, labels=np.arange(24))
    is_total(lambda: data.npz(tmp_path / "x.npz"), [tmp_path / "x.npz"])


@pytest.mark.parametrize("pack, suffix", [(bytes, ""), (gzip.compress, ".gz")])
def test_idx(tmp_path, put_mnist, pack, suffix):
    put_mnist(tmp_path, pack=pack, suffix=suffix)
    is_total(lambda: data.tfds("mnist", tmp_path), sorted(tmp_path.iterdir()))


def test_prepared_sets(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    import test_prepared

    test_prepared.GenjaxPlain(data_dir=tmp_path / "whole", file_format="array_record").download_and_prepare()
    shutil.copytree(tmp_path / "whole", tmp_path / "x")
    paths = sorted(path for path in (tmp_path / "x").rglob("*") if path.is_file())
    is_total(lambda: data.tfds("genjax_plain", tmp_path / "x"), paths)
