"""Draw from a trained run: ``python -m train.sample --workdir runs/ddpm-digits --num 64 --seed 0 --out grid.png``."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
import tyro

from genjax import data, diffusion, random
from genjax.training import state
from train import checkpoint, config, ddpm, pictures, record, runtime


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw images from a trained run. Image i depends on the run, the seed and i only."""

    workdir: str
    """Folder of the run."""
    out: str = "samples.png"
    """A .png gets a grid; a .npz gets the images, uint8 [num h w c]."""
    num: int = 64
    """How many images."""
    seed: int = 0
    """Of the noise."""
    sampler: Literal["ancestral", "ddim"] = "ancestral"
    """Reverse chain: ancestral takes all T steps, ddim as many as --steps says."""
    steps: int = 50
    """Network evaluations per image; ddim only."""
    eta: float = 0.0
    """Noise of ddim: 0 is deterministic, 1 as noisy as ancestral."""
    spacing: Literal["trailing", "leading", "linspace"] = "trailing"
    """Which times ddim visits."""
    batch_size: int = 64
    """Images at a time."""
    columns: int = 0
    """Of the grid; 0 makes it square."""
    traceback: bool = False
    """Show where in the code an error arose."""


def draw(settings: Sample) -> np.ndarray:
    """The images, uint8 [num h w c].

    Raises:
      UsageError: a value that cannot be.
      CheckpointError: the workdir holds no run of this kind, or no usable checkpoint.
    """
    for name in ("num", "batch_size"):
        if getattr(settings, name) < 1:
            raise config.UsageError(f"{name}: expected at least 1, got {getattr(settings, name)}")
    trained, shape = _trained(pathlib.Path(settings.workdir).absolute())
    try:
        model = ddpm.model(trained, shape, _sampler(settings, trained))
    except ValueError as error:
        raise config.UsageError(str(error)) from error
    absent: Any = None  # only the average is read
    averaged = state.TrainState(absent, absent, jax.eval_shape(model.init, jax.random.key(0)), absent)
    params = checkpoint.read(pathlib.Path(settings.workdir).absolute(), averaged).state.ema_params

    size = min(settings.batch_size, settings.num)
    key = jax.random.key(settings.seed)
    batch = jax.jit(lambda first: data.to_uint8(model.sample(random.per_example(key, size, first), params, size)))
    parts = [np.asarray(batch(first)) for first in range(0, settings.num, size)]
    return np.concatenate(parts)[: settings.num]


def main(argv: Sequence[str]) -> None:
    """Draw as the command line says, and write the picture or the arrays."""
    settings = tyro.cli(Sample, prog="python -m train.sample", args=argv)
    out = pathlib.Path(settings.out)
    if out.suffix not in (".png", ".npz"):
        raise config.UsageError(f"--out {out}: expected a name that ends in .png or .npz")
    if not out.absolute().parent.is_dir():
        raise config.UsageError(f"--out {out}: there is no folder {out.absolute().parent}")
    images = draw(settings)
    if out.suffix == ".npz":
        partial = out.with_suffix(".partial.npz")
        np.savez_compressed(partial, images=images)
        partial.replace(out)
    else:
        columns = settings.columns or -(-len(images) // max(1, round(len(images) ** 0.5)))
        pictures.save(out, pictures.tile(images, columns))
    record.say(f"{len(images)} images in {out}")


def _trained(workdir: pathlib.Path) -> tuple[ddpm.Config, tuple[int, int, int]]:
    """The settings of the run, and the shape of its images."""
    path = workdir / "config.json"
    if not path.is_file():
        raise checkpoint.CheckpointError(
            f"{workdir} holds no run: there is no config.json; train one with python -m train.ddpm"
        )
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        script, shape = described["script"], tuple(described["data"]["train"][1:])
    except (ValueError, KeyError, TypeError) as error:
        raise checkpoint.CheckpointError(f"{path} is not a run's record: {error}") from error
    if script != "ddpm":
        raise checkpoint.CheckpointError(f"{workdir} was trained by train.{script}; expected a run of train.ddpm")
    return config.read(ddpm.Config, "ddpm", str(path)), shape


def _sampler(settings: Sample, trained: ddpm.Config):
    if settings.sampler == "ancestral":
        return functools.partial(diffusion.ancestral, variance=trained.variance)
    if not 1 <= settings.steps <= trained.timesteps:
        raise config.UsageError(
            f"steps: expected 1 to {trained.timesteps}, the steps of the run's process; got {settings.steps}"
        )
    if not 0 <= settings.eta <= 1:
        raise config.UsageError(f"eta: expected 0 to 1, got {settings.eta}")
    return functools.partial(diffusion.ddim, num_steps=settings.steps, eta=settings.eta, spacing=settings.spacing)


if __name__ == "__main__":
    runtime.main(main)
