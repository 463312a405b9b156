"""Pictures: grids of images, strips, curves. The only importer of matplotlib."""

import json
import pathlib

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


def tile(images: np.ndarray, columns: int, *, gap: int = 1, paper: int = 255) -> np.ndarray:
    """Images uint8[b h w c] side by side, row by row, on paper: uint8[H W c]."""
    b, h, w, c = images.shape
    rows = -(-b // columns)
    sheet = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), paper, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * (h + gap) + gap, (i % columns) * (w + gap) + gap
        sheet[y : y + h, x : x + w] = image
    return sheet


def save(path: pathlib.Path, sheet: np.ndarray, *, width: int = 640) -> None:
    """Write uint8[H W c] as a PNG, enlarged by a whole factor to about ``width`` pixels; never half-written."""
    factor = max(1, round(width / sheet.shape[1]))
    sheet = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(partial, "PNG")
    partial.replace(path)


def strip(frames: np.ndarray, *, rows: int = 4) -> np.ndarray:
    """Stages of a process, uint8[stages b h w c], one image a row, one stage a column."""
    stages, b, *shape = frames.shape
    rows = min(rows, b)
    return tile(frames[:, :rows].swapaxes(0, 1).reshape(rows * stages, *shape), stages)


def curves(path: pathlib.Path, metrics: pathlib.Path) -> None:
    """Draw the losses in ``metrics.jsonl``: training, held-out, and the norm of the gradient below."""
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    if not lines:
        return
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(7, 5.2), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    for name, label, colour, mark in (
        ("loss", "training", "#3b6ea8", ""),
        ("heldout_loss", "held out", "#c8553d", "o"),
    ):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            upper.plot(*zip(*points, strict=True), label=label, color=colour, marker=mark, markersize=4, linewidth=1.4)
    upper.set_yscale("log")
    upper.set_ylabel("loss")
    upper.legend(frameon=False)
    lower.plot([line["step"] for line in lines], [line["grad_norm"] for line in lines], color="#888888", linewidth=1)
    lower.set_yscale("log")
    lower.set_ylabel("gradient norm")
    lower.set_xlabel("step")
    for axes in (upper, lower):
        axes.grid(alpha=0.25, which="both", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, dpi=130, format="png")
    plt.close(figure)
    partial.replace(path)
