"""Published weights in and out: ``python -m train.bridge --source FOLDER --workdir runs/cifar10``.

Reads a folder of diffusers with an unconditional ``UNet2DModel`` and a ``DDPMScheduler`` as a run of ``train.ddpm``,
which can be sampled, scored and trained on; with ``--export FOLDER`` it writes a run as a folder of that kind. The
fields that have a counterpart are listed in ``train/run/diffusers_config.py`` and ``genjax/nn/diffusers_unet.py``; any
other field is refused. Weights are safetensors only: pickles are not opened.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors import numpy as safetensors_numpy

from genjax.nn import diffusers_unet, unet
from genjax.training import state
from train import ddpm
from train.checkpoint import store
from train.checkpoint.lock import resolve
from train.run import claims, conditions, config, diffusers_config, load, logging, optimizers, record, startup, usage
from train.run import process as run_process
from train.run.recipe import named

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclasses.dataclass(frozen=True)
class Bridge:
    """Read a folder of diffusers as a run, or write a run as such a folder."""

    workdir: str
    """Folder of the run: made from --source, or written by --export."""
    source: str = ""
    """Folder of diffusers to read."""
    export: str = ""
    """Folder of diffusers to write; it must not exist."""
    data: str = "tfds:cifar10"
    """Data that the weights were trained on, for scoring and further training."""
    size: int = 0
    """Height and width of the images; 0 for the sample_size of the network."""
    traceback: bool = False
    """Show where in the code an error arose."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "data": conditions.needs(source=True),
        "size": conditions.needs(source=True),
    }


def read(settings: Bridge) -> None:
    """Make a run from a folder of diffusers.

    Raises:
      CheckpointError: the folder is not of this kind, or its tensors are not those of its network.
      UsageError: the workdir holds a run already, or the network or its process is not covered.
    """
    workdir, source = resolve(settings.workdir), pathlib.Path(settings.source)
    if record.run_id(workdir):
        raise config.UsageError(f"workdir {workdir}: it holds a run already; use another")
    claims.check_free(workdir)
    weights = source / "unet" if (source / "unet").is_dir() else source
    described = diffusers_config.json_object(weights / "config.json")
    trained_with = _settings(settings, described, source)
    shape = (trained_with.size, trained_with.size, diffusers_unet.network(described).image_channels)
    model = ddpm.model(trained_with, shape)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    try:
        params = diffusers_unet.params(tensors(weights), shapes, len(described["block_out_channels"]))
    except ValueError as error:
        raise store.CheckpointError(f"{weights}: {error}") from error
    start = state.create(jax.tree.map(jnp.asarray, params), optimizers.adam(trained_with)[0])
    name = uuid.uuid4().hex
    with store.Checkpoints(workdir, run_id=name) as checkpoints:
        checkpoints.save(0, start, {"interval": logging.MetricAverage().to_json()})
        checkpoints.wait()
        record.write_imported(workdir, "ddpm", name, trained_with, shape)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    sample = f"{startup.program('sample')} --workdir {workdir}"
    logging.log(f"{count:,} parameters of {source} in {workdir}; draw with {sample}")


def write(settings: Bridge) -> None:
    """Write a run as a folder that ``DDPMPipeline.from_pretrained`` reads.

    Raises:
      CheckpointError: the workdir holds no run of train.ddpm.
      UsageError: the folder exists, or diffusers has no such network or process.
    """
    target = pathlib.Path(settings.export).absolute()
    if os.path.lexists(target):
        raise config.UsageError(f"export {target}: it exists; name a folder that does not")
    run = load.record(pathlib.Path(settings.workdir), named("ddpm"))
    model = ddpm.model(run.settings, run.shape)
    process = diffusers_config.scheduler(run.settings)
    network = ddpm.network(run.settings, run.shape[-1], run.shape[0])
    if not isinstance(network, unet.UNet):
        raise config.UsageError(f"export: diffusers has no network like --network {run.settings.network}")
    try:
        described = diffusers_unet.config(network, run.shape[0])
    except ValueError as error:
        raise config.UsageError(f"export: diffusers has no such network: {error}") from error
    params = load.params(run, model.init)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".genjax-") as scratch:
            partial = pathlib.Path(scratch) / "export"
            _export(partial, process, described, params)
            partial.rename(target)
    except OSError as error:
        raise config.UsageError(f"export {target}: {error.strerror}; name another folder") from error
    logging.log(f"{settings.workdir} in {target}; read it with diffusers.DDPMPipeline.from_pretrained")


def _export(partial: pathlib.Path, process: Mapping[str, Any], described: Mapping[str, Any], params: Any) -> None:
    for part in ("unet", "scheduler"):
        (partial / part).mkdir(parents=True)
    levels = len(described["block_out_channels"])
    safetensors_numpy.save_file(diffusers_unet.tensors(params, levels), partial / "unet" / WEIGHTS, {"format": "pt"})
    _save(partial / "unet" / "config.json", {"_class_name": "UNet2DModel", **described})
    _save(partial / "scheduler" / "scheduler_config.json", process)
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDPMScheduler"]}
    _save(partial / "model_index.json", {"_class_name": "DDPMPipeline", **index})


def tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Read all tensors of a folder's safetensors, in one file or in several.

    Raises:
      CheckpointError: there are none, they are cut off, or pickles alone.
    """
    index = folder / (WEIGHTS + ".index.json")
    names = [WEIGHTS]
    if index.is_file():
        shards = diffusers_config.json_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(pathlib.Path(str(name)).name == name for name in shards.values()):
            raise store.CheckpointError(f"{index}: expected a weight_map from tensors to files of this folder")
        names = sorted(set(shards.values()))
    return {key: tensor for name in names for key, tensor in _read_file(folder, name).items()}


def _read_file(folder: pathlib.Path, name: str) -> dict[str, np.ndarray]:
    if not (folder / name).is_file():
        raise store.CheckpointError(f"{folder}: there is no {name}{_pickle_hint(folder)}")
    try:
        with safetensors.safe_open(folder / name, "flax") as file:
            return {key: np.asarray(jnp.asarray(file.get_tensor(key), jnp.float32)) for key in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise store.CheckpointError(f"{folder / name} is damaged or cut off: {error}") from error


def _pickle_hint(folder: pathlib.Path) -> str:
    pickles = [path.name for path in sorted(folder.glob("*")) if path.suffix in (".bin", ".pt", ".ckpt", ".pth")]
    if not pickles:
        return ""
    return (
        f"; {pickles[0]} is a pickle, which is not opened: convert it where it comes from with "
        "UNet2DModel.from_pretrained(FOLDER).save_pretrained(FOLDER, safe_serialization=True)"
    )


def _process(source: pathlib.Path) -> dict[str, Any]:
    """Read the settings of the diffusion process from a folder of diffusers."""
    path = source / "scheduler" / "scheduler_config.json"
    path = path if path.is_file() or not (source / "scheduler_config.json").is_file() else source / path.name
    if not path.is_file():
        raise config.UsageError(
            f"{source}: there is no scheduler/scheduler_config.json, so that nobody knows the process of its network; "
            "put that of its DDPMScheduler beside it"
        )
    process = diffusers_config.settings(diffusers_config.json_object(path), path)
    if (index := source / "model_index.json").is_file():
        diffusers_config.check_pipeline(diffusers_config.json_object(index), index)
    return process


def _settings(settings: Bridge, described: Mapping[str, Any], source: pathlib.Path) -> ddpm.Config:
    process = _process(source)
    try:
        network = diffusers_unet.network(described)
    except ValueError as error:
        raise config.UsageError(f"{source}: {error}") from error
    size = settings.size or described.get("sample_size")
    if type(size) is not int or not 1 <= size <= 4096:
        raise config.UsageError(f"size: {source} names no sample_size from 1 to 4096, but {size!r}; give --size")
    if network.image_channels not in (1, 3):
        raise config.UsageError(f"{source}: in_channels: expected 1 or 3, as images have, got {network.image_channels}")
    return dataclasses.replace(
        ddpm.Config(),
        workdir=settings.workdir,
        data=settings.data,
        size=size,
        channels=1 if network.image_channels == 1 else 3,
        network="diffusers",
        unet_config=json.dumps(
            {name: described[name] for name in sorted(diffusers_unet.DEFAULTS) if name in described}
        ),
        **process,
    )


def _save(path: pathlib.Path, described: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> None:
    """Read or write, as the command line says."""
    settings, typed = config.command(Bridge, "bridge", argv)
    if bool(settings.source) == bool(settings.export):
        raise config.UsageError("source, export: expected one of them: --source FOLDER reads, --export FOLDER writes")
    usage.refuse(conditions.table(Bridge), settings, typed)
    (read if settings.source else write)(settings)


if __name__ == "__main__":
    run_process.main(main)
