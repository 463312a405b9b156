"""Images as the index maps of a trained VQ-VAE: the data that a prior over codes is trained on."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.models import vqvae as vqvae_model
from genjax.theory import pixels
from genjax.types import Images, Params
from train import vqvae
from train.checkpoint import store
from train.run import config, networks, sources
from train.run import load as run_load

CHUNK = 500  # images at a time


def named(settings: Any) -> bool:
    """Whether the data are the codes of a run: ``--data codes:WORKDIR``."""
    return settings.data.startswith("codes:")


@functools.lru_cache(maxsize=1)
def source(workdir: str) -> tuple[run_load.Record, vqvae_model.VQVAE, Params]:
    """The run of train.vqvae, its model and its parameters.

    Raises:
      CheckpointError: the workdir holds no such run, or no usable checkpoint.
    """
    run = run_load.record(pathlib.Path(workdir), {"vqvae": vqvae})
    model = vqvae.model(run.settings, run.shape)
    return run, model, run_load.params(run, model.init)


def load(settings: Any) -> data.Dataset:
    """Both splits as index maps, int32[n h w 1], with the labels they had.

    Raises:
      UsageError: the codebook has another number of entries than ``levels``.
      CheckpointError: as ``source``.
    """
    run, model, params = source(_workdir(settings))
    if settings.levels != run.settings.codebook_size:
        raise config.UsageError(
            f"levels {settings.levels}: {run.workdir} has a codebook of {run.settings.codebook_size} entries; "
            f"use --levels {run.settings.codebook_size}"
        )
    whole = images(settings)
    encode = jax.jit(lambda part: model.encode(params, data.scale(part)))

    def encoded(split: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = [np.asarray(encode(split["image"][i : i + CHUNK])) for i in range(0, len(split["image"]), CHUNK)]
        maps = np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.int32)
        return {**split, "image": maps[..., None].astype(np.int32)}

    return data.Dataset(f"codes of {whole.name}", encoded(whole.train), encoded(whole.heldout))


def images(settings: Any) -> data.Dataset:
    """What the codes are of.

    Raises:
      DataError: they are not the images that the VQ-VAE was trained on.
    """
    run = source(_workdir(settings))[0]
    told = pictured(settings)
    whole = sources.load(dataclasses.replace(told, data_dir=settings.data_dir or told.data_dir))
    run_load.check_data(run, data.fingerprint(whole))
    return whole


def pictured(settings: Any) -> vqvae.Config:
    """The settings of the run whose codes they are: its data are what the codes stand for."""
    return source(_workdir(settings))[0].settings


def fingerprint(settings: Any, dataset: data.Dataset) -> str:
    """Of codes: the digest of the parameters that made them, and the fingerprint of the images; of images, theirs.

    The maps themselves may differ by an index between machines, and would not tell who can decode them.
    """
    if not named(settings):
        return data.fingerprint(dataset)
    run, _, params = source(_workdir(settings))
    return f"codes:{store.digest(params)}:{run.described['data']['fingerprint']}"


def check(run: run_load.Record) -> None:
    """Refuse to read codes with another VQ-VAE than the one that made what the run was trained on.

    Raises:
      CheckpointError: it has been trained on since, or is another.
    """
    kind, _, made_by = str(run.described["data"].get("fingerprint")).partition(":")
    if named(run.settings) and kind == "codes":
        by, _, params = source(_workdir(run.settings))
        if store.digest(params) != made_by.partition(":")[0]:
            raise store.CheckpointError(
                f"{run.workdir} was trained on codes of another checkpoint than the latest of {by.workdir}, which "
                "cannot decode them; put that back, or train the prior anew"
            )


def decode(settings: Any, maps: Images) -> Images:
    """The images of index maps, both in [-1, 1]."""
    _, model, params = source(_workdir(settings))
    return model.decode(params, pixels.to_level(maps, settings.levels)[..., 0])


def log_prob(settings: Any, rows: jax.Array, maps: Images) -> jax.Array:
    """log p(x|indices) of images uint8[n h w c] given their maps in [-1, 1], nats [n]: the second part of the code.

    Raises:
      UsageError: the VQ-VAE's pixels are continuous, so that no code of finite length holds them.
    """
    run, model, params = source(_workdir(settings))
    if not networks.likelihood(run.settings).num_levels:
        raise config.UsageError(
            f"{run.workdir} has a likelihood of continuous pixels ({run.settings.likelihood}), which has no code; "
            "train it with --likelihood logistic for a two-part code"
        )
    return model.log_prob(params, data.scale(rows), pixels.to_level(jnp.asarray(maps), settings.levels)[..., 0])


def _workdir(settings: Any) -> str:
    return settings.data.partition(":")[2]
