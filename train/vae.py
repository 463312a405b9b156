"""Train a variational autoencoder: ``python -m train.vae --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import ndtri

from genjax import data
from genjax.models import vae
from genjax.training import parallel, steps
from genjax.types import Batch, Key, Params
from train.run import conditions, config, loop, networks, optimizers, plots, process, sources, sweep
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a variational autoencoder (Kingma & Welling 2014)."""

    latent_dim: int = 2
    """Dimensions of z."""
    network: Literal["dense", "conv"] = "dense"
    """Dense layers as in the notes, or strided convolutions."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the dense layers from image to latents; the decoder has them the other way round."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions, each of which halves the image; conv only."""
    num_classes: int = 0
    """Give the label, one of so many classes, to both networks; 0 makes a model without labels."""
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"
    """p(x|z) of a pixel: bernoulli for binary ones (of grey ones, the notes' cross-entropy), gaussian of a fixed
    standard deviation, or a discretised logistic."""
    levels: int = 256
    """How many values a pixel can take; logistic only."""
    std: float = 0.25
    """Standard deviation of a pixel, where pixels reach from -1 to 1; gaussian only."""
    binarization: Literal["none", "dynamic", "static"] = "none"
    """none takes pixels as they are; dynamic draws black and white anew at every step; static wants data that is."""
    beta: float = 1.0
    """Weight of the rate D(q‖p); other than 1 it is a β-VAE."""
    beta_warmup: int = 0
    """Steps over which the weight of the rate rises from 0."""
    free_bits: float = 0.0
    """Nats of each latent that cost nothing."""
    num_samples: int = 64
    """Images drawn for the pictures of a report."""

    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "conv_channels": conditions.needs(network="conv"),
        "levels": conditions.needs(likelihood="logistic"),
        "std": conditions.needs(likelihood="gaussian"),
        "binarization": conditions.needs(likelihood="bernoulli"),
    }

    def problems(self) -> list[str]:
        """Everything wrong with the values."""
        found = super().problems() + config.at_least(
            self,
            dict.fromkeys(("latent_dim", "hidden", "conv_channels", "num_samples"), 1)
            | dict.fromkeys(("num_classes", "beta", "beta_warmup", "free_bits"), 0)
            | {"levels": 2},
        )
        if not self.std > 0:
            found.append(f"std: expected a positive standard deviation, got {self.std}")
        if self.binarization != "none" and self.likelihood != "bernoulli":
            found.append(f"binarization: {self.binarization} pixels want --likelihood bernoulli, not {self.likelihood}")
        return found


def model(settings: Config, shape: tuple[int, int, int]) -> vae.VAE:
    """The model that the settings describe, for images of a shape (h, w, c)."""
    likelihood = networks.likelihood(settings)
    outputs = (*shape[:2], likelihood.num_outputs(shape[2]))
    encoder, decoder = networks.encoder_decoder(
        settings, 2 * settings.latent_dim, outputs, num_classes=settings.num_classes
    )
    return vae.build(encoder, decoder, likelihood, shape, beta=settings.beta, free_bits=settings.free_bits)


def build(settings: Config, shape: tuple[int, int, int]) -> Task:
    """What the loop trains."""
    ours = model(settings, shape)
    draw = steps.rows(settings.batch_size, axis_name=parallel.AXIS)
    if settings.beta_warmup:
        rise = optax.linear_schedule(0.0, 1.0, settings.beta_warmup)
        draw = steps.with_schedule(draw, "beta", lambda step: settings.beta * rise(step))

    def evaluate(key: Key, params: Params, batch: Batch):
        keys, images = sources.images(settings, key, batch)
        metrics = ours.loss(keys, params, {**batch, "image": images})[1]
        return metrics["distortion"] + metrics["rate"], metrics

    optimizer, learning_rate = optimizers.adam(settings)
    return Task(
        init=ours.init,
        optimizer=optimizer,
        learning_rate=learning_rate,
        sample_batch=draw,
        loss=sources.on_rows(settings, ours.loss, training=True),
        evaluate=evaluate,
        write_figures=_figures(settings, ours),
        compare=_rate_distortion,
        check=functools.partial(_check, settings),
    )


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_labels(settings.num_classes, dataset)
    if settings.likelihood == "logistic":
        networks.check_levels(settings, settings.levels, dataset)


def _figures(settings: Config, ours: vae.VAE):
    key = jax.random.key(settings.seed)
    num = settings.num_samples
    labels = jnp.arange(num) % settings.num_classes if settings.num_classes else None
    draw = jax.jit(lambda params: ours.sample(key, params, num, labels))
    encode = jax.jit(lambda params, batch: ours.encode(params, *_inputs(settings, key, batch)))
    decoded = jax.jit(ours.decode)
    decode = lambda params, z, labels: plots.to_uint8(decoded(params, z, labels), "the decoder")

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheet = plots.tile(plots.to_uint8(draw(params), f"the model at step {step}"), columns=round(num**0.5))
        plots.save(folder / f"{step:07d}.png", sheet)
        plots.save(folder / "latest.png", sheet)
        rows = dataset.heldout if len(dataset.heldout["image"]) else dataset.train
        some = {name: array[:16] for name, array in rows.items()}
        q, given = encode(params, some), some.get("label") if settings.num_classes else None
        again = decode(params, q.mean, given)
        both = np.concatenate([some["image"], again])
        plots.save(folder / f"{step:07d}-reconstruction.png", plots.tile(both, len(again)), width=900)
        if pairs := min(4, len(again) // 2):
            starts, ends = q.mean[0 : 2 * pairs : 2], q.mean[1 : 2 * pairs : 2]
            line = starts + jnp.linspace(0, 1, 10)[:, None, None] * (ends - starts)  # [10 pairs d]
            theirs = None if given is None else jnp.tile(given[0 : 2 * pairs : 2], 10)
            path = decode(params, line.reshape(-1, line.shape[-1]), theirs)
            plots.save(folder / "interpolation.png", plots.strip(path.reshape(10, pairs, *path.shape[1:])))
        if settings.latent_dim == 2 and not settings.num_classes:
            plots.save(folder / "manifold.png", _manifold(decode, params), width=900)
            many = {
                name: array[:5000] for name, array in (rows if len(rows["image"]) >= 1000 else dataset.train).items()
            }
            plots.scatter(folder / "latents.png", np.asarray(encode(params, many).mean), many.get("label"))

    return write_figures


def _manifold(decode, params: Params) -> np.ndarray:
    """Means at the quantiles 5 % to 95 % of both latents, 20 by 20, as the notes have it."""
    places = ndtri(jnp.linspace(0.05, 0.95, 20))
    x, y = jnp.meshgrid(places, places[::-1])
    return plots.tile(decode(params, jnp.stack([x, y], -1).reshape(-1, 2), None), 20, paper=0)


def _inputs(settings: Config, key: Key, batch: Batch):
    """Images and labels as the encoder takes them."""
    return sources.images(settings, key, batch)[1], batch["label"] if settings.num_classes else None


def _rate_distortion(folder: pathlib.Path, ensemble: sweep.Ensemble, found: dict[str, np.ndarray]) -> None:
    plots.compare(folder, ensemble, found)
    if ensemble.name == "beta" and ensemble.values is not None:
        with plots.figure(folder / "rate-distortion.png", size=(6.2, 4.6)) as ((panel,),):
            panel.plot(found["rate"], found["distortion"], "o", alpha=0.5)
            mean = lambda name: [found[name][ensemble.values == beta].mean() for beta in np.unique(ensemble.values)]
            rates, distortions = mean("rate"), mean("distortion")
            panel.plot(rates, distortions, lw=1.2)
            for beta, *place in zip(np.unique(ensemble.values), rates, distortions, strict=True):
                panel.annotate(f"β = {beta:g}", place, (7, 5), textcoords="offset points")
            panel.margins(x=0.18)
            panel.set(xlabel="rate D(q‖p), nats", ylabel="distortion E[-log p(x|z)], nats", title="Held-out images")


def main(argv: Sequence[str]) -> None:
    """Train as the command line says."""
    loop.run("vae", config.parse(Config, "vae", argv), build)


if __name__ == "__main__":
    process.main(main)
