"""Train the diffusion model of Karras et al. 2022: ``python -m train.edm --config digits``."""

import dataclasses
import functools
import pathlib
from typing import ClassVar

import jax
import jax.numpy as jnp

from genjax import data, diffusion
from genjax.models import edm
from genjax.training import parallel, steps
from genjax.types import Params
from train.run import chains, command, conditions, config, images, likelihoods, networks, process, sheets
from train.run.recipe import Recipe, SampleOptions, Sampler, Score, ScoreOptions, Shape
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.UNetRun):
    """Train a diffusion model with preconditioning by σ (Karras et al. 2022)."""

    sigma_data: float = 0.5
    """Standard deviation of the pixels in [-1, 1], by which inputs and outputs of the network are scaled."""
    p_mean: float = -1.2
    """Mean of log σ in training."""
    p_std: float = 1.2
    """Standard deviation of log σ in training."""

    timesteps: int = 18
    """Number of steps of the chain that draws: Heun's method, two evaluations of the network a step."""
    sigma_min: float = 0.002
    """σ at the end of the chain, before its last step to 0."""
    sigma_max: float = 80.0
    """σ at the beginning of the chain."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"attention_resolutions": networks.ATTENTION_OCCURS}

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(self, {"timesteps": 1})
        if not self.sigma_data > 0 or not self.p_std > 0:
            problems.append(f"sigma_data, p_std: expected positive numbers, got {self.sigma_data} and {self.p_std}")
        if not 0 < self.sigma_min < self.sigma_max:
            problems.append(f"sigma_min, sigma_max: expected 0 < min < max, got {self.sigma_min} and {self.sigma_max}")
        return problems


def grid(settings: Config, num_steps: int = 0) -> diffusion.Grid:
    """Make the grid of σ that a chain of this many steps visits; 0 takes as many steps as the settings say."""
    return diffusion.karras(num_steps or settings.timesteps, settings.sigma_min, settings.sigma_max)


def model(settings: Config, shape: Shape, sampler: chains.Chain = diffusion.heun, num_steps: int = 0) -> edm.EDM:
    """Make the model of the settings for images of a shape (h, w, c), with a sampler and its number of steps."""
    networks.check_halvings("--channel-mults", len(settings.channel_mults) - 1, shape)
    return edm.build(
        networks.make_unet(settings, shape[-1], shape[0]),
        shape,
        sigma_data=settings.sigma_data,
        p_mean=settings.p_mean,
        p_std=settings.p_std,
        grid=grid(settings, num_steps),
        sampler=sampler,
    )


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)
    task = images.task(settings, trained, _figures(settings, trained))
    return task._replace(
        sample_batch=steps.with_stratified_times(task.sample_batch, "time", axis_name=parallel.AXIS),
        check=functools.partial(networks.report_attention, settings),
    )


def _figures(settings: Config, trained: edm.EDM) -> images.Figures:
    stages = sheets.stages(settings.timesteps)
    key, num = jax.random.key(settings.seed), settings.num_samples
    size = jnp.sqrt(1 + grid(settings).sigma[stages] ** 2)[:, None, None, None, None]  # of x, about

    @jax.jit
    def draw(params: Params) -> tuple[jax.Array, jax.Array]:
        drawn, frames = trained.sample(key, params, num, stages)
        return drawn, frames / size

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_chain(folder, step, *draw(params))

    return write_figures


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    return chains.sampler(options, "heun", settings.timesteps, functools.partial(model, settings, shape))


def score(options: ScoreOptions, settings: Config, shape: Shape) -> Score:
    """Make the score for ``train.evaluate``: the bound of a process of ``times`` steps, σ spaced as in the chain."""
    trained, chain = model(settings, shape), grid(settings, options.times)
    values = likelihoods.of_steps(
        options,
        settings,
        lambda params, labels: diffusion.variance_preserving(trained.denoise(params), chain),
        "small",
    )
    return Score(trained.init, values, f"{likelihoods.num_levels(options, settings)} levels")


RECIPE = Recipe(
    "edm",
    Config,
    model,
    build,
    sampler=sampler,
    sampler_options=chains.OPTIONS,
    score=score,
    score_options={"times": (), "levels": (), "flow": ()},
)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
