"""Judge what a run draws: ``python -m train.judge --workdir runs/gan-digits --classifier runs/classifier-digits``.

Every number is of features of a classifier that ``train.classifier`` has trained, and beside it stands its floor: the
same number of as many real images that were held out. With other features it is another number, so it is never called
FID: that name is of Inception's.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import tyro

from genjax import data
from genjax.metrics import classes, distances, neighbours
from train import classifier, config, record, runtime, sample, sources, trained

CHUNK = 500  # images at a time


@dataclasses.dataclass(frozen=True)
class Judge:
    """Distances of drawn images from the training set, with the floor of held-out real ones."""

    workdir: str
    """Folder of the run that draws."""
    classifier: str = "runs/classifier-digits"
    """Folder of a run of train.classifier on the same data."""
    num: int = 0
    """Images to draw; 0 for as many as are held out."""
    neighbours: int = 5
    """k of precision, recall, density and coverage."""
    seed: int = 0
    """Of the noise."""
    member: int = 0
    """Which of the models of a run that trained many."""
    data_dir: str = ""
    """Where data sets lie. Default: as in training of the classifier."""
    out: str = ""
    """Where to write the numbers as JSON."""
    traceback: bool = False
    """Show where in the code an error arose."""


def judge(settings: Judge) -> dict[str, Any]:
    """All numbers by name: of what was drawn, and of the held-out images.

    Raises:
      UsageError: a value that cannot be, or images of another shape than the classifier takes.
      CheckpointError: a workdir holds no run of its kind, or no usable checkpoint.
    """
    if problems := config.at_least(settings, {"num": 0, "neighbours": 1, "seed": 0}):
        raise config.UsageError("\n".join(problems))
    run = trained.record(pathlib.Path(settings.classifier).absolute(), {"classifier": classifier})
    told = dataclasses.replace(run.settings, data_dir=settings.data_dir or run.settings.data_dir)
    model = classifier.model(told, run.shape)
    params = trained.params(run, model.init, "best")
    real = sources.load(told)
    num = settings.num or len(real.heldout["image"])
    if not num > settings.neighbours:
        raise config.UsageError(f"num: expected more images than neighbours, {settings.neighbours}; got {num}")
    if num > (most := len(real.heldout["image"])):
        raise config.UsageError(f"num: expected at most {most}, the held-out images that make the floor; got {num}")
    drawn = sample.draw(
        sample.Sample(settings.workdir, num=num, seed=settings.seed, member=settings.member, batch_size=250)
    )
    if drawn.shape[1:] != run.shape:
        raise config.UsageError(
            f"{settings.workdir} draws images of shape {drawn.shape[1:]}; the classifier in {settings.classifier} "
            f"takes {run.shape}: train one on the same data"
        )
    see = jax.jit(lambda images: (model.features(params, data.scale(images)), model.logits(params, data.scale(images))))

    def seen(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [see(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK)]
        features, logits = (np.concatenate([np.asarray(part[i]) for part in parts]) for i in (0, 1))
        return features, logits.argmax(1)

    train, held = real.train["image"], real.heldout["image"]
    train_features, train_classes = seen(train)
    wanted = np.bincount(train_classes, minlength=told.classes) / len(train)
    flat = lambda images: images.reshape(len(images), -1).astype(np.float64)

    def numbers(images: np.ndarray) -> dict[str, Any]:
        features, found = seen(images)
        some = lambda points: points[np.random.default_rng(0).permutation(len(points))[: min(3000, num, len(train))]]
        standard, other = distances.standardise(train_features, train_features, features)
        kernel = distances.kernel(jax.random.key(0), standard, other)
        shares = classes.balance(found, wanted)
        return {
            "frechet": distances.frechet(train_features, features),
            "kernel": [float(kernel.mean), float(kernel.standard_error)],
            **neighbours.manifold(some(train_features), some(features), k=settings.neighbours)._asdict(),
            "classes": shares.covered,
            "class_kl": shares.kl,
            **{f"copies_{k}": v for k, v in neighbours.copies(flat(train), flat(held), flat(images))._asdict().items()},
        }

    return {
        "workdir": settings.workdir,
        "features": f"of a classifier of {told.data}, {told.features} of them, trained for {told.steps} steps",
        "num": num,
        "drawn": numbers(drawn),
        "floor": numbers(held[:num]),
        "shares": np.round(np.bincount(seen(drawn)[1], minlength=told.classes) / num, 4).tolist(),
    }


def main(argv: Sequence[str]) -> None:
    """Print both columns, and write them where asked."""
    settings = tyro.cli(Judge, prog="python -m train.judge", args=argv)
    found = judge(settings)
    record.say(f"{found['workdir']}: {found['num']} images, seen by features {found['features']}")
    record.say(f"{'':12} {'drawn':>12} {'held out':>12}")
    for name, value in found["drawn"].items():
        one, other = (v[0] if isinstance(v, list) else v for v in (value, found["floor"][name]))
        record.say(f"{name:12} {one:12.4f} {other:12.4f}")
    record.say(f"class shares {found['shares']}")
    if settings.out:
        pathlib.Path(settings.out).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    runtime.main(main)
