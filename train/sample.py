"""Draw from a trained run: ``python -m train.sample --workdir runs/ddpm-digits --num 64 --seed 0 --out grid.png``."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from genjax import diffusion, random
from genjax.diffusion import likelihood
from train import ddpm, edm, gan, pixelcnn, pixelrnn, vae, vdm
from train.run import autoregressive, codes, conditions, config, documents, files, load, logging, plots, process, usage

CHAINS = conditions.of_runs("ddpm", "vdm", "edm")


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
    guidance_scale: float | None = None
    """How much the label counts, of a train.ddpm with classes: 0 not at all, 1 as in the data, more for purer images of
    it, below 0 for images of anything else. Default: the run's."""
    temperature: float | None = None
    """Of pixelcnn and pixelrnn: below 1 images are more typical and less varied. Default: the run's."""
    batch_size: int = 64
    """Images at a time."""
    columns: int = 0
    """Of the grid; 0 makes it square."""
    traceback: bool = False
    """Show where in the code an error arose."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "sampler": CHAINS,
        "steps": CHAINS,
        "eta": CHAINS + conditions.needs(sampler="ddim"),
        "spacing": (
            *conditions.of_runs("ddpm"),
            conditions.Condition(
                lambda asked: bool(asked.steps) or asked.sampler not in ("", "ancestral"),
                "with --steps, or with a --sampler other than ancestral",
            ),
        ),
        "terms": (
            *conditions.of_runs("ddpm"),
            conditions.Condition(
                lambda asked: asked.spacing == "best" or asked.sampler in ("", "ancestral"),
                "with --sampler ancestral or --spacing best",
            ),
            conditions.Condition(
                lambda asked: asked.spacing == "best" or asked.variance != "learned",
                "of a run whose network does not say the variances itself, or with --spacing best",
            ),
        ),
        "guidance_scale": (
            *conditions.of_runs("ddpm"),
            conditions.Condition(lambda asked: bool(asked.num_classes), "of a run that was trained with --num-classes"),
        ),
        "temperature": conditions.of_runs("pixelcnn", "pixelrnn"),
        "columns": (
            conditions.Condition(lambda asked: not asked.out.lower().endswith(".npz"), "with --out of a .png"),
        ),
    }


SCRIPTS = {"ddpm": ddpm, "vdm": vdm, "edm": edm, "vae": vae, "pixelcnn": pixelcnn, "pixelrnn": pixelrnn, "gan": gan}


def draw(settings: Sample, typed: Collection[str] = ()) -> np.ndarray:
    """The images, uint8 [num h w c].

    Args:
      settings: what to draw; one that the run does not read is refused where it is not the default.
      typed: those that are refused even so.

    Raises:
      UsageError: a value that cannot be, or a setting that the run does not read.
      CheckpointError: the workdir holds no run of this kind, or no usable checkpoint.
      NonFinite: the images are not finite.
    """
    lowest = {"num": 1, "member": 0, "batch_size": 1, "seed": 0, "columns": 0, "steps": 0}
    problems = usage.extremes(settings) + config.at_least(settings, lowest)
    if not 0 <= settings.eta <= 1:
        problems.append(f"eta: expected 0 to 1, got {settings.eta}")
    if problems:
        raise config.UsageError("\n".join(problems))
    run = load.record(pathlib.Path(settings.workdir), SCRIPTS, settings.member)
    if run.shape[-1] not in (1, 3):
        raise config.UsageError(f"{run.workdir} draws points of {run.shape[-1]} numbers, not images; see its samples/")
    usage.refuse_idle(settings, run, typed)
    if run.script.startswith("pixel"):
        codes.check(run)
    with usage.of_library():
        sample, init = _sampler(settings, run)
        params = load.params(run, init, settings.checkpoint)
        size = min(settings.batch_size, settings.num)
        key = jax.random.key(settings.seed)
        batch = jax.jit(lambda first: sample(random.example_keys(key, size, first), params, size, first))
        drawn = f"{settings.workdir}, {settings.sampler or 'its own sampler'}"
        parts = [plots.to_uint8(batch(first), drawn) for first in range(0, settings.num, size)]
    return np.concatenate(parts)[: settings.num]


def _sampler(settings: Sample, run: load.Record):
    """``(keys, params, num, first) -> images``, and the model's ``init``."""
    if run.script in ("vdm", "edm"):
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
            told = _told(settings, told, "temperature")
        ours = SCRIPTS[run.script].model(told, run.shape)
        classes = getattr(told, "num_classes", 0)
        labels = lambda num, first: (first + jnp.arange(num)) % classes if classes else None
        seen = functools.partial(autoregressive.visible, told) if pixelwise else (lambda images: images)
        return (lambda k, p, num, first: seen(ours.sample(k, p, num, labels(num, first)))), ours.init
    told = _told(settings, run.settings, "guidance_scale")
    model = ddpm.model(
        told, run.shape, _chain(dataclasses.replace(settings, sampler=settings.sampler or "ancestral"), told)
    )
    of = lambda num, first: (first + jnp.arange(num)) % told.num_classes if told.num_classes else None
    return (lambda keys, params, num, first: model.sample(keys, params, num, None, of(num, first))), model.init


def _told(settings: Sample, run: Any, name: str) -> Any:
    """The settings of the run, with the value of this name where one was asked for."""
    if (value := getattr(settings, name)) is None:
        return run
    told = dataclasses.replace(run, **{name: value})
    if found := [problem for problem in told.problems() if problem.startswith(f"{name}:")]:
        raise config.UsageError("\n".join(found))
    return told


def main(argv: Sequence[str]) -> None:
    """Draw as the command line says, and write the picture or the arrays."""
    settings, typed = config.command(Sample, "sample", argv)
    out = load.check_output(settings, (".png", ".npz"))
    images = draw(settings, typed)
    with documents.writing(out):
        if out.suffix == ".npz":
            content = io.BytesIO()
            np.savez_compressed(content, images=images)
            files.replace(out, content.getvalue())
        else:
            columns = settings.columns or -(-len(images) // max(1, round(len(images) ** 0.5)))
            plots.save(out, plots.tile(images, columns))
    logging.log(f"{len(images)} images in {settings.out}")


def _chain(settings: Sample, run: ddpm.Config):
    """``(denoise, schedule) -> sample``, as the flags say."""
    errors = _errors(settings, run)
    if settings.spacing == "best" and errors is None:
        raise config.UsageError("spacing: best wants --terms FILE, which train.evaluate --out FILE writes")

    def ancestral(denoise: diffusion.Denoise, schedule: diffusion.Schedule, at: Any = slice(None)) -> diffusion.Sample:
        if errors is None:
            return diffusion.ancestral(denoise, schedule, variance=ddpm.variance(run), clip=ddpm.clip(run))
        table = likelihood.optimal_variance(schedule, squared_error=errors[at])
        return diffusion.ancestral(denoise, schedule, variance=table, clip=ddpm.clip(run))

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
            times = likelihood.optimal_timesteps(schedule, errors, count)
        else:
            times = diffusion.timesteps(schedule.num_steps, count, settings.spacing or "trailing")
        if settings.sampler == "ancestral":
            return ancestral(*diffusion.respace(denoise, schedule, times), times[::-1])
        return _on_grid(settings, ddpm.clip(run))(denoise, diffusion.on_times(schedule, times))

    return sampler


def _errors(settings: Sample, run: ddpm.Config) -> np.ndarray | None:
    """E|x_0 - x̂_0|² of a dimension at each time, as ``terms`` has it."""
    if not settings.terms:
        return None
    path = pathlib.Path(settings.terms)
    what = f"terms: {path} is not what train.evaluate --out writes of train.ddpm"
    try:
        by_time = documents.json_object(path).get("by_time")
        values = by_time.get("squared_error") if isinstance(by_time, dict) else None
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            raise ValueError(f"by_time.squared_error: expected a list of numbers, got {usage.show(values)}")
        found = np.array(values, np.float64)
        if not (np.isfinite(found) & (found >= 0)).all():
            raise ValueError("by_time.squared_error: expected finite numbers of at least 0")
    except (ValueError, OverflowError) as error:
        raise config.UsageError(f"{what}: {error}") from error
    if found.shape != (run.timesteps,):
        raise config.UsageError(f"terms: {path} is of {len(found)} times; {settings.workdir} has {run.timesteps}")
    return found


def _on_grid(settings: Sample, clip: Any = True) -> vdm.Chain:
    """``(denoise, grid) -> sample``, as the flags say."""
    chains: dict[str, Callable[..., diffusion.Sample]] = {
        "ancestral": functools.partial(diffusion.ddim_on_grid, eta=1.0),
        "ddim": functools.partial(diffusion.ddim_on_grid, eta=settings.eta),
        "euler": diffusion.ddim_on_grid,
        "heun": diffusion.heun,
        "dpm_solver": diffusion.dpm_solver,
        "dpm_solver_sde": diffusion.dpm_solver_sde,
    }
    if settings.sampler not in chains:
        raise config.UsageError(f"sampler: {settings.sampler} wants a process of T steps; expected {', '.join(chains)}")
    return functools.partial(chains[settings.sampler], clip=clip)


if __name__ == "__main__":
    process.main(main)
