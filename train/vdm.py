"""Train a variational diffusion model: ``python -m train.vdm --config digits``."""

import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import data, random
from genjax.models import vdm
from genjax.theory import pixels
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Metrics, Params, Scalar
from train.run import chains, command, conditions, config, images, networks, plots, process, sheets
from train.run.recipe import Recipe, SampleOptions, Sampler, Score, ScoreOptions, Shape
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.UNetRun):
    """Train a variational diffusion model, for likelihood (Kingma et al. 2021)."""

    levels: int = 256
    """Number of values of a pixel."""
    gamma_schedule: Literal["learned", "line"] = "learned"
    """γ(t) = -log SNR between its two learned ends: learned for the least variance of the loss, or a line."""
    gamma_min: float = -13.3
    """γ(0) before training; the lower, the less noise there is at the beginning."""
    gamma_max: float = 5.0
    """γ(1) before training; the higher, the less of the image is left at the end."""

    fourier: tuple[int, ...] = (7, 8)
    """Give the network sin(2^n π x_t) and cos(2^n π x_t) for these n beside x_t."""
    timesteps: int = 250
    """Number of steps of the chain that draws."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"attention_resolutions": networks.ATTENTION_OCCURS}

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(self, {"levels": 2, "timesteps": 1})
        if not self.gamma_min < self.gamma_max:
            problems.append(f"gamma_min, gamma_max: expected min < max, got {self.gamma_min} and {self.gamma_max}")
        return problems


class Line(nn.Module):
    """Line γ(t) between two learned ends, for t in [0, 1].

    Attributes:
      first: γ(0) before training.
      last: γ(1) before training.
    """

    first: float
    last: float

    @nn.compact
    def __call__(self, t: vdm.Times) -> vdm.Times:
        """Evaluate γ at times [b]."""
        ends = [self.param(name, nn.initializers.constant(getattr(self, name)), ()) for name in ("first", "last")]
        return ends[0] + (ends[1] - ends[0]) * t


def model(settings: Config, shape: Shape, sampler: chains.Chain | None = None, num_steps: int = 0) -> vdm.VDM:
    """Make the model of the settings for images of a shape (h, w, c), with a sampler and its number of steps."""
    networks.check_halvings("--channel-mults", len(settings.channel_mults) - 1, shape)
    schedules = {"learned": vdm.NoiseSchedule, "line": Line}
    return vdm.build(
        networks.make_unet(settings, shape[-1], shape[0]),
        shape,
        schedule=schedules[settings.gamma_schedule](settings.gamma_min, settings.gamma_max),
        num_levels=settings.levels,
        sampler=sampler,
        num_steps=num_steps or settings.timesteps,
    )


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)

    def evaluate(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        nats = trained.losses(key, params, {**batch, "image": data.scale(batch["image"])})
        bits = {name: pixels.bits_per_dim(value.mean(), shape) for name, value in nats._asdict().items()}
        return sum(bits.values(), jnp.zeros(())), bits

    task = images.task(settings, trained, _figures(settings, trained))
    return task._replace(
        sample_batch=steps.with_stratified_times(task.sample_batch, "time", axis_name=parallel.AXIS),
        evaluate=evaluate,
        check=functools.partial(networks.report_attention, settings),
    )


def _figures(settings: Config, trained: vdm.VDM) -> images.Figures:
    stages = sheets.stages(settings.timesteps)
    key, num = jax.random.key(settings.seed), settings.num_samples
    draw = jax.jit(lambda params: trained.sample(key, params, num, stages))
    times = np.linspace(0, 1, 101, dtype=np.float32)
    gamma = jax.jit(lambda params: trained.gamma(params, jnp.asarray(times)))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_chain(folder, step, *draw(params))
        with plots.figure(folder / "schedule.png", size=(5.2, 3.6)) as ((panel,),):
            panel.plot(times, -np.asarray(gamma(params)))
            panel.set(xlabel="t", ylabel="log signal-to-noise ratio", title="The learned schedule")

    return write_figures


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    return chains.sampler(options, "ancestral", settings.timesteps, functools.partial(model, settings, shape))


def score(options: ScoreOptions, settings: Config, shape: Shape) -> Score:
    """Make the score for ``train.evaluate``: the bound, by ``times`` times of each image spread evenly over [0, 1)."""
    trained, num = model(settings, shape), options.times

    def values(params: Params, keys: Key, rows: Batch) -> dict[str, jax.Array]:
        shift_keys, draw_keys = random.split(keys, 2)
        shift, originals = jax.vmap(jax.random.uniform)(shift_keys), data.scale(rows["image"])

        def losses_at(i: jax.Array) -> vdm.VLBTerms:
            batch = {"image": originals, "time": ((i + shift) / num) % 1}
            return trained.losses(jax.vmap(lambda key: jax.random.fold_in(key, i))(draw_keys), params, batch)

        bound = jax.tree.map(lambda nats: -nats.mean(0), jax.lax.map(losses_at, jnp.arange(num)))
        row = {"prior": bound.prior, "steps": bound.diffusion, "decoder": bound.decoder}
        return {"vlb": bound.prior + bound.diffusion + bound.decoder, **row}

    return Score(trained.init, values, f"{settings.levels} levels")


RECIPE = Recipe(
    "vdm",
    Config,
    model,
    build,
    sampler=sampler,
    sampler_options=chains.OPTIONS,
    score=score,
    score_options={"times": ()},
)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
