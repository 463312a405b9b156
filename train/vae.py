"""Train a variational autoencoder: ``python -m train.vae --config digits``."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.special import ndtri

from genjax import data
from genjax.models import vae
from genjax.theory import variational
from genjax.training import steps
from genjax.types import Batch, Images, Key, Metrics, Params, Scalar
from train.run import command, conditions, config, images, networks, plots, process, sheets, sources, sweep
from train.run.recipe import Recipe, SampleOptions, Sampler, Score, ScoreOptions, Shape
from train.run.task import Task


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a variational autoencoder (Kingma & Welling 2014)."""

    latent_dim: int = 2
    """Number of dimensions of the latent z."""
    network: Literal["dense", "conv"] = "dense"
    """Dense layers as in the lecture notes, or strided convolutions."""
    hidden: tuple[int, ...] = (256,)
    """Widths of the dense layers of the encoder; the decoder has them in reverse."""
    conv_channels: tuple[int, ...] = (32, 64)
    """Channels of the convolutions, each of which halves the image; read with --network conv only."""
    num_classes: int = 0
    """Number of classes of the labels that both networks are given; 0 makes a model without labels."""
    likelihood: Literal["bernoulli", "gaussian", "logistic"] = "bernoulli"
    """Distribution p(x|z) of a pixel: bernoulli for binary pixels (for grey ones, the cross-entropy of the lecture
    notes), gaussian with a fixed standard deviation, or a discretised logistic."""
    levels: int = 256
    """Number of values of a pixel; read with --likelihood logistic only."""
    std: float = 0.25
    """Standard deviation of a pixel in [-1, 1]; read with --likelihood gaussian only."""
    binarization: Literal["none", "dynamic", "static"] = "none"
    """Black and white pixels: none takes pixels as they are, dynamic draws black or white anew at every step, static
    needs data that are black and white."""
    beta: float = 1.0
    """Weight of the rate D(q‖p); a β-VAE where it is not 1 (Higgins et al. 2017)."""
    beta_warmup: int = 0
    """Number of steps over which the weight of the rate rises from 0."""
    free_bits: float = 0.0
    """Free nats of each latent dimension, below which its rate costs nothing (Kingma et al. 2016)."""
    num_samples: int = 64
    """Number of images drawn for the figures of a report."""

    GROUPS: ClassVar[dict[str, str]] = {"beta_warmup": "training"}
    READ_WITH: ClassVar[dict[str, conditions.Conditions]] = {
        "conv_channels": conditions.needs(network="conv"),
        "levels": conditions.needs(likelihood="logistic"),
        "std": conditions.needs(likelihood="gaussian"),
        "binarization": conditions.needs(likelihood="bernoulli"),
    }

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        problems = super().problems() + config.at_least(
            self,
            dict.fromkeys(("latent_dim", "hidden", "conv_channels", "num_samples"), 1)
            | dict.fromkeys(("num_classes", "beta", "beta_warmup", "free_bits"), 0)
            | {"levels": 2},
        )
        if not self.std > 0:
            problems.append(f"std: expected a positive standard deviation, got {self.std}")
        if self.binarization != "none" and self.likelihood != "bernoulli":
            problems.append(
                f"binarization: {self.binarization} pixels want --likelihood bernoulli, not {self.likelihood}"
            )
        return problems


def model(settings: Config, shape: Shape) -> vae.VAE:
    """Make the model of the settings for images of a shape (h, w, c)."""
    likelihood = networks.likelihood(settings)
    outputs = (*shape[:2], likelihood.num_outputs(shape[2]))
    encoder, decoder = networks.encoder_decoder(
        settings, 2 * settings.latent_dim, outputs, num_classes=settings.num_classes
    )
    return vae.build(encoder, decoder, likelihood, shape, beta=settings.beta, free_bits=settings.free_bits)


def build(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    trained = model(settings, shape)

    def evaluate(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        metrics = loss(key, params, batch)[1]
        return metrics["distortion"] + metrics["rate"], metrics

    task = images.task(settings, trained, _figures(settings, trained))
    loss = task.evaluate
    if settings.beta_warmup:
        rise = optax.linear_schedule(0.0, 1.0, settings.beta_warmup)
        batches = steps.with_schedule(task.sample_batch, "beta", lambda step: settings.beta * rise(step))
        task = task._replace(sample_batch=batches)
    return task._replace(evaluate=evaluate, compare=_plot_rate_distortion, check=functools.partial(_check, settings))


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_labels(settings.num_classes, dataset)
    if settings.likelihood == "logistic":
        networks.check_levels(settings.likelihood, settings.levels, dataset)


def _figures(settings: Config, trained: vae.VAE) -> images.Figures:
    key = jax.random.key(settings.seed)
    num = settings.num_samples
    drawn_labels = images.labels(settings.num_classes, num)
    draw = jax.jit(lambda params: trained.sample(key, params, num, drawn_labels))
    encode = jax.jit(lambda params, batch: trained.encode(params, *_inputs(settings, key, batch)))
    decoded = jax.jit(trained.decode)
    decode = lambda params, z, labels: sheets.to_uint8(decoded(params, z, labels), "the decoder")

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_samples(folder, step, draw(params))
        rows = images.report_rows(dataset)
        shown = images.first_rows(rows, 16)
        q, labels = encode(params, shown), shown.get("label") if settings.num_classes else None
        reconstructed = decode(params, q.mean, labels)
        both = np.concatenate([shown["image"], reconstructed])
        sheets.save(folder / f"{step:07d}-reconstruction.png", sheets.tile(both, len(reconstructed)), width=900)
        if pairs := min(4, len(reconstructed) // 2):
            starts, ends = q.mean[0 : 2 * pairs : 2], q.mean[1 : 2 * pairs : 2]
            line = starts + jnp.linspace(0, 1, 10)[:, None, None] * (ends - starts)  # [10 pairs d]
            line_labels = None if labels is None else jnp.tile(labels[0 : 2 * pairs : 2], 10)
            path = decode(params, line.reshape(-1, line.shape[-1]), line_labels)
            sheets.save(folder / "interpolation.png", sheets.strip(path.reshape(10, pairs, *path.shape[1:])))
        if settings.latent_dim == 2 and not settings.num_classes:
            sheets.save(folder / "manifold.png", _manifold(decode, params), width=900)
            many = images.first_rows(rows if len(rows["image"]) >= 1000 else dict(dataset.train), 5000)
            plots.scatter(folder / "latents.png", np.asarray(encode(params, many).mean), many.get("label"))

    return write_figures


def _manifold(decode: Callable[..., np.ndarray], params: Params) -> np.ndarray:
    """Decode the quantiles 5 % to 95 % of both latents, 20 by 20, as in the lecture notes."""
    quantiles = ndtri(jnp.linspace(0.05, 0.95, 20))
    x, y = jnp.meshgrid(quantiles, quantiles[::-1])
    return sheets.tile(decode(params, jnp.stack([x, y], -1).reshape(-1, 2), None), 20, paper=0)


def _inputs(settings: Config, key: Key, batch: Batch) -> tuple[Images, jax.Array | None]:
    """Bring rows to images and labels as the encoder takes them."""
    return sources.images(settings, key, batch)[1], batch["label"] if settings.num_classes else None


def _plot_rate_distortion(folder: pathlib.Path, ensemble: sweep.Ensemble, metrics: dict[str, np.ndarray]) -> None:
    plots.compare(folder, ensemble, metrics)
    if ensemble.name != "beta" or ensemble.values is None:
        return
    betas = np.unique(ensemble.values)
    rates, distortions = (
        [metrics[name][ensemble.values == beta].mean() for beta in betas] for name in ("rate", "distortion")
    )
    with plots.figure(folder / "rate-distortion.png", size=(6.2, 4.6)) as ((panel,),):
        panel.plot(metrics["rate"], metrics["distortion"], "o", alpha=0.5)
        panel.plot(rates, distortions, lw=1.2)
        for beta, *point in zip(betas, rates, distortions, strict=True):
            panel.annotate(f"β = {beta:g}", point, (7, 5), textcoords="offset points")
        panel.margins(x=0.18)
        panel.set(xlabel="rate D(q‖p), nats", ylabel="distortion E[-log p(x|z)], nats", title="Held-out images")


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    return images.sampler(model(settings, shape), settings.num_classes)


def score(options: ScoreOptions, settings: Config, shape: Shape) -> Score:
    """Make the score for ``train.evaluate``: bounds by ``samples`` draws of z; log p(x) too for two latents."""
    trained = model(settings, shape)

    def values(params: Params, keys: Key, rows: Batch) -> dict[str, jax.Array]:
        model_keys, originals = sources.images(settings, keys, rows)
        batch = {**rows, "image": originals}
        weights = trained.log_weights(model_keys, params, batch, options.samples)
        bounds = {"elbo": variational.elbo(weights), "bound": variational.importance_weighted_bound(weights)}
        return bounds | ({"exact": vae.log_evidence(trained, params, batch)} if settings.latent_dim == 2 else {})

    return Score(trained.init, values, networks.describe_pixels(settings, settings.binarization))


RECIPE = Recipe("vae", Config, model, build, sampler=sampler, score=score, score_options={"samples": ()})
main = command.trainer(RECIPE)

if __name__ == "__main__":
    process.main(main)
