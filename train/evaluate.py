"""Score a trained run: ``python -m train.evaluate --workdir runs/vae-mnist --samples 500``.

Of a VAE or a diffusion model, bounds of log p(x); of a PixelCNN or PixelRNN, log p(x) itself. Of one over the codes of
a VQ-VAE, the length of the code in two parts: -log p(indices) - log p(x|indices), which is no less than -log p(x).
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from genjax import data, diffusion, random
from genjax.diffusion import likelihood
from genjax.models import autoregressive
from genjax.models import ddpm as ddpm_model
from genjax.models import edm as edm_model
from genjax.models import vae as vae_model
from genjax.models import vdm as vdm_model
from genjax.theory import estimates, pixels, variational
from genjax.types import Batch, Key, Params
from train import (
    choices,
    codes,
    config,
    ddpm,
    edm,
    pixelcnn,
    pixelrnn,
    raster,
    record,
    runtime,
    sources,
    trained,
    vae,
    vdm,
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
    """How many values a pixel can take, of a diffusion model only; 0 means 17 for digits and 256 for others."""
    flow: bool = False
    """Also log p(x) by the probability flow; of a diffusion model only, and twice the work of its bound."""
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


SCRIPTS = {"vae": vae, "pixelcnn": pixelcnn, "pixelrnn": pixelrnn, "ddpm": ddpm, "vdm": vdm, "edm": edm}


def scores(settings: Evaluate) -> dict[str, Any]:
    """Each number's mean over the images with its standard error, nats per image and bits per dimension.

    Raises:
      UsageError: a value that cannot be.
      CheckpointError: the workdir holds no run of this kind, or no usable checkpoint.
    """
    least = {"samples": 1, "times": 1, "levels": 2 if settings.levels else 0, "num": 0, "seed": 0}
    if problems := config.at_least(settings, least):
        raise config.UsageError("\n".join(problems))
    run = trained.record(pathlib.Path(settings.workdir).absolute(), SCRIPTS, settings.member)
    told = dataclasses.replace(run.settings, data_dir=settings.data_dir or run.settings.data_dir)
    model = SCRIPTS[run.script].model(told, run.shape)
    params = trained.params(run, model.init, settings.checkpoint)
    coded = codes.named(told)
    rows = (raster.load if run.script.startswith("pixel") else sources.load)(told).heldout
    rows = {**rows, "original": codes.images(told).heldout["image"] if coded else rows["image"]}
    size, shape = len(rows["image"]), rows["original"].shape[1:]
    if not size:
        raise config.UsageError(f"{told.data} holds out no image to score; {settings.workdir} was trained on all of it")
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(size)[: settings.num or size])
    score = jax.jit(_SCORES.get(run.script, _exact)(settings, told, model))
    key, parts = jax.random.key(settings.seed), []
    for index in np.array_split(chosen, -(-len(chosen) // CHUNK)):
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(index)
        parts.append(score(params, keys, {name: array[index] for name, array in rows.items()}))
    whole = {name: jnp.concatenate([part[name] for part in parts]) for name in parts[0]}
    found = {name: estimates.estimate(values) for name, values in whole.items() if values.ndim == 1}
    row: dict[str, Any] = {
        "workdir": settings.workdir,
        "data": told.data,
        "split": f"{len(chosen)} of {size} held-out images, seed {settings.seed}",
        "pixels": f"{_levels(settings, told)} levels" if run.script in ("ddpm", "vdm", "edm") else _pixels(told),
        "samples": settings.samples,
        "dimensions": math.prod(shape),
    }
    for name, value in found.items():
        row[name] = {
            "nats": float(value.mean),
            "standard_error": float(value.standard_error),
            "bits_per_dim": float(pixels.bits_per_dim(-value.mean, shape)),
        }
    if by_time := {name: np.asarray(values.mean(0)).tolist() for name, values in whole.items() if values.ndim > 1}:
        row["by_time"] = by_time
    return row


Score = Callable[[Params, Key, Batch], dict[str, jax.Array]]
"""``(params, keys [b], rows) -> numbers by name``, [b] or [b t]."""


def _bounds(settings: Evaluate, told: vae.Config, model: vae_model.VAE) -> Score:
    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        model_keys, images = sources.images(told, keys, part)
        batch = {**part, "image": images}
        weights = model.log_weights(model_keys, params, batch, settings.samples)
        found = {"elbo": variational.elbo(weights), "bound": variational.importance_weighted_bound(weights)}
        return found | ({"exact": vae_model.log_evidence(model, params, batch)} if told.latents == 2 else {})

    return score


def _diffusion(settings: Evaluate, told: ddpm.Config, model: ddpm_model.DDPM) -> Score:
    return _of_steps(settings, told, lambda params: (model.denoise(params), ddpm.schedule(told)), ddpm.variance(told))


def _karras(settings: Evaluate, told: edm.Config, model: edm_model.EDM) -> Score:
    """At as many σ of the chain's spacing as ``times`` says, as a process of so many steps."""
    grid = edm.grid(told, settings.times)
    return _of_steps(settings, told, lambda params: diffusion.variance_preserving(model.denoise(params), grid), "small")


def _of_steps(
    settings: Evaluate,
    told: ddpm.Config | edm.Config,
    process: Callable[[Params], tuple[diffusion.Denoise, diffusion.Schedule]],
    variance: Literal["small", "large"],
) -> Score:
    levels = _levels(settings, told)

    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        bound_keys, spread_keys, probe_keys = random.split(keys, 3)
        images = pixels.from_level(pixels.to_level(data.scale(part["image"]), levels), levels)
        denoise, schedule = process(params)
        found = likelihood.bound(denoise, schedule, bound_keys, images, variance=variance, num_levels=levels)
        row = {"vlb": -found.total, "prior": -found.prior, "steps": -found.steps[:, 1:].sum(1)}
        row["decoder"] = -found.steps[:, 0]
        row |= {"nats": found.steps, "squared_error": found.squared_error / np.prod(images.shape[1:])}
        if settings.flow:
            spread, log_width = likelihood.dequantise(spread_keys, images, levels)
            row["flow"] = likelihood.flow(denoise, schedule, probe_keys, spread) + log_width
        return row

    return score


def _variational(settings: Evaluate, told: vdm.Config, model: vdm_model.VDM) -> Score:
    num = settings.times

    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        shift_keys, draw_keys = random.split(keys, 2)
        shift, images = jax.vmap(jax.random.uniform)(shift_keys), data.scale(part["image"])

        def once(i: jax.Array):
            batch = {"image": images, "time": ((i + shift) / num) % 1}
            return model.losses(jax.vmap(lambda key: jax.random.fold_in(key, i))(draw_keys), params, batch)

        found = jax.tree.map(lambda nats: -nats.mean(0), jax.lax.map(once, jnp.arange(num)))
        row = {"prior": found.prior, "steps": found.diffusion, "decoder": found.decoder}
        return {"vlb": found.prior + found.diffusion + found.decoder, **row}

    return score


def _levels(settings: Evaluate, told: ddpm.Config | vdm.Config | edm.Config) -> int:
    if isinstance(told, vdm.Config):
        return told.levels
    return settings.levels or (17 if told.data == "digits" else 256)


def _exact(settings: Evaluate, told: raster.Config, model: autoregressive.Autoregressive) -> Score:
    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        images = sources.images(told, keys, part)[1]
        log_prob = model.log_prob(params, images, part["label"] if raster.classes(told) else None)
        if not codes.named(told):
            return {"log_prob": log_prob}
        rest = codes.log_prob(told, part["original"], images)
        return {"codes": log_prob, "images": rest, "both": log_prob + rest}

    return score


_SCORES: dict[str, Callable[..., Score]] = {"vae": _bounds, "ddpm": _diffusion, "vdm": _variational, "edm": _karras}


def _pixels(settings: Any) -> str:
    if codes.named(settings):
        return "codes, then images given codes"
    if settings.likelihood != "bernoulli":
        levels = choices.likelihood(settings).num_levels
        return f"{levels} levels" if levels else f"continuous, density, std {settings.std:g}"
    return {
        "none": "grey, cross-entropy: no likelihood",
        "dynamic": "binarised dynamically, one draw",
        "static": "binarised statically",
    }[settings.binarization]


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
    settings = tyro.cli(Evaluate, prog="python -m train.evaluate", args=argv)
    row = scores(settings)
    if settings.out:
        pathlib.Path(settings.out).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    record.say(f"{row['data']}, {row['split']}; pixels: {row['pixels']}")
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
            record.say(
                f"{title:22} {value['nats']:10.3f} ± {value['standard_error']:.3f} nats"
                f"   {value['bits_per_dim']:.4f} bits per dim"
            )
    record.say(f"bits per dim ± standard error:\n{ledger([row])}")


if __name__ == "__main__":
    runtime.main(main)
