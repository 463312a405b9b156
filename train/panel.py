"""Who judges images: a feature extractor, beside a data set whose held-out images make the floor."""

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
from train import classifier
from train.run import config, load, process, sources

CHUNK = 500  # images at a time
MOST = 3000  # images of a set whose neighbours in the other are looked for
COPIES = 1000  # images whose nearest training image is looked for
Numbers = dict[str, Any]


class Panel(NamedTuple):
    """Judges of images.

    Fields:
      title: whose features they see by; ``name`` of the Fréchet distance that goes with them.
      name: of that distance: "FID" is Inception's alone.
      real: the data set.
      floor: the numbers of as many held-out images, ``(num) -> numbers``.
      numbers: of images, uint8 [n h w c]: ``(images) -> numbers``.
    """

    title: str
    name: str
    real: data.Dataset
    floor: Callable[[int], Numbers]
    numbers: Callable[[np.ndarray], Numbers]


class Eyes(NamedTuple):
    """``see(images) -> (features, classes)`` of uint8 images, and whose they are; classes may be None.

    ``run`` is the one that was trained to see, on the data that it is to judge by.
    """

    title: str
    name: str
    see: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
    num_classes: int
    shape: tuple[int, int, int] | None
    run: load.Record | None = None


def of_classifier(workdir: str, data_dir: str) -> tuple[Eyes, Any]:
    """The eyes of a run of ``train.classifier``, and its settings.

    Raises:
      CheckpointError: the workdir holds no such run.
    """
    run = load.record(pathlib.Path(workdir), {"classifier": classifier})
    told = dataclasses.replace(run.settings, data_dir=data_dir or run.settings.data_dir)
    model = classifier.model(told, run.shape)
    params = load.params(run, model.init, "best")
    look = jax.jit(lambda images: (model.features(params, images), model.logits(params, images)))

    def see(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features, logits = _in_parts(lambda part: look(data.scale(part)), images)
        return features, logits.argmax(1)

    title = f"of a classifier of {told.data}, {told.features} of them, trained for {told.steps} steps"
    return Eyes(title, "Fréchet classifier distance", see, told.num_classes, run.shape, run), told


def of_inception(weights: str) -> Eyes:
    """The eyes of Inception v3 with the weights in a ``.safetensors`` file, by their names in PyTorch.

    Raises:
      UsageError: there is no such file, or it is none with the weights of Inception v3.
    """
    if not pathlib.Path(weights).is_file():
        raise config.UsageError(f"inception {weights}: there is no such file")
    try:
        params = inception.from_tensors(safetensors_numpy.load_file(weights))
    except (safetensors.SafetensorError, ValueError, LookupError, AttributeError, OSError) as error:
        # it raises the last three for types that NumPy has no name for, and files that cannot be read
        raise config.UsageError(f"inception {weights}: {error}") from error
    look = jax.jit(lambda images: (inception.Inception().apply({"params": params}, images),))
    see = lambda images: (_in_parts(lambda part: look(data.scale(part)), images, 50)[0], None)
    return Eyes("of Inception v3, 2048 of them", "FID", see, 0, None)


def panel(eyes: Eyes, told: Any, k: int) -> Panel:
    """Judges with these eyes, beside the data set that the settings tell of.

    Args:
      eyes: ``of_classifier`` or ``of_inception``.
      told: the settings of a run: its data set.
      k: neighbours.

    Raises:
      UsageError: no image is held out, or no more than k.
      DataError: they are not the data that the eyes were trained on.
    """
    real = sources.load(told)
    if eyes.run is not None:
        load.check_data(eyes.run, data.fingerprint(real))
    train, held = real.train["image"], real.heldout["image"]
    if not len(held) > k:
        raise config.UsageError(f"num: expected more held-out images than neighbours, {k}; got {len(held)}")
    train_features, train_classes = eyes.see(train)
    process.check_finite(eyes.title, {"features": train_features})
    flat = lambda images: images.reshape(len(images), -1).astype(np.float64)

    def numbers(images: np.ndarray) -> Numbers:
        if images.shape[1:] != train.shape[1:]:
            raise config.UsageError(
                f"images: expected the shape {train.shape[1:]} of {told.data}; got {images.shape[1:]}"
            )
        features, found = eyes.see(images)
        pick = lambda points, most: points[np.random.default_rng(0).permutation(len(points))[:most]]
        most = min(MOST, len(images), len(train))
        standard, other = distances.standardise(train_features, train_features, features)
        kernel = distances.kernel_distance(jax.random.key(0), standard, other)
        scores: Numbers = {
            "frechet": distances.frechet_distance(train_features, features),
            "kernel": [float(kernel.mean), float(kernel.standard_error)],
            **neighbours.prdc(pick(train_features, most), pick(features, most), k=k)._asdict(),
        }
        if found is not None and train_classes is not None:
            wanted = np.bincount(train_classes, minlength=eyes.num_classes) / len(train)
            shares = classes.balance(found, wanted)
            scores |= {"classes": shares.covered, "class_kl": shares.kl, "shares": shares.shares.round(4).tolist()}
        copied = neighbours.memorization(flat(train), flat(pick(held, COPIES)), flat(pick(images, COPIES)))
        return scores | {f"copies_{name}": value for name, value in copied._asdict().items()}

    def floor(num: int) -> Numbers:
        return numbers(held[np.sort(np.random.default_rng(0).permutation(len(held))[:num])])

    return Panel(eyes.title, eyes.name, real, floor, numbers)


def _in_parts(
    see: Callable[[np.ndarray], tuple[jax.Array, ...]], images: np.ndarray, size: int = CHUNK
) -> list[np.ndarray]:
    parts = [see(images[i : i + size]) for i in range(0, len(images), size)]
    return [np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(parts[0]))]
