"""What a trained model is scored by: bounds of log p(x), or log p(x) itself, of each image."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data, diffusion, random
from genjax.diffusion import likelihood
from genjax.models import autoregressive
from genjax.models import ddpm as ddpm_model
from genjax.models import edm as edm_model
from genjax.models import vae as vae_model
from genjax.models import vdm as vdm_model
from genjax.theory import pixels, variational
from genjax.types import Batch, Key, Params
from train import ddpm, edm, vae, vdm
from train.run import autoregressive as run_autoregressive
from train.run import codes, sources

Score = Callable[[Params, Key, Batch], dict[str, jax.Array]]
"""``(params, keys [b], rows) -> numbers by name``, [b] or [b t]."""


def _bounds(settings: Any, told: vae.Config, model: vae_model.VAE) -> Score:
    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        model_keys, images = sources.images(told, keys, part)
        batch = {**part, "image": images}
        weights = model.log_weights(model_keys, params, batch, settings.samples)
        found = {"elbo": variational.elbo(weights), "bound": variational.importance_weighted_bound(weights)}
        return found | ({"exact": vae_model.log_evidence(model, params, batch)} if told.latent_dim == 2 else {})

    return score


def _diffusion(settings: Any, told: ddpm.Config, model: ddpm_model.DDPM) -> Score:
    """Given the labels, where the model has some and ``labels`` does not leave them out."""
    process = lambda params, labels: (model.denoise(params, labels), ddpm.schedule(told))
    labelled = bool(told.num_classes) and settings.labels
    return _of_steps(settings, told, process, ddpm.variance(told), clip=ddpm.clip(told), labelled=labelled)


def _karras(settings: Any, told: edm.Config, model: edm_model.EDM) -> Score:
    """At as many σ of the chain's spacing as ``times`` says, as a process of so many steps."""
    grid = edm.grid(told, settings.times)
    process = lambda params, labels: diffusion.variance_preserving(model.denoise(params), grid)
    return _of_steps(settings, told, process, "small")


def _of_steps(
    settings: Any,
    told: ddpm.Config | edm.Config,
    process: Callable[[Params, Any], tuple[diffusion.Denoise, diffusion.Schedule]],
    variance: Literal["small", "large"],
    *,
    clip: Any = True,
    labelled: bool = False,
) -> Score:
    num_levels = levels(settings, told)

    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        bound_keys, spread_keys, probe_keys = random.split(keys, 3)
        images = pixels.from_level(pixels.to_level(data.scale(part["image"]), num_levels), num_levels)
        denoise, schedule = process(params, part["label"] if labelled else None)
        found = likelihood.vlb(
            denoise, schedule, bound_keys, images, variance=variance, num_levels=num_levels, clip=clip
        )
        row = {"vlb": -found.total, "prior": -found.prior, "steps": -found.steps[:, 1:].sum(1)}
        row["decoder"] = -found.steps[:, 0]
        row |= {"nats": found.steps, "squared_error": found.squared_error / np.prod(images.shape[1:])}
        if settings.flow:
            spread, log_width = likelihood.dequantise(spread_keys, images, num_levels)
            row["flow"] = likelihood.ode_log_likelihood(denoise, schedule, probe_keys, spread) + log_width
        return row

    return score


def _variational(settings: Any, told: vdm.Config, model: vdm_model.VDM) -> Score:
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


def levels(settings: Any, told: ddpm.Config | vdm.Config | edm.Config) -> int:
    """How many values a pixel can take, of a diffusion model."""
    if isinstance(told, vdm.Config):
        return told.levels
    return settings.levels or (17 if told.data == "digits" else 256)


def _exact(settings: Any, told: run_autoregressive.Config, model: autoregressive.Autoregressive) -> Score:
    def score(params: Params, keys: Key, part: Batch) -> dict[str, jax.Array]:
        images = sources.images(told, keys, part)[1]
        log_prob = model.log_prob(params, images, part["label"] if run_autoregressive.classes(told) else None)
        if not codes.named(told):
            return {"log_prob": log_prob}
        rest = codes.log_prob(told, part["original"], images)
        return {"codes": log_prob, "images": rest, "both": log_prob + rest}

    return score


OF: dict[str, Callable[..., Score]] = {
    "vae": _bounds, "ddpm": _diffusion, "vdm": _variational, "edm": _karras, "pixelcnn": _exact, "pixelrnn": _exact,
}  # fmt: skip
"""``(settings of train.evaluate, of the run, its model) -> Score``, by the script that trained the run."""
