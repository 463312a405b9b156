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
from genjax.diffusion import likelihood
from train import config, ddpm, edm, gan, pictures, pixelcnn, pixelrnn, raster, record, runtime, trained, vae, vdm


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw images from a trained run: of train.ddpm, train.vdm, train.edm, train.vae, train.pixelcnn, train.pixelrnn
    or train.gan. Image i depends on the run, the seed and i only."""

    workdir: str
    """Folder of the run."""
    out: str = "samples.png"
    """A .png gets a grid; a .npz gets the images, uint8 [num h w c]."""
    num: int = 64
    """How many images."""
    seed: int = 0
    """Of the noise."""
    member: int = 0
    """Which of the models of a run that trained many."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last checkpoint, or the one with the lowest held-out loss."""
    sampler: Literal["", "ancestral", "ddim", "euler", "heun", "dpm_solver", "dpm_solver_sde", "pndm"] = ""
    """Reverse chain of a diffusion model: ancestral by default, heun of train.edm. heun evaluates the network twice a
    step, pndm 9 times more than there are steps."""
    steps: int = 0
    """Of the reverse chain; 0 takes all T of the default sampler, or 50 of another. train.vdm and train.edm may take
    more than they were trained with."""
    eta: float = 0.0
    """Noise of ddim: 0 is deterministic and the same as euler, 1 as noisy as ancestral."""
    spacing: Literal["", "trailing", "leading", "linspace", "karras", "best"] = ""
    """Which times a short chain visits; karras spaces the noise as Karras et al. 2022 do, best makes the variational
    bound least (Watson et al. 2021) and wants --terms. trailing by default: it begins at noise whatever the steps."""
    terms: str = ""
    """The JSON that train.evaluate wrote of this run: ancestral then takes the optimal variances (Bao et al. 2022)."""
    guidance: float = -1.0
    """How much the label counts, of a model with classes; below 0 takes the run's."""
    temperature: float = 0.0
    """Of pixelcnn and pixelrnn: below 1 images are more typical and less varied; 0 takes the run's."""
    batch_size: int = 64
    """Images at a time."""
    columns: int = 0
    """Of the grid; 0 makes it square."""
    traceback: bool = False
    """Show where in the code an error arose."""


SCRIPTS = {"ddpm": ddpm, "vdm": vdm, "edm": edm, "vae": vae, "pixelcnn": pixelcnn, "pixelrnn": pixelrnn, "gan": gan}


def draw(settings: Sample) -> np.ndarray:
    """The images, uint8 [num h w c].

    Raises:
      UsageError: a value that cannot be.
      CheckpointError: the workdir holds no run of this kind, or no usable checkpoint.
    """
    if problems := config.at_least(
        settings, {"num": 1, "batch_size": 1, "seed": 0, "columns": 0, "temperature": 0, "steps": 0}
    ):
        raise config.UsageError("\n".join(problems))
    run = trained.record(pathlib.Path(settings.workdir).absolute(), SCRIPTS, settings.member)
    if run.shape[-1] not in (1, 3):
        raise config.UsageError(f"{run.workdir} draws points of {run.shape[-1]} numbers, not images; see its samples/")
    try:
        sample, init = _sampler(settings, run)
    except ValueError as error:
        raise config.UsageError(str(error)) from error
    params = trained.params(run, init, settings.checkpoint)
    size = min(settings.batch_size, settings.num)
    key = jax.random.key(settings.seed)
    batch = jax.jit(lambda first: data.to_uint8(sample(random.per_example(key, size, first), params, size, first)))
    parts = [np.asarray(batch(first)) for first in range(0, settings.num, size)]
    return np.concatenate(parts)[: settings.num]


def _sampler(settings: Sample, run: trained.Record):
    """``(keys, params, num, first) -> images``, and the model's ``init``."""
    if run.script in ("vdm", "edm"):
        if settings.spacing or settings.terms:
            raise config.UsageError(
                f"spacing: a run of train.{run.script} has its own; leave --spacing and --terms out"
            )
        usual: Literal["ancestral", "heun"] = "ancestral" if run.script == "vdm" else "heun"
        settings = dataclasses.replace(settings, sampler=settings.sampler or usual)
        many = settings.steps or (run.settings.timesteps if settings.sampler == usual else 50)
        script: Any = SCRIPTS[run.script]
        on_grid = script.model(run.settings, run.shape, _on_grid(settings), many)
        return (lambda keys, params, num, first: on_grid.sample(keys, params, num)), on_grid.init
    if run.script != "ddpm":
        told = run.settings
        pixelwise = run.script.startswith("pixel")
        if pixelwise:
            told = dataclasses.replace(told, temperature=settings.temperature or told.temperature)
        ours = SCRIPTS[run.script].model(told, run.shape)
        classes = getattr(told, "classes", 0)
        labels = lambda num, first: (first + jax.numpy.arange(num)) % classes if classes else None
        seen = functools.partial(raster.visible, told) if pixelwise else (lambda images: images)
        return (lambda k, p, num, first: seen(ours.sample(k, p, num, labels(num, first)))), ours.init
    told = run.settings
    if settings.guidance >= 0:
        told = dataclasses.replace(told, guidance=settings.guidance)
        if found := [problem for problem in told.problems() if problem.startswith("guidance")]:
            raise config.UsageError("\n".join(found))
    model = ddpm.model(
        told, run.shape, _chain(dataclasses.replace(settings, sampler=settings.sampler or "ancestral"), told)
    )
    of = lambda num, first: (first + jax.numpy.arange(num)) % told.classes if told.classes else None
    return (lambda keys, params, num, first: model.sample(keys, params, num, None, of(num, first))), model.init


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


def _chain(settings: Sample, run: ddpm.Config):
    """``(denoise, schedule) -> sample``, as the flags say."""
    _check_eta(settings)
    errors = _errors(settings, run)
    if settings.spacing == "best" and errors is None:
        raise config.UsageError("spacing: best wants --terms FILE, which train.evaluate --out FILE writes")
    if settings.terms and settings.sampler != "ancestral" and settings.spacing != "best":
        raise config.UsageError(f"terms: ancestral and --spacing best read them; {settings.sampler} does not")

    def ancestral(denoise: diffusion.Denoise, schedule: diffusion.Schedule, at: Any = slice(None)) -> diffusion.Sample:
        if errors is None:
            return diffusion.ancestral(denoise, schedule, variance=ddpm.variance(run))
        table = likelihood.optimal_variance(schedule, squared_error=errors[at])
        return diffusion.ancestral(denoise, schedule, variance=table)

    if settings.sampler == "ancestral" and not settings.steps:
        return ancestral
    count = settings.steps or min(50, run.timesteps)
    if not count <= run.timesteps:
        raise config.UsageError(f"steps: expected 1 to {run.timesteps}, the steps of the run's process; got {count}")
    if settings.sampler == "pndm":
        if settings.spacing == "karras" or settings.spacing == "best":
            raise config.UsageError("spacing: pndm wants even steps; expected trailing, leading or linspace")
        return functools.partial(diffusion.pndm, num_steps=count, spacing=settings.spacing or "trailing")

    def sampler(denoise: diffusion.Denoise, schedule: diffusion.Schedule) -> diffusion.Sample:
        if settings.spacing == "karras":
            times = diffusion.karras_times(schedule, count)
        elif settings.spacing == "best":
            assert errors is not None
            times = likelihood.sub_schedule(schedule, errors, count)
        else:
            times = diffusion.timesteps(schedule.num_steps, count, settings.spacing or "trailing")
        if settings.sampler == "ancestral":
            return ancestral(*diffusion.respace(denoise, schedule, times), times[::-1])
        return _on_grid(settings)(denoise, diffusion.on_times(schedule, times))

    return sampler


def _errors(settings: Sample, run: ddpm.Config) -> np.ndarray | None:
    """E|x_0 - x̂_0|² of a dimension at each time, as ``terms`` has it."""
    if not settings.terms:
        return None
    path = pathlib.Path(settings.terms)
    try:
        found = np.asarray(json.loads(path.read_text(encoding="utf-8"))["by_time"]["squared_error"], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise config.UsageError(
            f"terms: {path} is not what train.evaluate --out writes of train.ddpm: {error}"
        ) from error
    if found.shape != (run.timesteps,):
        raise config.UsageError(f"terms: {path} is of {len(found)} times; {settings.workdir} has {run.timesteps}")
    return found


def _on_grid(settings: Sample) -> vdm.Chain:
    """``(denoise, grid) -> sample``, as the flags say."""
    _check_eta(settings)
    chains: dict[str, vdm.Chain] = {
        "ancestral": functools.partial(diffusion.implicit, eta=1.0),
        "ddim": functools.partial(diffusion.implicit, eta=settings.eta),
        "euler": diffusion.implicit,
        "heun": diffusion.heun,
        "dpm_solver": diffusion.dpm_solver,
        "dpm_solver_sde": diffusion.dpm_solver_sde,
    }
    if settings.sampler not in chains:
        raise config.UsageError(f"sampler: {settings.sampler} wants a process of T steps; expected {', '.join(chains)}")
    return chains[settings.sampler]


def _check_eta(settings: Sample) -> None:
    if settings.eta and settings.sampler != "ddim":
        raise config.UsageError(f"eta: expected 0 with --sampler {settings.sampler}; only ddim takes noise from it")
    if not 0 <= settings.eta <= 1:
        raise config.UsageError(f"eta: expected 0 to 1, got {settings.eta}")


if __name__ == "__main__":
    runtime.main(main)
