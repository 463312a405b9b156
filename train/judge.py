"""Judge what a run draws: ``python -m train.judge --workdir runs/gan-digits --classifier runs/classifier-digits``.

Every number compares features of a classifier that ``train.classifier`` has trained, and beside it stands the same
number of as many held-out real images, as the reference. With other features it is another number, so it is never
called FID: that name belongs to the features of Inception, whose weights ``--inception`` names.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from genjax import data
from train import sample
from train.run import conditions, config, documents, features, files, load, logging, process, recipe, sources, usage


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compare drawn images with the training set by their features, with held-out real images as the reference."""

    workdir: str
    """Folder of the run that draws."""
    classifier: str = "runs/classifier-digits"
    """Folder of a run of train.classifier on the same data."""
    inception: str = ""
    """A .safetensors file with the weights of Inception v3, named as in PyTorch: compare by its features instead, which
    makes the Fréchet distance the FID."""
    recipe: str = ""
    """Module or .py file with the RECIPE that trained the run, for a model from outside of train."""
    num: int = 0
    """Number of images to draw; 0 for as many as are held out."""
    neighbours: int = 5
    """Number k of neighbours of precision, recall, density and coverage."""
    seed: int = 0
    """Seed of the noise."""
    member: int = 0
    """Index of the model in a run that trained several."""
    data_dir: str = ""
    """Folder of the data sets. Default: as in training of the classifier."""
    out: str = ""
    """JSON file for the numbers."""
    traceback: bool = False
    """Show where in the code an error arose."""

    BY_RECIPE: ClassVar[tuple[str, ...]] = ()
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "classifier": conditions.needs(inception=""),
        "data_dir": sources.OF_DATA_DIR,
    }


def feature_metrics(options: Judge, typed: Collection[str] = ()) -> features.FeatureMetrics:
    """Make the metrics that the options ask for.

    Args:
      options: options of the command; one that would not be read is refused where it is not the default.
      typed: names of the options that are refused even where they are.

    Raises:
      UsageError: a value that cannot be, or images of another shape than the classifier takes.
      CheckpointError: a workdir holds no run of its kind, or no usable checkpoint.
      DataError: the data are not those that the classifier was trained on.
    """
    lowest = {"num": 0, "neighbours": 1, "seed": 0, "member": 0}
    if problems := usage.extremes(options) + config.at_least(options, lowest):
        raise config.UsageError("\n".join(problems))
    run = _record(options)
    with usage.library_errors():
        if options.inception:
            settings = run.recipe.source.origin(run).settings
            settings = dataclasses.replace(settings, data_dir=options.data_dir or settings.data_dir)
            extractor = features.from_inception(options.inception)
        else:
            extractor, settings = features.from_classifier(options.classifier, options.data_dir)
        load.refuse_unread(options, run, {}, typed, settings.data)
        return features.metrics(extractor, settings, options.neighbours)


def _record(options: Judge) -> load.Record:
    return load.record(pathlib.Path(options.workdir), recipe.samples, options.member, options.recipe)


def judge(options: Judge, metrics: features.FeatureMetrics | None = None) -> dict[str, Any]:
    """Draw images, and return all their metrics.

    Args:
      options: options of the command.
      metrics: metrics to use; None for those of the options.

    Raises:
      UsageError: a value that cannot be, or images of another shape than those of the data.
      CheckpointError: a workdir holds no run of its kind, or no usable checkpoint.
      DataError: the run was trained on other data than those of the metrics.
      NonFinite: an image or a number is not finite.
    """
    metrics = metrics or feature_metrics(options)
    run = _record(options)
    load.check_data(run.recipe.source.origin(run), data.fingerprint(metrics.real))
    most = len(metrics.real.heldout["image"])
    num = options.num or most
    if not num > options.neighbours:
        raise config.UsageError(f"num: expected more images than neighbours, {options.neighbours}; got {num}")
    if num > most:
        raise config.UsageError(f"num: expected at most {most}, the held-out images that make the floor; got {num}")
    drawn = sample.draw(
        sample.Sample(
            options.workdir,
            num=num,
            seed=options.seed,
            member=options.member,
            batch_size=250,
            recipe=options.recipe,
        )
    )
    with usage.library_errors():
        numbers = metrics.numbers(drawn)
    process.check_finite(options.workdir, numbers)
    return {
        "workdir": options.workdir,
        "features": metrics.title,
        "frechet": metrics.frechet,
        "num": num,
        "drawn": numbers,
    }


def main(argv: Sequence[str]) -> None:
    """Print both columns, and write them where asked."""
    options, typed = config.command(Judge, "judge", argv)
    out = load.check_output(options) if options.out else None
    metrics = feature_metrics(options, typed)
    result = judge(options, metrics)
    with usage.library_errors():
        result["floor"] = metrics.reference(result["num"])
    process.check_finite("held-out images", result["floor"])
    if out:
        with documents.writing(out):
            files.replace(out, json.dumps(result, indent=1, allow_nan=False) + "\n")
    logging.log(
        f"{result['workdir']}: {result['num']} images, compared by features {result['features']}; {result['frechet']}"
    )
    logging.log(f"{'':12} {'drawn':>12} {'held out':>12}")
    for name in [name for name in result["drawn"] if name != "shares"]:
        drawn, real = (v[0] if isinstance(v, list) else v for v in (result["drawn"][name], result["floor"][name]))
        logging.log(f"{name:12} {drawn:12.4f} {real:12.4f}")
    if shares := result["drawn"].get("shares"):
        logging.log(f"class shares {shares}")


if __name__ == "__main__":
    process.main(main)
