"""Score a trained run: ``python -m train.evaluate --workdir runs/vae-mnist --samples 500``.

Of a VAE or a diffusion model, bounds of log p(x); of a PixelCNN or PixelRNN, log p(x) itself. Of one over the codes of
a VQ-VAE, the length of the code in two parts: -log p(indices) - log p(x|indices), which is no less than -log p(x).
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.theory import estimates, pixels
from train import ddpm, edm, pixelcnn, pixelrnn, vae, vdm
from train.run import (
    autoregressive,
    codes,
    conditions,
    config,
    documents,
    files,
    likelihoods,
    load,
    logging,
    networks,
    process,
    sources,
    usage,
)

CHUNK = 250  # images at a time


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """log p(x) of held-out images under a trained run of train.vae, train.ddpm, train.vdm or train.edm (bounds),
    train.pixelcnn or train.pixelrnn, in nats and bits per dimension."""

    workdir: str
    """Folder of the run."""
    samples: int = 500
    """K, the draws of z for each image; of a VAE only."""
    times: int = 50
    """How many times, spread evenly over [0, 1), estimate the bound of each image, of train.vdm; steps of the process
    whose bound it is, of train.edm, where more make it tighter."""
    levels: int = 0
    """How many values a pixel can take, of train.ddpm and train.edm only; 0 means 17 for digits, 256 for others."""
    flow: bool = False
    """Also log p(x) by the probability flow; of train.ddpm and train.edm only, and twice the work of its bound."""
    labels: bool = True
    """Score log p(x|label) of a train.ddpm with classes; --no-labels scores log p(x), without labels."""
    num: int = 1000
    """How many held-out images, chosen at random; 0 for all."""
    member: int = 0
    """Which of the models of a run that trained many."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last checkpoint, or the one with the lowest held-out loss."""
    seed: int = 0
    """Of the choice of images, of their binarisation, and of z."""
    data_dir: str = ""
    """Where data sets lie. Default: as in training."""
    out: str = ""
    """Where to write the numbers as JSON; of train.ddpm also those of each time, which train.sample --terms reads."""
    traceback: bool = False
    """Show where in the code an error arose."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "samples": conditions.of_runs("vae"),
        "times": conditions.of_runs("vdm", "edm"),
        "levels": conditions.of_runs("ddpm", "edm"),
        "flow": conditions.of_runs("ddpm", "edm"),
        "labels": (
            *conditions.of_runs("ddpm"),
            conditions.Condition(lambda asked: bool(asked.num_classes), "of a run that was trained with --num-classes"),
        ),
        "data_dir": sources.OF_DATA_DIR,
    }


SCRIPTS = {"vae": vae, "pixelcnn": pixelcnn, "pixelrnn": pixelrnn, "ddpm": ddpm, "vdm": vdm, "edm": edm}


def scores(settings: Evaluate, typed: Collection[str] = ()) -> dict[str, Any]:
    """Each number's mean over the images with its standard error, nats per image and bits per dimension.

    Args:
      settings: what to score; one that the run does not read is refused where it is not the default.
      typed: those that are refused even so.

    Raises:
      UsageError: a value that cannot be, or a setting that the run does not read.
      CheckpointError: the workdir holds no run of this kind, or no usable checkpoint.
      NonFinite: a mean or a standard error is no number.
      DataError: the data are not those the run was trained on.
    """
    least = {"samples": 1, "times": 1, "levels": 2 if settings.levels else 0, "num": 0, "seed": 0, "member": 0}
    problems = usage.extremes(settings) + config.at_least(settings, least)
    if settings.num == 1:
        problems.append("num: expected at least 2 images, for a standard error, or 0 for all; got 1")
    if problems:
        raise config.UsageError("\n".join(problems))
    run = load.record(pathlib.Path(settings.workdir), SCRIPTS, settings.member)
    looked_at = codes.pictured(run.settings).data if codes.named(run.settings) else ""
    usage.refuse_idle(settings, run, typed, looked_at)
    with usage.of_library():
        return _scores(settings, run)


def _scores(settings: Evaluate, run: load.Record) -> dict[str, Any]:
    told = dataclasses.replace(run.settings, data_dir=settings.data_dir or run.settings.data_dir)
    model = SCRIPTS[run.script].model(told, run.shape)
    params = load.params(run, model.init, settings.checkpoint)
    coded = codes.named(told)
    source = autoregressive.SOURCE if run.script.startswith("pixel") else sources.IMAGES
    whole = source.load(told)
    load.check_data(run, source.fingerprint(told, whole), data.fingerprint(whole))
    rows = whole.heldout
    rows = {**rows, "original": codes.images(told).heldout["image"] if coded else rows["image"]}
    size, shape = len(rows["image"]), rows["original"].shape[1:]
    if size < 2:
        raise config.UsageError(
            f"{told.data} holds out {size} images; expected at least 2 to score. {settings.workdir} was trained on the "
            "others"
        )
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(size)[: settings.num or size])
    score = jax.jit(likelihoods.OF[run.script](settings, told, model))
    key, parts = jax.random.key(settings.seed), []
    for index in np.array_split(chosen, -(-len(chosen) // CHUNK)):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        parts.append(score(params, keys, {name: array[index] for name, array in rows.items()}))
    every = {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}
    process.check_finite(settings.workdir, every)
    found = {name: estimates.estimate(values) for name, values in every.items() if values.ndim == 1}
    row: dict[str, Any] = {
        "workdir": settings.workdir,
        "data": told.data,
        "split": f"{len(chosen)} of {size} held-out images, seed {settings.seed}",
        "pixels": _pixels(settings, run.script, told),
        "samples": settings.samples,
        "dimensions": math.prod(shape),
    }
    if getattr(told, "num_classes", 0):
        row["labels"] = "given" if settings.labels else "not given"
    for name, value in found.items():
        row[name] = {
            "nats": float(value.mean),
            "standard_error": float(value.standard_error),
            "bits_per_dim": float(pixels.bits_per_dim(-value.mean, shape)),
        }
    if by_time := {name: np.asarray(values.mean(0)).tolist() for name, values in every.items() if values.ndim > 1}:
        row["by_time"] = by_time
    process.check_finite(settings.workdir, row)
    return row


def _pixels(settings: Evaluate, script: str, told: Any) -> str:
    if script in ("ddpm", "vdm", "edm"):
        return f"{likelihoods.levels(settings, told)} levels"
    if codes.named(told):
        return "codes, then images given codes"
    if told.likelihood != "bernoulli":
        levels = networks.likelihood(told).num_levels
        return f"{levels} levels" if levels else f"continuous, density, std {told.std:g}"
    return {
        "none": "grey, cross-entropy: no likelihood",
        "dynamic": "binarised dynamically, one draw",
        "static": "binarised statically",
    }[told.binarization]


LEDGER = {
    "log p(x)": ("log_prob", "exact"),
    "ELBO": ("elbo",),
    "bound of K draws": ("bound",),
    "variational bound": ("vlb",),
    "probability flow": ("flow",),
    "code in two parts": ("both",),
}
"""The columns of the ledger, which are never compared unread, and the numbers that stand in each."""


def ledger(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of ``scores`` in Markdown: bits per dim ± standard error, each kind of number in a column of its own."""

    def cell(row: dict[str, Any], names: tuple[str, ...]) -> str:
        name = next((name for name in names if name in row), None)
        if name is None:
            return ""
        error = row[name]["standard_error"] / (math.log(2) * row["dimensions"])
        note = {"bound": f" (K = {row['samples']})", "exact": " (quadrature)"}.get(name, "")
        return f"{row[name]['bits_per_dim']:.4f} ± {error:.4f}{note}"

    titles = ["run", "data", "pixels", "split", *LEDGER]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        told = [row["workdir"], row["data"], row["pixels"], row["split"]]
        lines.append(f"| {' | '.join([*told, *(cell(row, names) for names in LEDGER.values())])} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Print the numbers and the row of the ledger, and write it where asked."""
    settings, typed = config.command(Evaluate, "evaluate", argv)
    out = load.check_output(settings) if settings.out else None
    row = scores(settings, typed)
    if out:
        with documents.writing(out):
            files.replace(out, json.dumps(row, indent=1, allow_nan=False) + "\n")
    labels = f"; labels: {row['labels']}" if "labels" in row else ""
    logging.log(f"{row['data']}, {row['split']}; pixels: {row['pixels']}{labels}")
    titles = {"elbo": "ELBO", "bound": f"bound, K = {settings.samples}", "exact": "log p(x), quadrature"}
    titles |= {
        "vlb": "variational bound",
        "prior": "  of it prior",
        "steps": "  of it steps",
        "decoder": "  of it decoder",
    }
    titles |= {"flow": "probability flow"}
    titles |= {"log_prob": "log p(x)", "codes": "log p(indices)", "images": "log p(x|indices)", "both": "both parts"}
    for name, title in titles.items():
        if name in row:
            value = row[name]
            logging.log(
                f"{title:22} {value['nats']:10.3f} ± {value['standard_error']:.3f} nats"
                f"   {value['bits_per_dim']:.4f} bits per dim"
            )
    logging.log(f"bits per dim ± standard error:\n{ledger([row])}")


if __name__ == "__main__":
    process.main(main)
