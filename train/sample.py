"""Draw from a trained run: ``python -m train.sample --workdir runs/ddpm-digits --num 64 --seed 0 --out grid.png``."""

import dataclasses
import io
import pathlib
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal

import jax
import numpy as np

from genjax import random
from train.run import conditions, config, documents, files, load, logging, process, recipe, sheets, usage


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw images from a trained run of any model that draws images. Image i depends on the run, the seed and i only.
    An option that the run does not read is refused."""

    workdir: str
    """Folder of the run."""
    out: str = "samples.png"
    """File to write: a .png gets a grid of the images, a .npz the images as uint8 [num h w c]."""
    num: int = 64
    """Number of images."""
    seed: int = 0
    """Seed of the noise."""
    member: int = 0
    """Index of the model in a run that trained several."""
    checkpoint: Literal["latest", "best"] = "latest"
    """The last checkpoint, or the one with the lowest held-out loss."""
    recipe: str = ""
    """Module or .py file with the RECIPE that trained the run, for a model from outside of train."""
    sampler: Literal["", "ancestral", "ddim", "euler", "heun", "dpm_solver", "dpm_solver_sde", "pndm"] = ""
    """Reverse chain of a diffusion model: by default ancestral, and heun of train.edm. heun evaluates the network twice
    a step, pndm 9 times more often than there are steps."""
    steps: int = 0
    """Number of steps of the reverse chain; 0 takes all T of the default sampler, or 50 of another. Runs of train.vdm
    and train.edm may take more than they were trained with."""
    eta: float = 0.0
    """Noise of ddim: 0 is deterministic and the same as euler, 1 as noisy as ancestral."""
    spacing: Literal["", "trailing", "leading", "linspace", "karras", "best"] = ""
    """Times that a short chain visits: trailing by default, which begins at noise whatever the steps; karras spaces the
    noise as Karras et al. 2022 do; best minimises the variational bound (Watson et al. 2021) and needs --terms."""
    terms: str = ""
    """The JSON that train.evaluate wrote of this run: ancestral then takes the optimal variances (Bao et al. 2022)."""
    guidance_scale: float | None = None
    """Weight of the label in classifier-free guidance: 0 ignores it, 1 is the conditional model, more gives purer
    images of the class, and below 0 images of anything else. Default: as in training."""
    temperature: float | None = None
    """Temperature of train.pixelcnn and train.pixelrnn: below 1 images are more typical and less varied. Default: as in
    training."""
    batch_size: int = 64
    """Number of images that are drawn at a time."""
    columns: int = 0
    """Number of columns of the grid; 0 makes it square."""
    traceback: bool = False
    """Show where in the code an error arose."""

    BY_RECIPE: ClassVar[tuple[str, ...]] = (
        "sampler", "steps", "eta", "spacing", "terms", "guidance_scale", "temperature",
    )  # fmt: skip
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "columns": (
            conditions.Condition(lambda options: not options.out.lower().endswith(".npz"), "with --out of a .png"),
        )
    }


def draw(options: Sample, typed: Collection[str] = ()) -> np.ndarray:
    """Draw images, uint8 [num h w c].

    Args:
      options: options of the command; one that the run does not read is refused where it is not the default.
      typed: names of the options that are refused even where they are.

    Raises:
      UsageError: a value that cannot be, or an option that the run does not read.
      CheckpointError: the workdir holds no run of a model that draws images, or no usable checkpoint.
      NonFinite: the images are not finite.
    """
    _check(options)
    run = load.record(pathlib.Path(options.workdir), recipe.samples, options.member, options.recipe)
    if run.shape[-1] not in (1, 3):
        raise config.UsageError(f"{run.workdir} draws points of {run.shape[-1]} numbers, not images; see its samples/")
    load.refuse_unread(options, run, run.recipe.sampler_options, typed)
    run.recipe.source.check_run(run)
    make = run.recipe.sampler
    assert make is not None  # recipe.samples
    with usage.library_errors():
        sampler = make(options, run.settings, run.shape)
        params = load.params(run, sampler.init, options.checkpoint)
        size = min(options.batch_size, options.num)
        key = jax.random.key(options.seed)
        batch = jax.jit(lambda first: sampler.draw(random.example_keys(key, size, first), params, size, first))
        drawn = f"{options.workdir}, {options.sampler or 'its own sampler'}"
        parts = [sheets.to_uint8(batch(first), drawn) for first in range(0, options.num, size)]
    return np.concatenate(parts)[: options.num]


def _check(options: Sample) -> None:
    lowest = {"num": 1, "member": 0, "batch_size": 1, "seed": 0, "columns": 0, "steps": 0}
    problems = usage.extremes(options) + config.at_least(options, lowest)
    if not 0 <= options.eta <= 1:
        problems.append(f"eta: expected 0 to 1, got {options.eta}")
    if problems:
        raise config.UsageError("\n".join(problems))


def main(argv: Sequence[str]) -> None:
    """Draw as the command line says, and write the picture or the arrays."""
    options, typed = config.command(Sample, "sample", argv)
    out = load.check_output(options, (".png", ".npz"))
    images = draw(options, typed)
    with documents.writing(out):
        if out.suffix == ".npz":
            content = io.BytesIO()
            np.savez_compressed(content, images=images)
            files.replace(out, content.getvalue())
        else:
            columns = options.columns or -(-len(images) // max(1, round(len(images) ** 0.5)))
            sheets.save(out, sheets.tile(images, columns))
    logging.log(f"{len(images)} images in {options.out}")


if __name__ == "__main__":
    process.main(main)
