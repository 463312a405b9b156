"""Train a denoising diffusion model: ``python -m train.ddpm --config digits``."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from genjax import data, diffusion
from genjax.models import ddpm, loss_aware
from genjax.nn import diffusers_unet, unet
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.UNetRun):
    """Train a denoising diffusion probabilistic model (Ho et al. 2020)."""

    timesteps: int = 1000
    """T, the steps of the diffusion process."""
    beta_schedule: Literal["linear", "cosine", "sigmoid"] = "linear"
    """How the variance grows: linear (Ho et al. 2020), cosine (Nichol & Dhariwal 2021) or sigmoid (Chen 2023)."""
    beta_start: float = 1e-4
    """β at time 0, of the linear schedule."""
    beta_end: float = 0.02
    """β at time T - 1, of the linear schedule."""
    rescale_zero_terminal_snr: bool = False
    """Stretch the schedule until nothing of the image is left at its end (Lin et al. 2024); use --prediction-type v
    or x0."""
    prediction_type: Literal["noise", "x0", "v"] = "noise"
    """What the network says."""
    loss: Literal["l1", "l2", "huber"] = "l2"
    """Distance of what is predicted and its truth: l1 in the notes, l2 in the paper."""
    weighting: Literal["simple", "min_snr", "vlb"] = "simple"
    """Of the times: all alike (Ho et al. 2020), no more than 5 times the signal-to-noise ratio (Hang et al. 2023), or
    as in the variational bound."""
    timestep_sampling: Literal["uniform", "stratified", "loss_aware"] = "uniform"
    """How a step picks its times: independently, spread evenly over the batch (Kingma et al. 2021), or in proportion to
    the loss (Nichol & Dhariwal 2021)."""

    network: Literal["unet", "simple", "diffusers"] = "unet"
    """The U-Net of Ho et al. 2020; the notes' SimpleUNet, which reads width and channel_mults alone of the sizes; or
    the U-Net that --unet-config describes, which reads none."""
    unet_config: str = ""
    """The config.json of a UNet2DModel of diffusers, as text; diffusers only."""
    num_classes: int = 0
    """Tell the network the label, one of so many classes; 0 makes a model without labels; unet only."""
    p_uncond: float = 0.1
    """Share of the labels that are hidden in training, so that guidance has a model without them."""
    guidance_scale: float = 1.0
    """How much the label counts when images are drawn: 0 not at all, 1 as in the data, more for purer images of it,
    below 0 for images of anything else."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation; simple only. With batch, as in the notes, an image depends on the others of its batch."""

    variance: Literal["small", "large", "learned"] = "small"
    """Of the reverse steps: small is β̃_t, large is β_t; learned lies between, as the network says (Nichol & Dhariwal
    2021), and adds a thousandth of the variational bound to the loss."""

    x0_range: float = 1.0
    """Largest size of a number of x̂_0 in the reverse chain, to which it is clipped; 0 does not clip."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "beta_start": conditions.needs(beta_schedule="linear"),
        "beta_end": conditions.needs(beta_schedule="linear"),
        "loss": conditions.needs(weighting=("simple", "min_snr")),
        "width": conditions.needs(network=("unet", "simple")),
        "channel_mults": conditions.needs(network=("unet", "simple")),
        "num_res_blocks": conditions.needs(network="unet"),
        "attention_resolutions": conditions.needs(network="unet") + networks.OCCURS,
        "dropout": conditions.needs(network="unet"),
        "fourier": conditions.needs(network="unet"),
        "num_classes": conditions.needs(network="unet"),
        "norm": conditions.needs(network="simple"),
        "unet_config": conditions.needs(network="diffusers"),
        "p_uncond": conditions.needs(num_classes=True),
        "guidance_scale": conditions.needs(num_classes=True),
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems()
        if not (math.isfinite(self.x0_range) and self.x0_range >= 0):
            found.append(f"x0_range: expected 0 (no clipping) or a positive number, got {self.x0_range}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            found.append(
                f"beta_start, beta_end: expected 0 < start <= end < 1, got {self.beta_start} and {self.beta_end}"
            )
        if self.rescale_zero_terminal_snr and self.prediction_type == "noise":
            found.append(
                "rescale_zero_terminal_snr: the last x_t is noise alone and tells nothing; use --prediction-type v"
            )
        if self.rescale_zero_terminal_snr and self.weighting == "vlb":
            found.append("rescale_zero_terminal_snr: the last step has no bound; use --weighting simple or min_snr")
        if self.num_classes and self.network != "unet":
            found.append(f"num_classes: the network {self.network} takes no labels; use --network unet")
        if bool(self.unet_config) != (self.network == "diffusers"):
            found.append("unet_config: expected with --network diffusers, and only there")
        if not self.num_classes and self.guidance_scale != 1:
            found.append("guidance_scale: expected a model conditional on labels; give --num-classes, or leave it at 1")
        if not 0 <= self.p_uncond <= 1:
            found.append(f"p_uncond: expected 0 to 1, got {self.p_uncond}")
        return found + config.at_least(self, {"timesteps": 1, "num_classes": 0})


Sampler = Callable[..., diffusion.Sample]


def model(settings: Config, shape: tuple[int, int, int], sampler: Sampler | None = None) -> ddpm.DDPM:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    if settings.network != "diffusers":
        networks.check_halvings("--channel-mults", len(settings.channel_mults) - 1, shape)
    times, learned = schedule(settings), settings.variance == "learned"
    read = {"noise": diffusion.from_noise, "x0": diffusion.from_x0, "v": diffusion.from_v}[settings.prediction_type]
    ours = ddpm.build(
        network(settings, shape[-1] * (2 if learned else 1), shape[0]),
        times,
        shape,
        objective=_objective(settings, times),
        to_prediction=diffusion.with_learned_variance(read) if learned else read,
        sampler=sampler or functools.partial(diffusion.ancestral, variance=variance(settings), clip=clip(settings)),
        num_classes=settings.num_classes,
        p_uncond=settings.p_uncond if settings.num_classes else 0.0,
        guide=None
        if not settings.num_classes or settings.guidance_scale == 1
        else functools.partial(
            diffusion.classifier_free_batched,
            guidance_scale=settings.guidance_scale,
            channels=shape[-1] if learned else None,
        ),
    )
    return loss_aware.build(ours, settings.timesteps) if settings.timestep_sampling == "loss_aware" else ours


def variance(settings: Config) -> Literal["small", "large"]:
    """Of the reverse steps, where the network does not say it."""
    return "large" if settings.variance == "large" else "small"


def clip(settings: Config) -> bool | Callable[[jax.Array], jax.Array]:
    """How the reverse chain clips x̂_0, as samplers take it."""
    reach = settings.x0_range
    return reach == 1 if reach in (0, 1) else lambda x0: jnp.clip(x0, -reach, reach)


def _objective(settings: Config, times: diffusion.Schedule) -> diffusion.Objective:
    if settings.weighting == "vlb":
        return diffusion.vlb(variance(settings))
    distance = {"l1": ddpm.l1, "l2": ddpm.l2, "huber": ddpm.huber}[settings.loss]
    weights = diffusion.min_snr(times, settings.prediction_type) if settings.weighting == "min_snr" else None
    first = diffusion.simple(distance, settings.prediction_type, weights)
    return diffusion.hybrid(first) if settings.variance == "learned" else first


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    if (
        settings.network == "simple"
        and settings.norm == "batch"
        and len(process.devices(settings.devices, settings.batch_size)) > 1
    ):
        raise ValueError(
            "norm batch: each device would normalise over its own share of the batch; use --devices 1 or --norm group"
        )
    ours = model(settings, shape)

    def loss(key: Key, params: Params, batch: Batch):
        loss_keys, images = sources.training_images(settings, key, batch)
        return ours.loss(loss_keys, params, {**batch, "image": images})

    def evaluate(key: Key, params: Params, batch: Batch):
        return ours.loss(key, params, {**batch, "image": data.scale(batch["image"])})

    adam, learning_rate = optimizers.adam(settings)
    rows = steps.rows(settings.batch_size, axis_name=parallel.AXIS)
    stratified = steps.with_stratified_times(rows, "time", axis_name=parallel.AXIS)
    return Task(
        init=ours.init,
        optimizer=ours.optimizer(adam),
        learning_rate=learning_rate,
        sample_batch=stratified if settings.timestep_sampling == "stratified" else rows,
        loss=loss,
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        check=functools.partial(_check, settings),
    )


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_labels(settings.num_classes, dataset)
    if settings.network == "unet":
        networks.tell_attention(settings, dataset)


def _figures(settings: Config, ours: ddpm.DDPM):
    stages = plots.stages(settings.timesteps)
    key = jax.random.key(settings.seed)
    num = settings.num_samples
    labels = jnp.arange(num) % settings.num_classes if settings.num_classes else None
    draw = jax.jit(lambda params: ours.sample(key, params, num, stages, labels))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        plots.chain(folder, step, *draw(params))
        if not (folder / "forward.png").exists():
            plots.save(folder / "forward.png", plots.strip(_noising(settings, dataset, stages)))

    return write_figures


def _noising(settings: Config, dataset: data.Dataset, stages: Sequence[int]) -> np.ndarray:
    """Real images after those numbers of noising steps: uint8[stages b h w c]."""
    images = data.scale(jnp.asarray(dataset.train["image"][:4]))
    noise = jax.random.normal(jax.random.key(settings.seed), images.shape)
    frames = [images if s == 0 else diffusion.diffuse(schedule(settings), images, s - 1, noise) for s in stages]
    return np.stack([np.asarray(data.to_uint8(frame)) for frame in frames])


def schedule(settings: Config) -> diffusion.Schedule:
    """The schedule that the settings describe."""
    plain = {
        "linear": lambda: diffusion.linear_schedule(settings.timesteps, settings.beta_start, settings.beta_end),
        "cosine": lambda: diffusion.cosine_schedule(settings.timesteps),
        "sigmoid": lambda: diffusion.sigmoid_schedule(settings.timesteps),
    }[settings.beta_schedule]()
    return diffusion.rescale_zero_terminal_snr(plain) if settings.rescale_zero_terminal_snr else plain


def network(settings: Config, channels: int, height: int) -> nn.Module:
    """The network that the settings describe, for images of that height, which puts out so many channels."""
    dtype = jnp.bfloat16 if settings.bfloat16 else None
    if settings.network == "diffusers":
        try:
            return diffusers_unet.network(json.loads(settings.unet_config)).clone(dtype=dtype)
        except (ValueError, TypeError) as error:
            raise config.UsageError(f"unet_config: {error}") from error
    if settings.network == "simple":
        widths = tuple(settings.width * multiplier for multiplier in settings.channel_mults)
        return unet.SimpleUNet(channels=widths, image_channels=channels, norm=settings.norm, dtype=dtype)
    return networks.unet_of(settings, channels, height, num_classes=settings.num_classes)


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("ddpm", config.parse(Config, "ddpm", argv), build)


if __name__ == "__main__":
    process.main(main)
