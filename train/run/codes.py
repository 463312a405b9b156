"""Images as the index maps of a trained VQ-VAE: the data that a prior over codes is trained on."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from genjax import data
from genjax.models import vqvae
from genjax.theory import pixels
from genjax.types import Images, Params
from train.checkpoint import store
from train.run import config, data_forms, load, networks, sources
from train.run.config import ImageRun
from train.run.recipe import named

CHUNK = 500
"""Images that are encoded at a time."""


def are_data(settings: ImageRun) -> bool:
    """True for ``--data codes:WORKDIR``, where the data are the codes of a run."""
    return data_forms.kind(settings.data) == "codes"


@functools.lru_cache(maxsize=1)
def maker(workdir: str) -> tuple[load.Record, vqvae.VQVAE, Params]:
    """Load the run of train.vqvae that makes the codes: its record, its model and its parameters.

    Raises:
      CheckpointError: the workdir holds no such run, or no usable checkpoint.
    """
    run = load.record(pathlib.Path(workdir), named("vqvae"))
    model = run.recipe.model(run.settings, run.shape)
    return run, model, load.params(run, model.init)


def load_maps(settings: ImageRun, levels: int) -> data.Dataset:
    """Load both splits as index maps, int32[n h w 1], with the labels of the images.

    Args:
      settings: settings of the run over codes.
      levels: number of codes that the settings name.

    Raises:
      UsageError: the codebook has another number of entries than ``levels``.
      CheckpointError: as ``maker``.
    """
    run, model, params = maker(_workdir(settings))
    if levels != run.settings.codebook_size:
        raise config.UsageError(
            f"levels {levels}: {run.workdir} has a codebook of {run.settings.codebook_size} entries; "
            f"use --levels {run.settings.codebook_size}"
        )
    images = load_images(run, settings.data_dir)
    encode = jax.jit(lambda part: model.encode(params, data.scale(part)))

    def encoded(split: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        parts = [np.asarray(encode(split["image"][i : i + CHUNK])) for i in range(0, len(split["image"]), CHUNK)]
        maps = np.concatenate(parts) if parts else np.zeros((0, 1, 1), np.int32)
        return {**split, "image": maps[..., None].astype(np.int32)}

    return data.Dataset(f"codes of {images.name}", encoded(images.train), encoded(images.heldout))


def load_images(run: load.Record, data_dir: str = "") -> data.Dataset:
    """Load the images that a run was trained on.

    Args:
      run: record of a run on images.
      data_dir: folder of the data sets; empty for that of the run.

    Raises:
      DataError: they are not the images that the run was trained on.
    """
    images = sources.load(dataclasses.replace(run.settings, data_dir=data_dir or run.settings.data_dir))
    load.check_data(run, data.fingerprint(images))
    return images


def origin(run: load.Record) -> load.Record:
    """Return the run whose data are images: the VQ-VAE of a run over codes, otherwise the run itself."""
    return maker(_workdir(run.settings))[0] if are_data(run.settings) else run


def fingerprint(settings: ImageRun, dataset: data.Dataset) -> str:
    """Fingerprint codes by the parameters that made them and by the images; fingerprint images as ever.

    The maps themselves may differ by an index between machines, and would not tell which parameters decode them.
    """
    if not are_data(settings):
        return data.fingerprint(dataset)
    run, _, params = maker(_workdir(settings))
    return f"codes:{store.digest(params)}:{run.described['data']['fingerprint']}"


def check_run(run: load.Record) -> None:
    """Refuse to decode with another VQ-VAE than the one that made the codes that a run was trained on.

    Raises:
      CheckpointError: the VQ-VAE has been trained on since, or is another.
    """
    kind, _, made_by = str(run.described["data"].get("fingerprint")).partition(":")
    if are_data(run.settings) and kind == "codes":
        by, _, params = maker(_workdir(run.settings))
        if store.digest(params) != made_by.partition(":")[0]:
            raise store.CheckpointError(
                f"{run.workdir} was trained on codes of another checkpoint than the latest of {by.workdir}, which "
                "cannot decode them; put that back, or train the prior anew"
            )


def decode(settings: ImageRun, levels: int, maps: Images) -> Images:
    """Decode index maps to images, both in [-1, 1]."""
    _, model, params = maker(_workdir(settings))
    return model.decode(params, pixels.to_level(maps, levels)[..., 0])


def log_prob(settings: ImageRun, levels: int, images: jax.Array, maps: Images) -> jax.Array:
    """Return log p(x|indices) of images uint8[n h w c] given maps in [-1, 1], nats [n]: the code's second part.

    Raises:
      UsageError: the VQ-VAE's pixels are continuous, so that no code of finite length holds them.
    """
    run, model, params = maker(_workdir(settings))
    if not networks.likelihood(run.settings).num_levels:
        raise config.UsageError(
            f"{run.workdir} has a likelihood of continuous pixels ({run.settings.likelihood}), which has no code; "
            "train it with --likelihood logistic for a two-part code"
        )
    return model.log_prob(params, data.scale(images), pixels.to_level(jnp.asarray(maps), levels)[..., 0])


def _workdir(settings: ImageRun) -> str:
    return settings.data.partition(":")[2]
