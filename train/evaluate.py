"""Score a trained run: ``python -m train.evaluate --workdir runs/vae-mnist --samples 500``.

Of a VAE or a diffusion model, the scores are bounds of log p(x); of an autoregressive model or a flow, log p(x) itself.
Of a prior over the codes of a VQ-VAE, the score is the length of a code in two parts, -log p(indices) -
log p(x|indices), which is no less than -log p(x).
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.theory import estimates, information
from train.run import codes, conditions, config, documents, files, load, logging, process, recipe, sources, usage

CHUNK = 250
"""Images that are scored at a time."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score held-out images under a trained run of any model with a likelihood: log p(x), or bounds of it, in nats and
    bits per dimension. An option that the run does not read is refused."""

    workdir: str
    """Folder of the run."""
    samples: int = 500
    """Number K of draws of z for each image; read of train.vae."""
    times: int = 50
    """Number of times, spread evenly over [0, 1), that estimate the bound of each image; read of train.vdm. Number of
    steps of the process whose bound it is, where more make it tighter; read of train.edm."""
    levels: int = 0
    """Number of values of a pixel; 0 means 17 for digits and 256 for others. Read of train.ddpm and train.edm."""
    flow: bool = False
    """Add log p(x) by the probability flow, for twice the work of the bound. Read of train.ddpm and train.edm."""
    labels: bool = True
    """Score log p(x|label) of a train.ddpm with classes; --no-labels scores log p(x), without labels."""
    num: int = 1000
    """Number of held-out images, chosen at random; 0 for all."""
    member: int = 0
    """Index of the model in a run that trained several."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last checkpoint, or the one with the lowest held-out loss."""
    recipe: str = ""
    """Module or .py file with the RECIPE that trained the run, for a model from outside of train."""
    seed: int = 0
    """Seed of the choice of images, of their binarisation, and of z."""
    data_dir: str = ""
    """Folder of the data sets. Default: as in training."""
    out: str = ""
    """JSON file for the numbers; of train.ddpm also for those of each time, which train.sample --terms reads."""
    traceback: bool = False
    """Show where in the code an error arose."""

    BY_RECIPE: ClassVar[tuple[str, ...]] = ("samples", "times", "levels", "flow", "labels")
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"data_dir": sources.OF_DATA_DIR}


def scores(options: Evaluate, typed: Collection[str] = ()) -> dict[str, Any]:
    """Score held-out images: each number's mean with its standard error, in nats per image and bits per dimension.

    Args:
      options: options of the command; one that the run does not read is refused where it is not the default.
      typed: names of the options that are refused even where they are.

    Raises:
      UsageError: a value that cannot be, or an option that the run does not read.
      CheckpointError: the workdir holds no run of a model with a likelihood, or no usable checkpoint.
      NonFinite: a mean or a standard error is no number.
      DataError: the data are not those the run was trained on.
    """
    _check(options)
    run = load.record(pathlib.Path(options.workdir), recipe.scores, options.member, options.recipe)
    origin = run.recipe.source.origin(run)
    load.refuse_unread(options, run, run.recipe.score_options, typed, origin.settings.data)
    with usage.library_errors():
        return _scores(options, run, origin)


def _check(options: Evaluate) -> None:
    least = {"samples": 1, "times": 1, "levels": 2 if options.levels else 0, "num": 0, "seed": 0, "member": 0}
    problems = usage.extremes(options) + config.at_least(options, least)
    if options.num == 1:
        problems.append("num: expected at least 2 images, for a standard error, or 0 for all; got 1")
    if problems:
        raise config.UsageError("\n".join(problems))


def _scores(options: Evaluate, run: load.Record, origin: load.Record) -> dict[str, Any]:
    settings = dataclasses.replace(run.settings, data_dir=options.data_dir or run.settings.data_dir)
    make = run.recipe.score
    assert make is not None  # recipe.scores
    score = make(options, settings, run.shape)
    params = load.params(run, score.init, options.checkpoint)
    rows = _heldout(run, origin, settings)
    size, shape = len(rows["image"]), rows["original"].shape[1:]
    if size < 2:
        raise config.UsageError(
            f"{settings.data} holds out {size} images; expected at least 2 to score. {options.workdir} was trained on "
            "the others"
        )
    chosen = np.sort(np.random.default_rng(options.seed).permutation(size)[: options.num or size])
    values = _values(score, params, jax.random.key(options.seed), rows, chosen)
    _check_values(run.recipe.name, values, len(chosen))
    process.check_finite(options.workdir, values)
    row: dict[str, Any] = {
        "workdir": options.workdir,
        "data": settings.data,
        "split": f"{len(chosen)} of {size} held-out images, seed {options.seed}",
        "pixels": score.pixels,
        "samples": options.samples,
        "dimensions": math.prod(shape),
    }
    if getattr(settings, "num_classes", 0):
        row["labels"] = "given" if options.labels else "not given"
    row |= _means(values, shape)
    process.check_finite(options.workdir, row)
    return row


def _heldout(run: load.Record, origin: load.Record, settings: Any) -> dict[str, np.ndarray]:
    """Load the held-out rows, with the images that they stand for as ``original``."""
    source = run.recipe.source
    whole = source.load(settings)
    load.check_data(run, source.fingerprint(settings, whole), data.fingerprint(whole))
    original = whole if origin is run else codes.load_images(origin, settings.data_dir)
    return {**whole.heldout, "original": original.heldout["image"]}


def _values(
    score: recipe.Score, params: Any, key: jax.Array, rows: Mapping[str, np.ndarray], chosen: np.ndarray
) -> dict[str, jax.Array]:
    """Score the chosen rows, part by part."""
    compiled, parts = jax.jit(score.values), []
    for index in np.array_split(chosen, -(-len(chosen) // CHUNK)):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        parts.append(compiled(params, keys, {name: array[index] for name, array in rows.items()}))
    return {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_values(recipe_name: str, values: Mapping[str, jax.Array], num: int) -> None:
    """Refuse numbers that are not of the images, as a recipe from outside may return."""
    for name, each in values.items():
        if each.ndim not in (1, 2) or each.shape[0] != num:
            raise config.UsageError(
                f"recipe {recipe_name}: {name}: expected a number, or some, for each of {num} images, got an array "
                f"of shape {each.shape}"
            )


def _means(values: Mapping[str, jax.Array], shape: tuple[int, ...]) -> dict[str, Any]:
    """Average numbers [n] and [n t] over the images; the averages [t] stand under ``by_time``."""
    row: dict[str, Any] = {name: _mean(each, shape) for name, each in values.items() if each.ndim == 1}
    by_time = {name: np.asarray(each.mean(0)).tolist() for name, each in values.items() if each.ndim > 1}
    return {**row, "by_time": by_time} if by_time else row


def _mean(values: jax.Array, shape: tuple[int, ...]) -> dict[str, float]:
    """Return the mean of numbers [n] in nats, with its standard error, and in bits per dimension of a shape."""
    estimate = estimates.estimate(values)
    return {
        "nats": float(estimate.mean),
        "standard_error": float(estimate.standard_error),
        "bits_per_dim": float(information.bits_per_dim(-estimate.mean, math.prod(shape))),
    }


LEDGER = {
    "log p(x)": ("log_prob", "exact"),
    "ELBO": ("elbo",),
    "bound of K draws": ("bound",),
    "variational bound": ("vlb",),
    "probability flow": ("flow",),
    "code in two parts": ("both",),
}
"""Columns of the ledger, each with the numbers that it holds; numbers of different columns are not comparable."""


def ledger(rows: Sequence[dict[str, Any]]) -> str:
    """Format rows of ``scores`` in Markdown: bits per dim ± standard error, each kind of number in its own column."""
    titles = ["run", "data", "pixels", "split", *LEDGER]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        about = [row["workdir"], row["data"], row["pixels"], row["split"]]
        lines.append(f"| {' | '.join([*about, *(_cell(row, names) for names in LEDGER.values())])} |")
    return "\n".join(lines)


def _cell(row: dict[str, Any], names: tuple[str, ...]) -> str:
    name = next((name for name in names if name in row), None)
    if name is None:
        return ""
    error = row[name]["standard_error"] / (math.log(2) * row["dimensions"])
    note = {"bound": f" (K = {row['samples']})", "exact": " (quadrature)"}.get(name, "")
    return f"{row[name]['bits_per_dim']:.4f} ± {error:.4f}{note}"


TITLES = {
    "elbo": "ELBO", "bound": "bound, K = {samples}", "exact": "log p(x), quadrature", "vlb": "variational bound",
    "prior": "  of it prior", "steps": "  of it steps", "decoder": "  of it decoder", "flow": "probability flow",
    "log_prob": "log p(x)", "codes": "log p(indices)", "images": "log p(x|indices)", "both": "both parts",
}  # fmt: skip
"""Titles of the numbers, in the order in which they are printed; a number without one goes by its name."""


def main(argv: Sequence[str]) -> None:
    """Print the numbers and the row of the ledger, and write them where asked."""
    options, typed = config.command(Evaluate, "evaluate", argv)
    out = load.check_output(options) if options.out else None
    row = scores(options, typed)
    if out:
        with documents.writing(out):
            files.replace(out, json.dumps(row, indent=1, allow_nan=False) + "\n")
    labels = f"; labels: {row['labels']}" if "labels" in row else ""
    logging.log(f"{row['data']}, {row['split']}; pixels: {row['pixels']}{labels}")
    numbers = {name: value for name, value in row.items() if isinstance(value, dict) and "bits_per_dim" in value}
    for name in sorted(numbers, key=[*TITLES, *numbers].index):
        value, title = numbers[name], TITLES.get(name, name).format(samples=options.samples)
        logging.log(
            f"{title:22} {value['nats']:10.3f} ± {value['standard_error']:.3f} nats"
            f"   {value['bits_per_dim']:.4f} bits per dim"
        )
    logging.log(f"bits per dim ± standard error:\n{ledger([row])}")


if __name__ == "__main__":
    process.main(main)
