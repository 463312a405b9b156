"""Train the diffusion model of Karras et al. 2022: ``python -m train.edm --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from genjax import data, diffusion
from genjax.models import edm
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.UNetRun):
    """Train a diffusion model that is told σ (Karras et al. 2022)."""

    sigma_data: float = 0.5
    """Standard deviation of the pixels in [-1, 1]: what the network sees and says is scaled by it."""
    p_mean: float = -1.2
    """Of log σ in training."""
    p_std: float = 1.2
    """Standard deviation of log σ in training."""

    timesteps: int = 18
    """Steps of the chain that draws: Heun's method, two evaluations a step."""
    sigma_min: float = 0.002
    """σ where the chain ends, before its step to none."""
    sigma_max: float = 80.0
    """σ where it begins."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"attention_resolutions": networks.OCCURS}

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(self, {"timesteps": 1})
        if not self.sigma_data > 0 or not self.p_std > 0:
            found.append(f"sigma_data, p_std: expected positive numbers, got {self.sigma_data} and {self.p_std}")
        if not 0 < self.sigma_min < self.sigma_max:
            found.append(f"sigma_min, sigma_max: expected 0 < min < max, got {self.sigma_min} and {self.sigma_max}")
        return found


Chain = Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample]


def grid(settings: Config, num_steps: int = 0) -> diffusion.Grid:
    """The σ that a chain of so many steps visits, by default as many as the settings say."""
    return diffusion.karras(num_steps or settings.timesteps, settings.sigma_min, settings.sigma_max)


def model(
    settings: Config, shape: tuple[int, int, int], sampler: Chain = diffusion.heun, num_steps: int = 0
) -> edm.EDM:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    networks.check_halvings("--channel-mults", len(settings.channel_mults) - 1, shape)
    return edm.build(
        networks.unet_of(settings, shape[-1], shape[0]),
        shape,
        sigma_data=settings.sigma_data,
        p_mean=settings.p_mean,
        p_std=settings.p_std,
        grid=grid(settings, num_steps),
        sampler=sampler,
    )


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)

    def loss(key: Key, params: Params, batch: Batch):
        loss_keys, images = sources.training_images(settings, key, batch)
        return ours.loss(loss_keys, params, {**batch, "image": images})

    def evaluate(key: Key, params: Params, batch: Batch):
        return ours.loss(key, params, {**batch, "image": data.scale(batch["image"])})

    rows = steps.rows(settings.batch_size, axis_name=parallel.AXIS)
    optimizer, learning_rate = optimizers.adam(settings)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=steps.with_stratified_times(rows, "time", axis_name=parallel.AXIS),
        loss=loss,
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        check=functools.partial(networks.tell_attention, settings),
    )


def _figures(settings: Config, ours: edm.EDM):
    stages = plots.stages(settings.timesteps)
    key, num = jax.random.key(settings.seed), settings.num_samples
    size = jnp.sqrt(1 + grid(settings).sigma[stages] ** 2)[:, None, None, None, None]  # of x, about

    @jax.jit
    def draw(params: Params) -> tuple[jax.Array, jax.Array]:
        images, frames = ours.sample(key, params, num, stages)
        return images, frames / size

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        plots.chain(folder, step, *draw(params))

    return write_figures


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("edm", config.parse(Config, "edm", argv), build)


if __name__ == "__main__":
    process.main(main)
