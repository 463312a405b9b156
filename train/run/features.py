"""Feature metrics of images: distances to a training set, with held-out real images as the reference."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from genjax import data
from genjax.metrics import classes, distances, neighbours
from genjax.nn import inception
from train.run import config, load, process, sources
from train.run.config import ImageRun
from train.run.recipe import named

CHUNK = 500
"""Images whose features are computed at a time."""
MOST = 3000
"""Images of a set whose neighbours in the other set are looked for."""
COPIES = 1000
"""Images whose nearest training image is looked for."""

Numbers = dict[str, Any]
"""Metrics by name: numbers, lists of numbers, or [number, standard error]."""


class FeatureExtractor(NamedTuple):
    """A feature extractor of images.

    Attributes:
      title: description of the features.
      frechet: name of the Fréchet distance of these features; "FID" is that of Inception alone.
      extract: features [n d] and predicted classes [n] or None, ``(images uint8[n h w c]) -> (features, classes)``.
      num_classes: number of classes; 0 for an extractor that predicts none.
      run: run of train.classifier that the extractor comes from, which saw the data that it compares by; or None.
    """

    title: str
    frechet: str
    extract: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    num_classes: int
    run: load.Record | None = None


class FeatureMetrics(NamedTuple):
    """Metrics of images by their features.

    Attributes:
      title: description of the features.
      frechet: name of the Fréchet distance.
      real: data set that images are compared with.
      reference: metrics of as many held-out images, ``(num) -> numbers``.
      numbers: metrics of images uint8 [n h w c], ``(images) -> numbers``.
    """

    title: str
    frechet: str
    real: data.Dataset
    reference: Callable[[int], Numbers]
    numbers: Callable[[np.ndarray], Numbers]


def from_classifier(workdir: str, data_dir: str) -> tuple[FeatureExtractor, ImageRun]:
    """Load the extractor of a run of ``train.classifier``, and the run's settings with this folder of data sets.

    Raises:
      CheckpointError: the workdir holds no such run.
    """
    run = load.record(pathlib.Path(workdir), named("classifier"))
    settings = dataclasses.replace(run.settings, data_dir=data_dir or run.settings.data_dir)
    model = run.recipe.model(settings, run.shape)
    params = load.params(run, model.init, "best")
    apply = jax.jit(lambda images: (model.features(params, images), model.logits(params, images)))

    def extract(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = _in_parts(lambda part: apply(data.scale(part)), images)
        return features, logits.argmax(1)

    title = f"of a classifier of {settings.data}, {settings.features} of them, trained for {settings.steps} steps"
    return FeatureExtractor(title, "Fréchet classifier distance", extract, settings.num_classes, run), settings


def from_inception(weights: str) -> FeatureExtractor:
    """Load Inception v3 with the weights in a ``.safetensors`` file, by their names in PyTorch.

    Raises:
      UsageError: there is no such file, or it does not hold the weights of Inception v3.
    """
    if not pathlib.Path(weights).is_file():
        raise config.UsageError(f"inception {weights}: there is no such file")
    try:
        params = inception.from_tensors(safetensors_numpy.load_file(weights))
    except (safetensors.SafetensorError, ValueError, LookupError, AttributeError, OSError) as error:
        # safetensors raises the last three for types that NumPy has no name for, and files that cannot be read
        raise config.UsageError(f"inception {weights}: {error}") from error
    apply = jax.jit(lambda images: (inception.Inception().apply({"params": params}, images),))
    extract = lambda images: (_in_parts(lambda part: apply(data.scale(part)), images, 50)[0], None)
    return FeatureExtractor("of Inception v3, 2048 of them", "FID", extract, 0)


def metrics(extractor: FeatureExtractor, settings: ImageRun, k: int) -> FeatureMetrics:
    """Make the metrics of an extractor against the data set that settings name.

    Args:
      extractor: feature extractor.
      settings: settings of a run on the data set.
      k: number of neighbours of precision, recall, density and coverage.

    Raises:
      UsageError: no image is held out, or no more than k.
      DataError: they are not the data that the extractor was trained on.
    """
    real = sources.load(settings)
    if extractor.run is not None:
        load.check_data(extractor.run, data.fingerprint(real))
    train, held = real.train["image"], real.heldout["image"]
    if not len(held) > k:
        raise config.UsageError(f"num: expected more held-out images than neighbours, {k}; got {len(held)}")
    train_features, train_classes = extractor.extract(train)
    process.check_finite(extractor.title, {"features": train_features})

    def numbers(images: np.ndarray) -> Numbers:
        if images.shape[1:] != train.shape[1:]:
            raise config.UsageError(
                f"images: expected the shape {train.shape[1:]} of {settings.data}; got {images.shape[1:]}"
            )
        features, predicted = extractor.extract(images)
        most = min(MOST, len(images), len(train))
        standard, other = distances.standardise(train_features, train_features, features)
        kernel = distances.kernel_distance(jax.random.key(0), standard, other)
        scores: Numbers = {
            "frechet": distances.frechet_distance(train_features, features),
            "kernel": [float(kernel.mean), float(kernel.standard_error)],
            **neighbours.prdc(_choose(train_features, most), _choose(features, most), k=k)._asdict(),
        }
        if predicted is not None and train_classes is not None:
            target = np.bincount(train_classes, minlength=extractor.num_classes) / len(train)
            shares = classes.balance(predicted, target)
            scores |= {"classes": shares.covered, "class_kl": shares.kl, "shares": shares.shares.round(4).tolist()}
        copies = neighbours.memorization(_flat(train), _flat(_choose(held, COPIES)), _flat(_choose(images, COPIES)))
        return scores | {f"copies_{name}": value for name, value in copies._asdict().items()}

    def reference(num: int) -> Numbers:
        return numbers(held[np.sort(np.random.default_rng(0).permutation(len(held))[:num])])

    return FeatureMetrics(extractor.title, extractor.frechet, real, reference, numbers)


def _choose(points: np.ndarray, most: int) -> np.ndarray:
    """Choose at most this many points at random, always the same of as many."""
    return points[np.random.default_rng(0).permutation(len(points))[:most]]


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64)


def _in_parts(
    apply: Callable[[np.ndarray], tuple[jax.Array, ...]], images: np.ndarray, size: int = CHUNK
) -> list[np.ndarray]:
    parts = [apply(images[i : i + size]) for i in range(0, len(images), size)]
    return [np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(parts[0]))]
