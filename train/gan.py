"""Train a generative adversarial network: ``python -m train.gan --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
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
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a generative adversarial network (Goodfellow et al. 2014)."""

    loss: Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"] = "non_saturating"
    """What the players minimise."""
    latent_dim: int = 64
    """Numbers of z, the noise that an image is made of."""
    hidden: tuple[int, ...] = (256, 256)
    """Widths of the dense layers of both players."""
    conv_channels: tuple[int, ...] = ()
    """Channels of the convolutions, finest first, each of which halves the image; empty for dense players."""
    num_classes: int = 0
    """Give the label, one of so many classes, to both players; 0 makes a model without labels."""
    spectral_norm: bool = False
    """Divide every kernel of the discriminator by its largest singular value."""
    gp_weight: float = 0.0
    """Weight of the penalty on slopes of the discriminator other than 1, between data and fakes; 10 for wasserstein."""
    r1_weight: float = 0.0
    """Weight of the penalty on slopes of the discriminator at the data."""
    n_critic: int = 1
    """Steps of the discriminator for each of the generator."""
    critic_lr: float = 0.0
    """Learning rate of the discriminator; 0 takes that of the generator."""
    beta1: float = 0.5
    """First decay of both Adams; the second is 0.999."""
    num_samples: int = 64
    """Images drawn for the pictures of a report."""

    kinds: ClassVar[tuple[str, ...]] = ("ring",)
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "num_samples": (conditions.Condition(lambda settings: settings.data != "ring", "with --data of images"),)
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(
            self,
            dict.fromkeys(("latent_dim", "hidden", "conv_channels", "n_critic", "num_samples"), 1)
            | dict.fromkeys(("num_classes", "gp_weight", "r1_weight", "critic_lr", "beta1"), 0),
        )
        if not self.beta1 < 1:
            found.append(f"beta1: expected 0 to below 1, got {self.beta1}")
        return found


def model(settings: Config, shape: tuple[int, int, int]) -> gan.GAN:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    networks.check_halvings("--conv-channels", len(settings.conv_channels), shape)
    bounded = settings.data != "ring"
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
        gp_weight=settings.gp_weight,
        r1_weight=settings.r1_weight,
        n_critic=settings.n_critic,
    )


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)

    def evaluate(key: Key, params: Params, batch: Batch):
        """How far what is made is from what was held out, as sets of points."""
        keys, images = sources.images(settings, key, batch)
        loss_keys, sample_keys = random.split(keys, 2)
        num = images.shape[0]
        made = ours.sample(sample_keys, params, num, batch["label"] if settings.num_classes else None)
        metrics = ours.loss(loss_keys, params, {**batch, "image": images})[1]
        return distances.energy_distance(images.reshape(num, -1), made.reshape(num, -1)), metrics

    optimizer, learning_rate = _optimizer(settings, ours)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=steps.rows(settings.batch_size, axis_name=parallel.AXIS),
        loss=sources.on_rows(settings, ours.loss, training=True),
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        check=functools.partial(networks.check_labels, settings.num_classes),
        curves=("discriminator", "generator"),
        figures_at_start=True,
    )


def _optimizer(settings: Config, ours: gan.GAN) -> tuple[optax.GradientTransformation, optax.Schedule]:
    every = settings.n_critic  # the generator moves at the last of so many steps
    generator, rate = optimizers.adam(settings, b1=settings.beta1, step=lambda count: (count + 1) * every - 1)
    discriminator, _ = optimizers.adam(settings, settings.critic_lr or settings.lr, b1=settings.beta1)
    return ours.optimizer(generator, discriminator), rate


def _figures(settings: Config, ours: gan.GAN):
    key = jax.random.key(settings.seed)

    def points(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        num = len(dataset.heldout["image"])
        labels = jnp.arange(num) % settings.num_classes if settings.num_classes else None
        made = np.asarray(ours.sample(key, params, num, labels))[:, 0, 0]
        plots.check_finite(made, f"the generator at step {step}")
        at, share = classes_metric.modes(made, synthetic.centres(), 4 * synthetic.STD)
        title = f"step {step}: {len(np.unique(at))} of {synthetic.NUM_MODES} modes, {share:.0%} on them"
        for name in (f"{step:07d}.png", "latest.png"):
            plots.density(folder / name, dataset.heldout["image"][:, 0, 0], made, title)

    if settings.data == "ring":
        return points
    num = settings.num_samples
    labels = jnp.arange(num) % settings.num_classes if settings.num_classes else None
    draw = jax.jit(lambda params: ours.sample(key, params, num, labels))

    @jax.jit
    def between(params: Params):
        """Ten stages on the way between four pairs of z, on great circles, where the mass of N(0, I) is."""
        ends = random.normal(random.example_keys(jax.random.fold_in(key, 1), 8), (settings.latent_dim,)).reshape(
            2, 4, -1
        )
        angle = jnp.linspace(0, jnp.pi / 2, 10)[:, None, None]
        z = jnp.cos(angle) * ends[0] + jnp.sin(angle) * ends[1]
        theirs = jnp.tile(jnp.arange(4) % settings.num_classes, 10) if settings.num_classes else None
        return ours.generate(params, z.reshape(40, -1), theirs)

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheet = plots.tile(plots.to_uint8(draw(params), f"the generator at step {step}"), columns=round(num**0.5))
        plots.save(folder / f"{step:07d}.png", sheet)
        plots.save(folder / "latest.png", sheet)
        path = plots.to_uint8(between(params), f"the generator at step {step}")
        plots.save(folder / "interpolation.png", plots.strip(path.reshape(10, 4, *path.shape[1:])))

    return write_figures


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("gan", config.parse(Config, "gan", argv), build)


if __name__ == "__main__":
    process.main(main)
