"""Judge what a run draws: ``python -m train.judge --workdir runs/gan-digits --classifier runs/classifier-digits``.

Every number is of features of a classifier that ``train.classifier`` has trained, and beside it stands its floor: the
same number of as many real images that were held out. With other features it is another number, so it is never called
FID: that name is of Inception's, which ``--inception`` takes the user's weights of.
"""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from genjax import data
from train import panel, sample
from train.run import codes, conditions, config, documents, files, load, logging, process, sources, usage


@dataclasses.dataclass(frozen=True)
class Judge:
    """Distances of drawn images from the training set, with the floor of held-out real ones."""

    workdir: str
    """Folder of the run that draws."""
    classifier: str = "runs/classifier-digits"
    """Folder of a run of train.classifier on the same data."""
    inception: str = ""
    """A .safetensors file with the weights of Inception v3, named as in PyTorch: judge by its features instead, which
    makes the Fréchet distance the FID."""
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

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "classifier": conditions.needs(inception=""),
        "data_dir": sources.OF_DATA_DIR,
    }


def judges(settings: Judge, typed: Collection[str] = ()) -> panel.Panel:
    """Who judges.

    Args:
      settings: whom to take; one that would not be read is refused where it is not the default.
      typed: those that are refused even so.

    Raises:
      UsageError: a value that cannot be, or images of another shape than the classifier takes.
      CheckpointError: a workdir holds no run of its kind, or no usable checkpoint.
      DataError: the data are not those that the classifier was trained on.
    """
    lowest = {"num": 0, "neighbours": 1, "seed": 0, "member": 0}
    if problems := usage.extremes(settings) + config.at_least(settings, lowest):
        raise config.UsageError("\n".join(problems))
    run = load.record(pathlib.Path(settings.workdir), sample.SCRIPTS, settings.member)
    with usage.of_library():
        if settings.inception:
            told = codes.pictured(run.settings) if codes.named(run.settings) else run.settings
            told = dataclasses.replace(told, data_dir=settings.data_dir or told.data_dir)
            eyes = panel.of_inception(settings.inception)
        else:
            eyes, told = panel.of_classifier(settings.classifier, settings.data_dir)
        usage.refuse_idle(settings, run, typed, told.data)
        return panel.panel(eyes, told, settings.neighbours)


def judge(settings: Judge, who: panel.Panel | None = None) -> dict[str, Any]:
    """All numbers of what was drawn.

    Args:
      settings: what to draw.
      who: judges; by default those of the settings.

    Raises:
      UsageError: a value that cannot be, or images of another shape than those of the data.
      CheckpointError: a workdir holds no run of its kind, or no usable checkpoint.
      DataError: the run was trained on other data than those of the judges.
      NonFinite: an image or a number is none.
    """
    who = who or judges(settings)
    run = load.record(pathlib.Path(settings.workdir), sample.SCRIPTS, settings.member)
    made_of = codes.source(run.settings.data.partition(":")[2])[0] if codes.named(run.settings) else run
    load.check_data(made_of, data.fingerprint(who.real))
    most = len(who.real.heldout["image"])
    num = settings.num or most
    if not num > settings.neighbours:
        raise config.UsageError(f"num: expected more images than neighbours, {settings.neighbours}; got {num}")
    if num > most:
        raise config.UsageError(f"num: expected at most {most}, the held-out images that make the floor; got {num}")
    drawn = sample.draw(
        sample.Sample(settings.workdir, num=num, seed=settings.seed, member=settings.member, batch_size=250)
    )
    with usage.of_library():
        numbers = who.numbers(drawn)
    process.check_finite(settings.workdir, numbers)
    return {
        "workdir": settings.workdir,
        "features": who.title,
        "frechet": who.name,
        "num": num,
        "drawn": numbers,
    }


def main(argv: Sequence[str]) -> None:
    """Print both columns, and write them where asked."""
    settings, typed = config.command(Judge, "judge", argv)
    out = load.check_output(settings) if settings.out else None
    who = judges(settings, typed)
    found = judge(settings, who)
    with usage.of_library():
        found["floor"] = who.floor(found["num"])
    process.check_finite("held-out images", found["floor"])
    if out:
        with documents.writing(out):
            files.replace(out, json.dumps(found, indent=1, allow_nan=False) + "\n")
    logging.log(f"{found['workdir']}: {found['num']} images, seen by features {found['features']}; {found['frechet']}")
    logging.log(f"{'':12} {'drawn':>12} {'held out':>12}")
    shares = found["drawn"].get("shares")
    for name, value in found["drawn"].items():
        if name == "shares":
            continue
        one, other = (v[0] if isinstance(v, list) else v for v in (value, found["floor"][name]))
        logging.log(f"{name:12} {one:12.4f} {other:12.4f}")
    if shares:
        logging.log(f"class shares {shares}")


if __name__ == "__main__":
    process.main(main)
