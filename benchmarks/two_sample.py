"""Classifier two-sample test of drawn digits: ``python -m benchmarks.two_sample --workdir runs/ddpm-digits``.

The statistic is the cross-validated accuracy of a classifier of drawn against real held-out images, equally many
(Lopez-Paz & Oquab 2017). 0.5 means that the classifier cannot tell them apart. The same test between held-out and
training images is the reference. Real pixels have 17 levels, which alone identifies the samples of a continuous model,
so the test is made with the drawn images as they are, and with drawn images rounded to these levels. The shares of the
classes, by a classifier trained on the training labels, are compared with those of the real data.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
import tyro
from sklearn import ensemble, model_selection, svm

from genjax import data
from train import sample


@dataclasses.dataclass(frozen=True)
class Settings:
    """Compare drawn digits with real ones."""

    workdir: str = "runs/ddpm-digits"
    """Folder of a run of train.ddpm on the digits."""
    num: int = 500
    """Number of drawn images, for the class shares; the test takes as many as are held out."""
    seed: int = 0
    """Seed of the samples."""
    out: str = ""
    """File of the JSON; by default it is only printed."""


def accuracy(a: np.ndarray, b: np.ndarray, repeats: int = 4) -> tuple[float, float]:
    """Accuracy of a random forest of images a against images b: mean and standard error over splits."""
    x = np.concatenate([a, b]).reshape(len(a) + len(b), -1).astype(np.float32)
    y = np.repeat([0, 1], [len(a), len(b)])
    scores = [
        model_selection.cross_val_score(
            ensemble.RandomForestClassifier(200, random_state=seed),
            x,
            y,
            cv=model_selection.StratifiedKFold(5, shuffle=True, random_state=seed),
        ).mean()
        for seed in range(repeats)
    ]
    return float(np.mean(scores)), float(np.std(scores) / np.sqrt(repeats))


def compare(settings: Settings) -> dict[str, object]:
    """Test drawn against held-out and training against held-out images, and compute the class shares."""
    digits = data.digits()
    drawn = sample.draw(sample.Sample(settings.workdir, num=settings.num, seed=settings.seed))
    rounded = np.round(np.round(drawn * (16 / 255)) * (255 / 16))
    heldout, train = digits.heldout["image"], digits.train["image"]
    some = np.random.default_rng(settings.seed).permutation(len(train))[: len(heldout)]
    classifier = svm.SVC(gamma="scale").fit(train.reshape(len(train), -1), digits.train["label"])
    label = lambda images: classifier.predict(images.reshape(len(images), -1))
    share = lambda labels: (np.bincount(labels, minlength=10) / len(labels)).round(3).tolist()
    return {
        "drawn_against_heldout": accuracy(drawn[: len(heldout)], heldout),
        "rounded_against_heldout": accuracy(rounded[: len(heldout)], heldout),
        "train_against_heldout": accuracy(train[some], heldout),
        "classifier_accuracy_on_heldout": float(np.mean(label(heldout) == digits.heldout["label"])),
        "class_shares_drawn": share(label(drawn)),
        "class_shares_train": share(digits.train["label"]),
    }


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    settings = tyro.cli(Settings, prog="python -m benchmarks.two_sample", args=argv)
    text = json.dumps(compare(settings), indent=2)
    print(text)
    if settings.out:
        pathlib.Path(settings.out).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
