"""Score a trained run: ``python -m train.evaluate --workdir runs/vae-mnist --samples 500``."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from genjax.models import vae as vae_model
from genjax.theory import estimates, pixels, variational
from train import config, record, runtime, sources, trained, vae

CHUNK = 250  # images at a time


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Bounds of log p(x) of held-out images under a trained run of train.vae, in nats and bits per dimension."""

    workdir: str
    """Folder of the run."""
    samples: int = 500
    """K, the draws of z for each image."""
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
    """Where to write the numbers as JSON."""
    traceback: bool = False
    """Show where in the code an error arose."""


def scores(settings: Evaluate) -> dict[str, Any]:
    """Each bound's mean over the images with its standard error, nats per image and bits per dimension.

    Raises:
      UsageError: a value that cannot be.
      CheckpointError: the workdir holds no run of this kind, or no usable checkpoint.
    """
    if problems := config.at_least(settings, {"samples": 1, "num": 0, "seed": 0}):
        raise config.UsageError("\n".join(problems))
    run = trained.record(pathlib.Path(settings.workdir).absolute(), {"vae": vae}, settings.member)
    told = dataclasses.replace(run.settings, data_dir=settings.data_dir or run.settings.data_dir)
    model = vae.model(told, run.shape)
    params = trained.params(run, model.init, settings.checkpoint)
    rows = sources.load(told).heldout
    size = len(rows["image"])
    if not size:
        raise config.UsageError(f"{told.data} holds out no image to score; {settings.workdir} was trained on all of it")
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(size)[: settings.num or size])

    two = told.latents == 2

    @jax.jit
    def bounds(keys, part):
        model_keys, images = sources.images(told, keys, part)
        batch = {**part, "image": images}
        weights = model.log_weights(model_keys, params, batch, settings.samples)
        found = {"elbo": variational.elbo(weights), "bound": variational.importance_weighted_bound(weights)}
        return found | ({"exact": vae_model.log_evidence(model, params, batch)} if two else {})

    key, parts = jax.random.key(settings.seed), []
    for index in np.array_split(chosen, -(-len(chosen) // CHUNK)):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        parts.append(bounds(keys, {name: array[index] for name, array in rows.items()}))
    found = {name: estimates.estimate(jnp.concatenate([part[name] for part in parts])) for name in parts[0]}
    row: dict[str, Any] = {
        "workdir": settings.workdir,
        "data": told.data,
        "split": f"{len(chosen)} of {size} held-out images, seed {settings.seed}",
        "pixels": _pixels(told),
        "samples": settings.samples,
    }
    for name, value in found.items():
        row[name] = {
            "nats": float(value.mean),
            "standard_error": float(value.standard_error),
            "bits_per_dim": float(pixels.bits_per_dim(-value.mean, run.shape)),
        }
    return row


def _pixels(settings: vae.Config) -> str:
    if settings.likelihood != "bernoulli":
        return {"gaussian": f"continuous, density, std {settings.std:g}", "logistic": "256 levels"}[settings.likelihood]
    return {
        "none": "grey, cross-entropy: no likelihood",
        "dynamic": "binarised dynamically, one draw",
        "static": "binarised statically",
    }[settings.binarization]


def main(argv: Sequence[str]) -> None:
    """Print the row, and write it where asked."""
    settings = tyro.cli(Evaluate, prog="python -m train.evaluate", args=argv)
    row = scores(settings)
    record.say(f"{row['data']}, {row['split']}; pixels: {row['pixels']}")
    titles = {"elbo": "ELBO", "bound": f"bound, K = {settings.samples}", "exact": "log p(x), quadrature"}
    for name, title in titles.items():
        if name in row:
            value = row[name]
            record.say(
                f"{title:22} {value['nats']:10.3f} ± {value['standard_error']:.3f} nats"
                f"   {value['bits_per_dim']:.4f} bits per dim"
            )
    if settings.out:
        pathlib.Path(settings.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    runtime.main(main)
