"""Train a variational diffusion model: ``python -m train.vdm --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import data, diffusion
from genjax.models import vdm
from genjax.theory import pixels
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.UNetRun):
    """Train a variational diffusion model, for likelihood (Kingma et al. 2021)."""

    levels: int = 256
    """How many values a pixel can take."""
    gamma_schedule: Literal["learned", "line"] = "learned"
    """γ(t) = -log SNR between its two learned ends: learned for the least variance of the loss, or a line."""
    gamma_min: float = -13.3
    """γ(0) before training: how little noise there is at the beginning."""
    gamma_max: float = 5.0
    """γ(1) before training: how little of the image is left at the end."""

    fourier: tuple[int, ...] = (7, 8)
    """Show the network sin(2^n π x_t) and cos(2^n π x_t) for these n as well."""
    timesteps: int = 250
    """Steps of the chain that draws."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {"attention_resolutions": networks.OCCURS}

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(self, {"levels": 2, "timesteps": 1})
        if not self.gamma_min < self.gamma_max:
            found.append(f"gamma_min, gamma_max: expected min < max, got {self.gamma_min} and {self.gamma_max}")
        return found


class Line(nn.Module):
    """γ(t), t in [0, 1]: a line between two learned ends."""

    first: float
    last: float

    @nn.compact
    def __call__(self, t: vdm.Times) -> vdm.Times:
        """γ at times [b]."""
        ends = [self.param(name, nn.initializers.constant(getattr(self, name)), ()) for name in ("first", "last")]
        return ends[0] + (ends[1] - ends[0]) * t


Chain = Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample]


def model(settings: Config, shape: tuple[int, int, int], sampler: Chain | None = None, num_steps: int = 0) -> vdm.VDM:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    networks.check_halvings("--channel-mults", len(settings.channel_mults) - 1, shape)
    shapes = {"learned": vdm.NoiseSchedule, "line": Line}
    return vdm.build(
        networks.unet_of(settings, shape[-1], shape[0]),
        shape,
        schedule=shapes[settings.gamma_schedule](settings.gamma_min, settings.gamma_max),
        num_levels=settings.levels,
        sampler=sampler,
        num_steps=num_steps or settings.timesteps,
    )


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)

    def loss(key: Key, params: Params, batch: Batch):
        loss_keys, images = sources.training_images(settings, key, batch)
        return ours.loss(loss_keys, params, {**batch, "image": images})

    def evaluate(key: Key, params: Params, batch: Batch):
        nats = ours.losses(key, params, {**batch, "image": data.scale(batch["image"])})
        bits = {name: pixels.bits_per_dim(value.mean(), shape) for name, value in nats._asdict().items()}
        return sum(bits.values()), bits

    optimizer, learning_rate = optimizers.adam(settings)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=steps.with_stratified_times(
            steps.rows(settings.batch_size, axis_name=parallel.AXIS), "time", axis_name=parallel.AXIS
        ),
        loss=loss,
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        check=functools.partial(networks.tell_attention, settings),
    )


def _figures(settings: Config, ours: vdm.VDM):
    stages = plots.stages(settings.timesteps)
    key, num = jax.random.key(settings.seed), settings.num_samples
    draw = jax.jit(lambda params: ours.sample(key, params, num, stages))
    times = np.linspace(0, 1, 101, dtype=np.float32)
    gamma = jax.jit(lambda params: ours.gamma(params, jnp.asarray(times)))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        plots.chain(folder, step, *draw(params))
        with plots.figure(folder / "schedule.png", size=(5.2, 3.6)) as ((panel,),):
            panel.plot(times, -np.asarray(gamma(params)))
            panel.set(xlabel="t", ylabel="log signal-to-noise ratio", title="The learned schedule")

    return write_figures


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("vdm", config.parse(Config, "vdm", argv), build)


if __name__ == "__main__":
    process.main(main)
