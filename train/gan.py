"""Train a generative adversarial network: ``python -m train.gan --config digits``."""

import dataclasses
import functools
import pathlib
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax import data, random
from genjax.data import synthetic
from genjax.metrics import classes as classes_metric
from genjax.metrics import distances
from genjax.models import gan
from genjax.nn import adversarial
from genjax.types import Batch, Images, Key, Metrics, Params, Scalar
from train.run import command, conditions, config, images, networks, optimizers, plots, process, sheets, sources
from train.run.recipe import Recipe, SampleOptions, Sampler, Shape
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a generative adversarial network (Goodfellow et al. 2014)."""

    loss: Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"] = "non_saturating"
    """Losses of the two players."""
    latent_dim: int = 64
    """Number of dimensions of the noise z."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the dense layers of both players."""
    conv_channels: tuple[int, ...] = ()
    """Channels of the convolutions, finest first, each of which halves the image; empty for dense players."""
    num_classes: int = 0
    """Number of classes of the labels that both players are given; 0 makes a model without labels."""
    spectral_norm: bool = False
    """Divide every kernel of the discriminator by its largest singular value (Miyato et al. 2018)."""
    gp_weight: float = 0.0
    """Weight of the penalty on gradients of the discriminator of a norm other than 1, between data and fakes (Gulrajani
    et al. 2017); 10 for wasserstein."""
    r1_weight: float = 0.0
    """Weight of the penalty on gradients of the discriminator at the data (Mescheder et al. 2018)."""
    n_critic: int = 1
    """Number of steps of the discriminator for each step of the generator."""
    critic_lr: float = 0.0
    """Learning rate of the discriminator; 0 takes that of the generator."""
    beta1: float = 0.5
    """Decay rate β₁ of both Adams; β₂ is 0.999."""
    num_samples: int = 64
    """Number of images drawn for the figures of a report."""

    GROUPS: ClassVar[dict[str, str]] = dict.fromkeys(("n_critic", "critic_lr", "beta1"), "training")
    kinds: ClassVar[tuple[str, ...]] = ("ring",)
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "num_samples": (conditions.Condition(lambda settings: not sources.points(settings), "with --data of images"),)
    }

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(
            self,
            dict.fromkeys(("latent_dim", "hidden", "conv_channels", "n_critic", "num_samples"), 1)
            | dict.fromkeys(("num_classes", "gp_weight", "r1_weight", "critic_lr", "beta1"), 0),
        )
        if not self.beta1 < 1:
            problems.append(f"beta1: expected 0 to below 1, got {self.beta1}")
        return problems


def model(settings: Config, shape: Shape) -> gan.GAN:
    """Make the model of the settings for images of a shape (h, w, c)."""
    networks.check_halvings("--conv-channels", len(settings.conv_channels), shape)
    bounded = not sources.points(settings)
    generator = adversarial.Generator(shape, settings.hidden, settings.conv_channels, settings.num_classes, bounded)
    discriminator = adversarial.Discriminator(
        settings.hidden[::-1], settings.conv_channels, settings.num_classes, settings.spectral_norm
    )
    return gan.build(
        generator,
        discriminator,
        gan.LOSSES[settings.loss],
        shape,
        latent_dim=settings.latent_dim,
        n_critic=settings.n_critic,
        gp_weight=settings.gp_weight,
        r1_weight=settings.r1_weight,
    )


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)

    def evaluate(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        """Return the energy distance between generated and held-out images, as sets of points."""
        keys, heldout = sources.images(settings, key, batch)
        loss_keys, sample_keys = random.split(keys, 2)
        num = heldout.shape[0]
        generated = trained.sample(sample_keys, params, num, batch["label"] if settings.num_classes else None)
        metrics = trained.loss(loss_keys, params, {**batch, "image": heldout})[1]
        return distances.energy_distance(heldout.reshape(num, -1), generated.reshape(num, -1)), metrics

    figures = _point_figures if sources.points(settings) else _image_figures
    optimizer, learning_rate = _optimizer(settings, trained)
    return images.task(settings, trained, figures(settings, trained))._replace(
        optimizer=optimizer,
        learning_rate=learning_rate,
        evaluate=evaluate,
        check=functools.partial(networks.check_labels, settings.num_classes),
        curves=("discriminator", "generator"),
        figures_at_start=True,
    )


def _optimizer(settings: Config, trained: gan.GAN) -> tuple[optax.GradientTransformation, optax.Schedule]:
    every = settings.n_critic  # the generator moves at the last of so many steps
    generator, rate = optimizers.adam(settings, b1=settings.beta1, step=lambda count: (count + 1) * every - 1)
    discriminator, _ = optimizers.adam(settings, settings.critic_lr or settings.lr, b1=settings.beta1)
    return trained.optimizer(generator, discriminator), rate


def _point_figures(settings: Config, trained: gan.GAN) -> images.Figures:
    key = jax.random.key(settings.seed)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        num = len(dataset.heldout["image"])
        labels = images.labels(settings.num_classes, num)
        points = np.asarray(trained.sample(key, params, num, labels))[:, 0, 0]
        sheets.check_finite(points, f"the generator at step {step}")
        modes, share = classes_metric.modes(points, synthetic.centres(), 4 * synthetic.STD)
        title = f"step {step}: {len(np.unique(modes))} of {synthetic.NUM_MODES} modes, {share:.0%} on them"
        for name in (f"{step:07d}.png", "latest.png"):
            plots.density(folder / name, dataset.heldout["image"][:, 0, 0], points, title)

    return write_figures


def _image_figures(settings: Config, trained: gan.GAN) -> images.Figures:
    key, num = jax.random.key(settings.seed), settings.num_samples
    labels = images.labels(settings.num_classes, num)
    draw = jax.jit(lambda params: trained.sample(key, params, num, labels))

    @jax.jit
    def interpolate(params: Params) -> Images:
        """Generate ten stages between four pairs of z, on great circles, where the mass of N(0, I) is."""
        end_keys = random.example_keys(jax.random.fold_in(key, 1), 8)
        ends = random.normal(end_keys, (settings.latent_dim,)).reshape(2, 4, -1)
        angle = jnp.linspace(0, jnp.pi / 2, 10)[:, None, None]
        z = jnp.cos(angle) * ends[0] + jnp.sin(angle) * ends[1]
        four = images.labels(settings.num_classes, 4)
        return trained.generate(params, z.reshape(40, -1), None if four is None else jnp.tile(four, 10))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_samples(folder, step, draw(params), "the generator")
        path = sheets.to_uint8(interpolate(params), f"the generator at step {step}")
        sheets.save(folder / "interpolation.png", sheets.strip(path.reshape(10, 4, *path.shape[1:])))

    return write_figures


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    return images.sampler(model(settings, shape), settings.num_classes)


RECIPE = Recipe("gan", Config, model, build, sampler=sampler)
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
