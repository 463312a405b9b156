"""Plots: curves, densities, surfaces. The only importer of matplotlib."""

import contextlib
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import matplotlib
import numpy as np

from genjax.metrics import roc as roc_metric
from train.run import files, sheets

if TYPE_CHECKING:
    from train.run import sweep

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

COLOURS = ("#3b6ea8", "#c8553d", "#4d8a57", "#b8860b", "#7d5ba6", "#888888")
"""Colours of the lines of a plot, in this order."""


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
    """Open a plot in the house style: yield its axes, an array [rows columns], and write the PNG at the end.

    Args:
      path: path of the PNG, which is never half-written.
      rows: number of rows of panels.
      columns: number of columns of panels.
      size: width and height in inches; 6.2 by 4.2 for each panel by default.
      share: axis that all panels have in common.
      heights: relative heights of the rows.
      widths: relative widths of the columns.
    """
    with sheets.naming(path), plt.rc_context({"axes.prop_cycle": plt.cycler(color=COLOURS)}):
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
    """Plot metrics of ``metrics.jsonl``, in training and held out, and the norm of the gradient below."""
    lines = list(files.lines(metrics))
    if not lines:
        return
    with figure(path, 2, size=(7, 5.2), share="x", heights=(3, 1)) as axes:
        upper, lower = axes[:, 0]
        if len(names) == 1:
            _plot_course(upper, lines, names[0], "", COLOURS[0], COLOURS[1])
        else:
            for name, colour in zip(names, COLOURS, strict=False):
                _plot_course(upper, lines, name, f"{name}, ", colour, colour)
        values = _values(lines, [*names, *(f"heldout_{name}" for name in names)])
        upper.set(yscale="log" if 0 < 10 * min(values) < max(values) else "linear", ylabel=" and ".join(names))
        lower.plot([line["step"] for line in lines], [line["grad_norm"] for line in lines], color=COLOURS[-1], lw=1)
        lower.set(yscale="log", ylabel="gradient norm", xlabel="step")


def _values(lines: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[float]:
    return [line[key] for key in keys for line in lines if key in line]


def _plot_course(
    panel: Any, lines: Sequence[Mapping[str, Any]], name: str, prefix: str, training: str, heldout: str
) -> None:
    """Plot a metric over the steps, in training and held out, in these colours."""
    for key, label, mark, colour in ((name, "training", "", training), (f"heldout_{name}", "held out", "o", heldout)):
        if points := [(line["step"], line[key]) for line in lines if key in line]:
            style = {"marker": mark, "markersize": 4, "linewidth": 1.4, "color": colour}
            panel.plot(*zip(*points, strict=True), label=prefix + label, **style)


def compare(folder: pathlib.Path, ensemble: "sweep.Ensemble", metrics: dict[str, np.ndarray]) -> None:
    """Plot the held-out loss of each member against its seed or its value of the swept setting: ``members.png``.

    Args:
      folder: folder of the run.
      ensemble: members of the run.
      metrics: held-out metrics [m] by name.
    """
    loss = metrics["loss"]
    with figure(folder / "members.png", size=(6.2, 4.2)) as ((panel,),):
        if ensemble.values is None:
            panel.plot(ensemble.seeds, loss, "o", alpha=0.7)
            panel.axhline(loss.mean(), color=COLOURS[1], lw=1, label=f"mean {loss.mean():.4g}")
            panel.set(xlabel="seed", ylabel="held-out loss", xticks=ensemble.seeds)
        else:
            values = np.unique(ensemble.values)
            panel.plot(ensemble.values, loss, "o", alpha=0.5)
            panel.plot(values, [loss[ensemble.values == value].mean() for value in values], lw=1.4)
            panel.set(xlabel=ensemble.name, ylabel="held-out loss", xscale="log" if values.min() > 0 else "linear")


def roc(path: pathlib.Path, curve: roc_metric.ROC, excluded: int) -> None:
    """Plot the receiver operating characteristic of telling a class from the others."""
    with figure(path, size=(5, 5)) as ((panel,),):
        panel.plot(curve.fpr, curve.tpr, lw=1.8, label=f"area {curve.auc:.3f}")
        panel.plot([0, 1], [0, 1], color="#888888", ls="--", lw=1, label="by chance")
        panel.set(
            xlabel="share of the others taken for it",
            ylabel=f"share of class {excluded} found",
            title="By reconstruction error",
        )


def scatter(path: pathlib.Path, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Plot points [n 2], coloured by their labels."""
    with figure(path, size=(6.6, 6)) as ((panel,),):
        for label in [None] if labels is None else np.unique(labels).tolist():
            chosen = points if label is None else points[labels == label]
            colour = None if label is None else plt.get_cmap("tab10")(label % 10)
            panel.plot(*chosen.T, ".", ms=4, alpha=0.6, color=colour, label=None if label is None else f"{label}")
        panel.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")


def band(path: pathlib.Path, metrics: pathlib.Path, name: str, label: str) -> None:
    """Plot a held-out metric of ``metrics.jsonl`` over the steps: the mean over members with its 95 % interval."""
    lines = list(files.lines(metrics))
    key = f"heldout_{name}"
    reports = [(line["step"], line.get("heldout_members", {}).get(name, [line[key]])) for line in lines if key in line]
    if not reports:
        return
    at = np.array([step for step, _ in reports])
    values = np.array([members for _, members in reports], np.float64)
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
    """Plot functions [y x] of two numbers as colours, side by side."""
    with figure(path, 1, len(shown), size=(5.4 * len(shown), 4.4)) as axes:
        for panel, (title, values) in zip(axes[0], shown.items(), strict=True):
            image = panel.pcolormesh(x, y, values, cmap="viridis", shading="gouraud")
            panel.figure.colorbar(image, ax=panel)
            panel.set(title=title, xlabel=labels[0], ylabel=labels[1])


def lines(path: pathlib.Path, frames: Sequence[Sequence[np.ndarray]], titles: Sequence[str], reach: float) -> None:
    """Plot stages of a movement side by side; a frame is polylines [n 2] within ``reach`` of its middle."""
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
    """Plot y against x of several series by name, both on logarithmic axes, and a dashed line at the floor."""
    with figure(path, size=(6.6, 4.4)) as ((panel,),):
        for i, (name, (x, y)) in enumerate(series.items()):
            panel.plot(x, y, "o-", ms=4, color=COLOURS[i % len(COLOURS)], label=name)
        panel.axhline(floor, ls="--", lw=1, color="0.5")
        panel.set(xscale="log", yscale="log", xlabel=labels[0], ylabel=labels[1], title=title)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else "")
        panel.legend(frameon=False, fontsize=8)


def density(path: pathlib.Path, real: np.ndarray, generated: np.ndarray, title: str) -> None:
    """Plot two sets of points [n 2] as densities, side by side on the same axes."""
    reach = 1.25 * np.abs(real).max()
    with figure(path, 1, 2, size=(10, 5), share="y") as ((left, right),):
        for panel, points, name in ((left, real, "data"), (right, generated, title)):
            panel.hist2d(*points.T, bins=120, range=[[-reach, reach]] * 2, cmap="magma")
            panel.set(title=name, aspect="equal", xlabel="$x_1$")
        left.set_ylabel("$x_2$")


def colours(indices: np.ndarray, num: int) -> np.ndarray:
    """Convert maps of numbers in [0, num) to colours: uint8[... 3]."""
    table = plt.get_cmap("turbo")(np.linspace(0, 1, max(num, 2)))[:, :3]
    return np.rint(255 * table).astype(np.uint8)[indices]
