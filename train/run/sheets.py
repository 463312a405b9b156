"""Sheets of images as PNG files."""

import contextlib
import io
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from PIL import Image

from genjax import data
from train.checkpoint import manifest
from train.run import files, process


class PictureError(Exception):
    """A picture cannot be drawn or written; the message names its file."""


def to_uint8(images: jax.Array | np.ndarray, drawn: str) -> np.ndarray:
    """Convert images in [-1, 1] to bytes of the same shape in host memory: ``data.to_uint8`` of finite numbers.

    Args:
      images: images in [-1, 1].
      drawn: name of what drew them, for the message.

    Raises:
      NonFinite: some are NaN or infinite, which as bytes would be black or white.
    """
    check_finite(images, drawn)
    return np.asarray(_to_uint8(images))


def check_finite(images: jax.Array | np.ndarray, drawn: str) -> None:
    """Refuse images, or points, that are not finite.

    Args:
      images: numbers that were drawn.
      drawn: name of what drew them, for the message.

    Raises:
      NonFinite: some are not; the message says how many.
    """
    finite = np.isfinite(np.asarray(images, np.float32))
    if not finite.all():
        raise process.NonFinite(
            f"{drawn}: {1 - finite.mean():.1%} of the numbers drawn are NaN or infinite, which no picture shows; "
            "a longer training, less guidance, another sampler or more of its steps may help"
        )


_to_uint8 = jax.jit(data.to_uint8)


def tile(images: np.ndarray, columns: int, *, gap: int = 1, paper: int = 255) -> np.ndarray:
    """Arrange images uint8[b h w c] side by side, row by row, on paper: uint8[H W c]."""
    b, h, w, c = images.shape
    rows = -(-b // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), paper, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (h + gap) + gap, (i % columns) * (w + gap) + gap
        sheet[y : y + h, x : x + w] = image
    return sheet


def strip(frames: np.ndarray, *, rows: int = 4) -> np.ndarray:
    """Arrange stages of a process, uint8[stages b h w c], with one image a row and one stage a column."""
    stages, b, *shape = frames.shape
    rows = min(rows, b)
    return tile(frames[:, :rows].swapaxes(0, 1).reshape(rows * stages, *shape), stages)


def save(path: pathlib.Path, sheet: np.ndarray, *, width: int = 640) -> None:
    """Write uint8[H W c] as a PNG, enlarged by a whole factor to about ``width`` pixels; never half-written."""
    factor = max(1, round(width / sheet.shape[1]))  # 1 for width 0
    sheet = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
    with naming(path):
        packed = io.BytesIO()
        Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(packed, "PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, packed.getvalue())


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Turn whatever fails in the body into a ``PictureError`` that names this file."""
    try:
        yield
    except (PictureError, process.NonFinite):
        raise
    except Exception as error:
        raise PictureError(f"{path} is not drawn: {manifest.brief(error)}") from error


def save_report(folder: pathlib.Path, step: int, sheet: np.ndarray, *, width: int = 640) -> None:
    """Write a sheet as STEP.png and as latest.png."""
    save(folder / f"{step:07d}.png", sheet, width=width)
    save(folder / "latest.png", sheet, width=width)


def save_samples(folder: pathlib.Path, step: int, images: jax.Array | np.ndarray, drawn: str = "the model") -> None:
    """Write drawn images in [-1, 1], [b h w c], in a square as STEP.png and as latest.png.

    Raises:
      NonFinite: as ``to_uint8``.
    """
    sheet = tile(to_uint8(images, f"{drawn} at step {step}"), columns=round(len(images) ** 0.5))
    save_report(folder, step, sheet)


def save_chain(folder: pathlib.Path, step: int, images: jax.Array, frames: jax.Array) -> None:
    """Write the end of a chain, [b h w c] in [-1, 1], as samples, and its stages [stages b h w c] of some images.

    Raises:
      NonFinite: as ``to_uint8``.
    """
    save_samples(folder, step, images, "the sampler")
    save(folder / f"{step:07d}-reverse.png", strip(to_uint8(frames, f"the sampler at step {step}")))


def stages(num_steps: int) -> list[int]:
    """Choose at most ten evenly spaced step counts of a chain, endpoints included."""
    return np.linspace(0, num_steps, min(10, num_steps + 1)).round().astype(int).tolist()
