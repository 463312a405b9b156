"""Sensitivity of image metrics to known faults: ``python -m benchmarks.calibration --config mnist``.

Real held-out images are changed in ways that a metric must detect (noise, a missing class, a few repeated images) and
in one way that it must not (other real images). The table shows the response of each metric.
"""

import dataclasses
import json
from collections.abc import Callable
from collections.abc import Sequence as Arguments
from typing import Any

import numpy as np
import tyro

from benchmarks import drawn, quality
from train.run import features, process

Rows = dict[str, np.ndarray]
Spoil = Callable[[np.random.Generator, Rows, Rows], np.ndarray]
"""``(random, train, heldout) -> images``, at most as many as there are held-out images."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Train the classifier unless its run exists, judge the changed images, write the table."""

    config: str = "digits"
    """Config of train.classifier."""
    neighbours: int = 5
    """k of precision, recall, density and coverage."""
    seed: int = 0
    """Seed of the random changes."""
    data_dir: str = ""
    """Folder of the data sets."""
    workdir: str = "runs"
    """Folder of the classifier's run."""
    traceback: bool = False
    """Show where in the code an error arose."""


def noise(level: float) -> Spoil:
    """Add normal noise of this standard deviation, in units of the range of a pixel."""
    return lambda random, train, held: _levels(held["image"] / 255 + level * random.normal(size=held["image"].shape))


def without(*dropped: int) -> Spoil:
    """Replace the images of some classes by images of the others."""

    def spoil(random: np.random.Generator, train: Rows, held: Rows) -> np.ndarray:
        kept = held["image"][~np.isin(held["label"], dropped)]
        return kept[random.permutation(len(held["image"])) % len(kept)]

    return spoil


def few(num: int) -> Spoil:
    """Repeat a few training images."""
    return lambda random, train, held: train["image"][np.arange(len(held["image"])) % num]


def marginals(random: np.random.Generator, train: Rows, held: Rows) -> np.ndarray:
    """Draw every pixel from a random training image: the marginals are right, the joint distribution is not."""
    shape = held["image"].shape
    which = random.integers(len(train["image"]), size=shape)
    return np.take_along_axis(train["image"], which, 0)


SPOILED: dict[str, Spoil] = {
    "training images": lambda random, train, held: random.permutation(train["image"])[: len(held["image"])],
    "real, held out": lambda random, train, held: held["image"],
    "the first half of them": lambda random, train, held: held["image"][: len(held["image"]) // 2],
    "noise 0.05": noise(0.05),
    "noise 0.1": noise(0.1),
    "noise 0.2": noise(0.2),
    "noise 0.4": noise(0.4),
    "binarised at half": lambda random, train, held: np.where(held["image"] > 127, 255, 0).astype(np.uint8),
    "shifted by a pixel": lambda random, train, held: np.roll(held["image"], 1, 2),
    "without nines": without(9),
    "five classes": without(5, 6, 7, 8, 9),
    "100 training images": few(100),
    "independent pixels": marginals,
    "uniform pixels": lambda random, train, held: random.integers(0, 256, held["image"].shape).astype(np.uint8),
}


def main(argv: Arguments[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Calibration, prog="python -m benchmarks.calibration", args=argv)
    run = drawn.Drawn(config=settings.config, data_dir=settings.data_dir, workdir=settings.workdir)
    extractor, classifier = features.from_classifier(str(drawn.train("classifier", run)), settings.data_dir)
    metrics = features.metrics(extractor, classifier, settings.neighbours)
    results = {}
    for name, spoil in SPOILED.items():
        images = spoil(np.random.default_rng(settings.seed), metrics.real.train, metrics.real.heldout)
        results[name] = {"num": len(images), **metrics.numbers(images)}
    path = quality.HERE / "results" / f"calibration-{settings.config}.json"
    path.write_text(json.dumps({"features": metrics.title, "sets": results}, indent=1) + "\n", encoding="utf-8")
    quality.write_table(f"calibration {settings.config}", table(results))


def table(results: dict[str, dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""
    head = (
        "| images | number | Fréchet | kernel | precision | recall | density | coverage | class KL | distance ratio |"
    )
    lines = [head, "|---" * 10 + "|"]
    for name, row in results.items():
        kernel = "{:.3g} ± {:.1g}".format(*row["kernel"])
        shares = [row[key] for key in ("precision", "recall", "density", "coverage", "class_kl", "copies_ratio")]
        cells = " | ".join(f"{value:.3f}" for value in shares)
        lines.append(f"| {name} | {row['num']} | {row['frechet']:.2f} | {kernel} | {cells} |")
    return "\n".join(lines)


def _levels(share: np.ndarray) -> np.ndarray:
    return np.clip(np.round(share * 255), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    process.main(main)
