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
from genjax.types import Images, Key, Params
from train.run import chains, command, conditions, config, images, likelihoods, networks, process, sheets
from train.run.recipe import Recipe, SampleOptions, Sampler, Score, ScoreOptions, Shape, override
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.UNetRun):
    """Train a denoising diffusion probabilistic model (Ho et al. 2020)."""

    timesteps: int = 1000
    """T, the number of steps of the diffusion process."""
    beta_schedule: Literal["linear", "cosine", "sigmoid"] = "linear"
    """Growth of the variance: linear (Ho et al. 2020), cosine (Nichol & Dhariwal 2021) or sigmoid (Chen 2023)."""
    beta_start: float = 1e-4
    """β of the linear schedule at time 0."""
    beta_end: float = 0.02
    """β of the linear schedule at time T - 1."""
    rescale_zero_terminal_snr: bool = False
    """Stretch the schedule until nothing of the image is left at its end (Lin et al. 2024); use --prediction-type v
    or x0."""
    prediction_type: Literal["noise", "x0", "v"] = "noise"
    """Output of the network: the noise, x0 or v (Salimans & Ho 2022)."""
    loss: Literal["l1", "l2", "huber"] = "l2"
    """Distance between prediction and target: l1 in the lecture notes, l2 in the paper."""
    weighting: Literal["simple", "min_snr", "vlb"] = "simple"
    """Weights of the loss over the times: uniform (Ho et al. 2020), clipped at a signal-to-noise ratio of 5 (Hang et
    al. 2023), or those of the variational bound."""
    timestep_sampling: Literal["uniform", "stratified", "loss_aware"] = "uniform"
    """Times of a training step: independent, spread evenly over the batch (Kingma et al. 2021), or in proportion to the
    loss (Nichol & Dhariwal 2021)."""

    network: Literal["unet", "simple", "diffusers"] = "unet"
    """The U-Net of Ho et al. 2020; the SimpleUNet of the lecture notes, whose only sizes are --width and
    --channel-mults; or the U-Net that --unet-config describes."""
    unet_config: str = ""
    """Text of the config.json of a UNet2DModel of diffusers; read with --network diffusers only."""
    num_classes: int = 0
    """Number of classes of the labels that the network is given; 0 makes a model without labels."""
    p_uncond: float = 0.1
    """Probability of hiding a label in training, so that guidance has a model without labels (Ho & Salimans 2022)."""
    guidance_scale: float = 1.0
    """Weight of the label when images are drawn (classifier-free guidance): 0 ignores it, 1 is the conditional model,
    more gives purer images of the class, and below 0 images of anything else."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation of SimpleUNet. With batch, as in the lecture notes, an image depends on the others of its batch."""

    variance: Literal["small", "large", "learned"] = "small"
    """Variance of the reverse steps: small is β̃_t, large is β_t; learned is between the two, as the network predicts,
    and adds a thousandth of the variational bound to the loss (Nichol & Dhariwal 2021)."""

    x0_range: float = 1.0
    """Bound at which x̂_0 is clipped in the reverse chain; 0 does not clip."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "beta_start": conditions.needs(beta_schedule="linear"),
        "beta_end": conditions.needs(beta_schedule="linear"),
        "loss": conditions.needs(weighting=("simple", "min_snr")),
        "width": conditions.needs(network=("unet", "simple")),
        "channel_mults": conditions.needs(network=("unet", "simple")),
        "num_res_blocks": conditions.needs(network="unet"),
        "attention_resolutions": conditions.needs(network="unet") + networks.ATTENTION_OCCURS,
        "dropout": conditions.needs(network="unet"),
        "fourier": conditions.needs(network="unet"),
        "num_classes": conditions.needs(network="unet"),
        "norm": conditions.needs(network="simple"),
        "unet_config": conditions.needs(network="diffusers"),
        "p_uncond": conditions.needs(num_classes=True),
        "guidance_scale": conditions.needs(num_classes=True),
    }

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + self._process_problems() + self._label_problems()
        if not (math.isfinite(self.x0_range) and self.x0_range >= 0):
            problems.append(f"x0_range: expected 0 (no clipping) or a positive number, got {self.x0_range}")
        if bool(self.unet_config) != (self.network == "diffusers"):
            problems.append("unet_config: expected with --network diffusers, and only there")
        return problems + config.at_least(self, {"timesteps": 1, "num_classes": 0})

    def _process_problems(self) -> list[str]:
        problems = []
        if not 0 < self.beta_start <= self.beta_end < 1:
            problems.append(
                f"beta_start, beta_end: expected 0 < start <= end < 1, got {self.beta_start} and {self.beta_end}"
            )
        if self.rescale_zero_terminal_snr and self.prediction_type == "noise":
            problems.append(
                "rescale_zero_terminal_snr: the last x_t is noise alone and tells nothing; use --prediction-type v"
            )
        if self.rescale_zero_terminal_snr and self.weighting == "vlb":
            problems.append("rescale_zero_terminal_snr: the last step has no bound; use --weighting simple or min_snr")
        return problems

    def _label_problems(self) -> list[str]:
        problems = []
        if self.num_classes and self.network != "unet":
            problems.append(f"num_classes: the network {self.network} takes no labels; use --network unet")
        if not self.num_classes and self.guidance_scale != 1:
            problems.append("guidance_scale: expected a model conditional on labels; give --num-classes, or leave 1")
        if not 0 <= self.p_uncond <= 1:
            problems.append(f"p_uncond: expected 0 to 1, got {self.p_uncond}")
        return problems


def model(settings: Config, shape: Shape, sampler: Callable[..., diffusion.Sample] | None = None) -> ddpm.DDPM:
    """Make the model of the settings for images of a shape (h, w, c); ``sampler`` replaces the ancestral chain."""
    if settings.network != "diffusers":
        networks.check_halvings("--channel-mults", len(settings.channel_mults) - 1, shape)
    times, learned = schedule(settings), settings.variance == "learned"
    read = {"noise": diffusion.from_noise, "x0": diffusion.from_x0, "v": diffusion.from_v}[settings.prediction_type]
    built = ddpm.build(
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
    return loss_aware.build(built, settings.timesteps) if settings.timestep_sampling == "loss_aware" else built


def schedule(settings: Config) -> diffusion.Schedule:
    """Make the schedule of the settings."""
    plain = {
        "linear": lambda: diffusion.linear_schedule(settings.timesteps, settings.beta_start, settings.beta_end),
        "cosine": lambda: diffusion.cosine_schedule(settings.timesteps),
        "sigmoid": lambda: diffusion.sigmoid_schedule(settings.timesteps),
    }[settings.beta_schedule]()
    return diffusion.rescale_zero_terminal_snr(plain) if settings.rescale_zero_terminal_snr else plain


def network(settings: Config, channels: int, height: int) -> nn.Module:
    """Make the network of the settings, with this number of output channels, for images of this height."""
    dtype = jnp.bfloat16 if settings.bfloat16 else None
    if settings.network == "diffusers":
        try:
            return diffusers_unet.network(json.loads(settings.unet_config)).clone(dtype=dtype)
        except (ValueError, TypeError) as error:
            raise config.UsageError(f"unet_config: {error}") from error
    if settings.network == "simple":
        widths = tuple(settings.width * multiplier for multiplier in settings.channel_mults)
        return unet.SimpleUNet(channels=widths, image_channels=channels, norm=settings.norm, dtype=dtype)
    return networks.make_unet(settings, channels, height, settings.num_classes)


def variance(settings: Config) -> chains.FixedVariance:
    """Return the variance of the reverse steps, where the network does not predict it."""
    return "large" if settings.variance == "large" else "small"


def clip(settings: Config) -> chains.Clip:
    """Return the clipping of x̂_0 in the reverse chain, as samplers take it."""
    bound = settings.x0_range
    return bound == 1 if bound in (0, 1) else lambda x0: jnp.clip(x0, -bound, bound)


def _objective(settings: Config, times: diffusion.Schedule) -> diffusion.Objective:
    if settings.weighting == "vlb":
        return diffusion.vlb(variance(settings))
    distance = {"l1": ddpm.l1, "l2": ddpm.l2, "huber": ddpm.huber}[settings.loss]
    weights = diffusion.min_snr(times, settings.prediction_type) if settings.weighting == "min_snr" else None
    first = diffusion.simple(distance, settings.prediction_type, weights)
    return diffusion.hybrid(first) if settings.variance == "learned" else first


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    if settings.network == "simple" and settings.norm == "batch":
        _check_one_device(settings)
    trained = model(settings, shape)
    task = images.task(settings, trained, _figures(settings, trained))
    task = task._replace(optimizer=trained.optimizer(task.optimizer))
    if settings.timestep_sampling == "stratified":
        batches = steps.with_stratified_times(task.sample_batch, "time", axis_name=parallel.AXIS)
        task = task._replace(sample_batch=batches)
    return task._replace(check=functools.partial(_check, settings))


def _check_one_device(settings: Config) -> None:
    if len(process.devices(settings.devices, settings.batch_size)) > 1:
        raise ValueError(
            "norm batch: each device would normalise over its own share of the batch; use --devices 1 or --norm group"
        )


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_labels(settings.num_classes, dataset)
    if settings.network == "unet":
        networks.report_attention(settings, dataset)


def _figures(settings: Config, trained: ddpm.DDPM) -> images.Figures:
    stages = sheets.stages(settings.timesteps)
    key, num = jax.random.key(settings.seed), settings.num_samples
    labels = images.labels(settings.num_classes, num)
    draw = jax.jit(lambda params: trained.sample(key, params, num, stages, labels))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_chain(folder, step, *draw(params))
        if not (folder / "forward.png").exists():
            sheets.save(folder / "forward.png", sheets.strip(_noising(settings, dataset, stages)))

    return write_figures


def _noising(settings: Config, dataset: data.Dataset, stages: Sequence[int]) -> np.ndarray:
    """Return real images after these numbers of noising steps: uint8[stages b h w c]."""
    originals = data.scale(jnp.asarray(dataset.train["image"][:4]))
    noise = jax.random.normal(jax.random.key(settings.seed), originals.shape)
    frames = [originals if s == 0 else diffusion.diffuse(schedule(settings), originals, s - 1, noise) for s in stages]
    return np.stack([np.asarray(data.to_uint8(frame)) for frame in frames])


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    settings = override(settings, "guidance_scale", options.guidance_scale)
    chain = chains.of_process(options, settings.timesteps, variance(settings), clip(settings))
    trained = model(settings, shape, chain)

    def draw(keys: Key, params: Params, num: int, first: jax.Array) -> Images:
        return trained.sample(keys, params, num, None, images.labels(settings.num_classes, num, first))

    return Sampler(trained.init, draw)


def score(options: ScoreOptions, settings: Config, shape: Shape) -> Score:
    """Make the score for ``train.evaluate``: the bound given the labels, unless ``labels`` leaves them out."""
    trained = model(settings, shape)
    values = likelihoods.of_steps(
        options,
        settings,
        lambda params, labels: (trained.denoise(params, labels), schedule(settings)),
        variance(settings),
        clip=settings.x0_range > 0,
        labelled=bool(settings.num_classes) and options.labels,
    )
    return Score(trained.init, values, f"{likelihoods.num_levels(options, settings)} levels")


_HAS_LABELS = (conditions.Condition(lambda run: bool(run.num_classes), "of a run that was trained with --num-classes"),)

RECIPE = Recipe(
    "ddpm",
    Config,
    model,
    build,
    sampler=sampler,
    sampler_options={**chains.PROCESS_OPTIONS, "guidance_scale": _HAS_LABELS},
    score=score,
    score_options={"levels": (), "flow": (), "labels": _HAS_LABELS},
)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
