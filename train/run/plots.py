"""Pictures: grids of images, strips, curves. The only importer of matplotlib."""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import matplotlib
import numpy as np
from PIL import Image

from genjax import data
from train.checkpoint import manifest
from train.run import files, process

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


class PictureError(Exception):
    """A picture cannot be drawn or written; the message names its file."""


def to_uint8(images: jax.Array | np.ndarray, drawn: str) -> np.ndarray:
    """Images in [-1, 1] as bytes, of the same shape, in host memory: ``data.to_uint8`` of what is finite.

    Args:
      images: that were drawn.
      drawn: by what, for the message.

    Raises:
      NonFinite: some are NaN or infinite, which as bytes would be black or white.
    """
    check_finite(images, drawn)
    return np.asarray(_to_uint8(images))


def check_finite(images: jax.Array | np.ndarray, drawn: str) -> None:
    """Refuse images, or points, that are not finite.

    Raises:
      NonFinite: how many are not.
    """
    finite = np.isfinite(np.asarray(images, np.float32))
    if not finite.all():
        raise process.NonFinite(
            f"{drawn}: {1 - finite.mean():.1%} of the numbers drawn are NaN or infinite, which no picture shows; "
            "a longer training, less guidance, another sampler or more of its steps may help"
        )


_to_uint8 = jax.jit(data.to_uint8)


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
    factor = max(1, round(width / sheet.shape[1]))  # 1 for width 0
    sheet = sheet.repeat(factor, axis=0).repeat(factor, axis=1)
    with _naming(path):
        packed = io.BytesIO()
        Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet).save(packed, "PNG")
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, packed.getvalue())


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Around the drawing of a picture: whatever fails is of this file."""
    try:
        yield
    except (PictureError, process.NonFinite):
        raise
    except Exception as error:
        raise PictureError(f"{path} is not drawn: {manifest.brief(error)}") from error


def strip(frames: np.ndarray, *, rows: int = 4) -> np.ndarray:
    """Stages of a process, uint8[stages b h w c], one image a row, one stage a column."""
    stages, b, *shape = frames.shape
    rows = min(rows, b)
    return tile(frames[:, :rows].swapaxes(0, 1).reshape(rows * stages, *shape), stages)


COLOURS = ("#3b6ea8", "#c8553d", "#4d8a57", "#b8860b", "#7d5ba6", "#888888")
"""Of the lines of a plot, in this order."""


def stages(num_steps: int) -> list[int]:
    """Of a chain of so many steps, at most ten, both ends among them: how many steps are done."""
    return np.linspace(0, num_steps, min(10, num_steps + 1)).round().astype(int).tolist()


def chain(folder: pathlib.Path, step: int, images: jax.Array, frames: jax.Array) -> None:
    """What a chain drew in [-1, 1], [b h w c], as STEP.png and latest.png; its stages, [stages b h w c], of some.

    Raises:
      NonFinite: as ``to_uint8``.
    """
    drawn = f"the sampler at step {step}"
    sheet = tile(to_uint8(images, drawn), columns=round(len(images) ** 0.5))
    save(folder / f"{step:07d}.png", sheet)
    save(folder / f"{step:07d}-reverse.png", strip(to_uint8(frames, drawn)))
    save(folder / "latest.png", sheet)


@contextlib.contextmanager
def figure(
    path: pathlib.Path,
    rows: int = 1,
    columns: int = 1,
    *,
    size: tuple[float, float] | None = None,
    share: Literal["", "x", "y"] = "",
    heights: Sequence[float] | None = None,
    widths: Sequence[float] | None = None,
) -> Iterator[Any]:
    """A plot in the house style: yields its axes, an array [rows columns], and writes the PNG at the end.

    Args:
      path: of the PNG; never half-written.
      rows, columns: of panels.
      size: inches, width and height; 6.2 by 4.2 for each panel by default.
      share: an axis that all panels have in common.
      heights, widths: of the rows and columns, as shares.
    """
    with _naming(path), plt.rc_context({"axes.prop_cycle": plt.cycler(color=COLOURS)}):
        sheet, axes = plt.subplots(
            rows,
            columns,
            figsize=size or (6.2 * columns, 4.2 * rows),
            squeeze=False,
            sharex=share == "x",
            sharey=share == "y",
            height_ratios=heights,
            width_ratios=widths,
            layout="constrained",
        )
        try:
            yield axes
            for panel in axes.flat:
                panel.grid(alpha=0.25, which="both", linewidth=0.5)
                panel.spines[["top", "right"]].set_visible(False)
                if panel.get_legend_handles_labels()[1]:
                    panel.legend(frameon=False)
            path.parent.mkdir(parents=True, exist_ok=True)
            packed = io.BytesIO()
            sheet.savefig(packed, dpi=130, format="png")
            files.replace(path, packed.getvalue())
        finally:
            plt.close(sheet)


def curves(path: pathlib.Path, metrics: pathlib.Path, names: Sequence[str] = ("loss",)) -> None:
    """Draw metrics of ``metrics.jsonl``, in training and held out, and the norm of the gradient below."""
    lines = list(files.lines(metrics))
    if not lines:
        return
    course = lambda name: [(line["step"], line[name]) for line in lines if name in line]
    with figure(path, 2, size=(7, 5.2), share="x", heights=(3, 1)) as axes:
        upper, lower = axes[:, 0]
        for i, name in enumerate(names):
            what = "" if len(names) == 1 else f"{name}, "
            colours = (COLOURS[0], COLOURS[1]) if len(names) == 1 else (COLOURS[i], COLOURS[i])
            for points, label, mark, colour in (
                (course(name), "training", "", colours[0]),
                (course(f"heldout_{name}"), "held out", "o", colours[1]),
            ):
                if points:
                    style = {"marker": mark, "markersize": 4, "linewidth": 1.4, "color": colour}
                    upper.plot(*zip(*points, strict=True), label=what + label, **style)
        values = [value for name in names for key in (name, f"heldout_{name}") for _, value in course(key)]
        upper.set(yscale="log" if 0 < 10 * min(values) < max(values) else "linear", ylabel=" and ".join(names))
        lower.plot([line["step"] for line in lines], [line["grad_norm"] for line in lines], color=COLOURS[-1], lw=1)
        lower.set(yscale="log", ylabel="gradient norm", xlabel="step")


def compare(folder: pathlib.Path, ensemble: Any, found: dict[str, np.ndarray]) -> None:
    """Draw the held-out loss of each member, against the setting that varies: ``members.png``."""
    with figure(folder / "members.png", size=(6.2, 4.2)) as ((panel,),):
        if ensemble.values is None:
            panel.plot(ensemble.seeds, found["loss"], "o", alpha=0.7)
            panel.axhline(found["loss"].mean(), color=COLOURS[1], lw=1, label=f"mean {found['loss'].mean():.4g}")
            panel.set(xlabel="seed", ylabel="held-out loss", xticks=ensemble.seeds)
        else:
            values = np.unique(ensemble.values)
            panel.plot(ensemble.values, found["loss"], "o", alpha=0.5)
            panel.plot(values, [found["loss"][ensemble.values == value].mean() for value in values], lw=1.4)
            panel.set(xlabel=ensemble.name, ylabel="held-out loss", xscale="log" if values.min() > 0 else "linear")


def roc(path: pathlib.Path, curve: Any, strange: int) -> None:
    """Draw a receiver operating characteristic (``metrics.roc.ROC``) of telling a class from the others."""
    with figure(path, size=(5, 5)) as ((panel,),):
        panel.plot(curve.fpr, curve.tpr, lw=1.8, label=f"area {curve.auc:.3f}")
        panel.plot([0, 1], [0, 1], color="#888888", ls="--", lw=1, label="by chance")
        panel.set(
            xlabel="others taken for strange", ylabel=f"share of class {strange} found", title="By reconstruction error"
        )


def scatter(path: pathlib.Path, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw points [n 2], coloured by their labels."""
    with figure(path, size=(6.6, 6)) as ((panel,),):
        for label in [None] if labels is None else np.unique(labels).tolist():
            chosen = points if label is None else points[labels == label]
            colour = None if label is None else plt.get_cmap("tab10")(label % 10)
            panel.plot(*chosen.T, ".", ms=4, alpha=0.6, color=colour, label=None if label is None else f"{label}")
        panel.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")


def band(path: pathlib.Path, metrics: pathlib.Path, name: str, label: str) -> None:
    """Draw a held-out metric of ``metrics.jsonl`` over the steps: its mean over members, and its 95 % interval."""
    lines = list(files.lines(metrics))
    key = f"heldout_{name}"
    reports = [(line["step"], line.get("heldout_members", {}).get(name, [line[key]])) for line in lines if key in line]
    if not reports:
        return
    at = np.array([step for step, _ in reports])
    values = np.array([found for _, found in reports], np.float64)
    mean, num = values.mean(1), values.shape[1]
    with figure(path, size=(7, 4.4)) as ((panel,),):
        if num > 1:
            spread = 1.96 * values.std(1, ddof=1) / num**0.5
            panel.fill_between(at, mean - spread, mean + spread, alpha=0.25, lw=0)
            panel.plot(at, values, color=COLOURS[0], alpha=0.2, lw=0.8)
        panel.plot(at, mean, lw=1.8, label=f"mean of {num}" if num > 1 else None)
        panel.set(xlabel="step", ylabel=label)


def surfaces(
    path: pathlib.Path, x: np.ndarray, y: np.ndarray, shown: Mapping[str, np.ndarray], labels: tuple[str, str]
) -> None:
    """Draw functions [y x] of two numbers as colours, side by side."""
    with figure(path, 1, len(shown), size=(5.4 * len(shown), 4.4)) as axes:
        for panel, (title, values) in zip(axes[0], shown.items(), strict=True):
            image = panel.pcolormesh(x, y, values, cmap="viridis", shading="gouraud")
            panel.figure.colorbar(image, ax=panel)
            panel.set(title=title, xlabel=labels[0], ylabel=labels[1])


def lines(path: pathlib.Path, frames: Sequence[Sequence[np.ndarray]], titles: Sequence[str], reach: float) -> None:
    """Draw stages of a movement side by side; a frame is polylines [n 2] within ``reach`` of its middle."""
    with figure(path, 1, len(frames), size=(1.6 * len(frames), 1.9), share="y") as axes:
        for panel, frame, title in zip(axes[0], frames, titles, strict=True):
            for i, line in enumerate(frame):
                panel.plot(*line.T, lw=3, color=COLOURS[i % len(COLOURS)], solid_capstyle="round")
            x = frame[0].mean(0)[0]
            low = min(0.0, *(line[:, 1].min() for each in frames for line in each)) - 0.2
            high = max(line[:, 1].max() for each in frames for line in each) + 0.2
            panel.set(xlim=(x - reach, x + reach), ylim=(low, high), title=title, aspect="equal", xticks=[], yticks=[])
            panel.spines[:].set_visible(False)


def against(
    path: pathlib.Path,
    series: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str],
    title: str,
    floor: float,
) -> None:
    """Draw y against x of several series by name, both on logarithmic axes, and a dashed line at the floor."""
    with figure(path, size=(6.6, 4.4)) as ((panel,),):
        for i, (name, (x, y)) in enumerate(series.items()):
            panel.plot(x, y, "o-", ms=4, color=COLOURS[i % len(COLOURS)], label=name)
        panel.axhline(floor, ls="--", lw=1, color="0.5")
        panel.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1], title=title)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
        panel.legend(frameon=False, fontsize=8)


def density(path: pathlib.Path, real: np.ndarray, made: np.ndarray, title: str) -> None:
    """Draw two sets of points [n 2] as densities, side by side on the same axes."""
    reach = 1.25 * np.abs(real).max()
    with figure(path, 1, 2, size=(10, 5), share="y") as ((left, right),):
        for panel, points, name in ((left, real, "data"), (right, made, title)):
            panel.hist2d(*points.T, bins=120, range=[[-reach, reach]] * 2, cmap="magma")
            panel.set(title=name, aspect="equal", xlabel="$x_1$")
        left.set_ylabel("$x_2$")


def colours(indices: np.ndarray, num: int) -> np.ndarray:
    """Maps of numbers in [0, num) as colours: uint8[... 3]."""
    table = plt.get_cmap("turbo")(np.linspace(0, 1, max(num, 2)))[:, :3]
    return np.rint(255 * table).astype(np.uint8)[indices]
