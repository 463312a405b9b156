"""Train a normalising flow, RealNVP (Dinh, Sohl-Dickstein & Bengio 2017): ``python examples/realnvp/realnvp.py``.

A flow is an invertible map f of images to N(0, I), so that log p(x) = log N(f(x)) + log|det ∂f/∂x| is exact. An affine
coupling keeps the part m of x and moves the rest by functions of it (eq. 9):
    f(x) = m x + (1 - m) (x exp(s(m x)) + t(m x)),    log|det ∂f/∂x| = Σ (1 - m) s(m x),
and masks m of alternating parity take turns. Bytes of L levels are spread to y = (level + u) / L, u uniform, and pulled
apart to w = logit(α + (1 - 2α) y) (§4.1). Then P(levels) = E_u p(y) / L^D, and by Jensen's inequality
    log P(levels) ≥ E_u log p(y) - D log L.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from genjax import data, random
from genjax.nn import convolution
from genjax.theory import pixels, variational
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar
from train.run import command, config, images, networks, sheets
from train.run.recipe import Recipe, SampleOptions, Sampler, Score, ScoreOptions, Shape
from train.run.task import Task

ALPHA = 0.05
"""α of the logit; it keeps the logits of 0 and 1 finite."""


class Coupling(nn.Module):
    """The scale s and the shift t of a coupling: two residual layers, 0 before training.

    Attributes:
      features: number of channels of the hidden layers.
    """

    features: int

    @nn.compact
    def __call__(self, x: Images) -> tuple[Images, Images]:
        """Return s and t, both of the shape of x."""
        h = convolution.Conv(self.features, (3, 3))(x)
        for _ in range(2):
            h = h + convolution.Conv(self.features, (3, 3))(nn.relu(h))
        out = convolution.Conv(2 * x.shape[-1], (3, 3), kernel_init=nn.initializers.zeros_init())(nn.relu(h))
        s, t = jnp.split(out, 2, -1)
        return jnp.tanh(s), t


class Flow(NamedTuple):
    """A normalising flow as pure functions.

    Attributes:
      init: initial parameters, ``(key) -> params``.
      loss: bits per dimension of dequantised images, ``(keys, params, batch) -> (scalar, metrics)``.
      forward: ``(params, w [b h w c]) -> (z [b h w c], log|det ∂z/∂w| [b])``.
      inverse: the w of z, ``(params, z) -> w``.
      log_density: log p(y) in nats [b] of dequantised images, ``(params, y)``.
      log_prob: log p(y) - D log L in nats [b] of dequantised images in [-1, 1], ``(keys, params, x)``.
      sample: images in [-1, 1], on the levels, ``(keys, params, num)``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    forward: Callable[[Params, Images], tuple[Images, jax.Array]]
    inverse: Callable[[Params, Images], Images]
    log_density: Callable[[Params, Images], jax.Array]
    log_prob: Callable[[Key, Params, Images], jax.Array]
    sample: Callable[..., Images]


def mask(shape: Shape, parity: int) -> np.ndarray:
    """Return the checkerboard of a parity in height, width and channels: float32[h w c] of 0 and 1."""
    return ((np.indices(shape).sum(0) + parity) % 2).astype(np.float32)


def squeeze(y: Images) -> tuple[Images, jax.Array]:
    """Map y to w = logit(α + (1 - 2α) y), with log|det ∂w/∂y| [b]."""
    p = ALPHA + (1 - 2 * ALPHA) * y
    log_det = math.log(1 - 2 * ALPHA) - jnp.log(p) - jnp.log1p(-p)
    return jnp.log(p) - jnp.log1p(-p), log_det.sum((1, 2, 3))


def dequantise(keys: Key, x: Images, num_levels: int) -> Images:
    """Spread images in [-1, 1] over their levels: y = (level + u) / L in [0, 1)."""
    u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(random.example_keys(keys, x.shape[0]))
    return (pixels.to_level(x, num_levels) + u) / num_levels


def build(shape: Shape, *, num_couplings: int, features: int, num_levels: int) -> Flow:
    """Make a flow of images.

    Args:
      shape: (h, w, c) of an image.
      num_couplings: number of couplings.
      features: number of channels of their hidden layers.
      num_levels: number L of values of a pixel.
    """
    coupling, num_dims = Coupling(features), math.prod(shape)
    masks = [jnp.asarray(mask(shape, i % 2)) for i in range(num_couplings)]

    def init(key: Key) -> Params:
        keys = jax.random.split(key, num_couplings)
        return [coupling.init(keys[i], jnp.zeros((1, *shape)))["params"] for i in range(num_couplings)]

    def scale_and_shift(part: Params, x: Images) -> tuple[Images, Images]:
        output: Any = coupling.apply({"params": part}, x)
        return output

    def forward(params: Params, w: Images) -> tuple[Images, jax.Array]:
        log_det = jnp.zeros(w.shape[0], w.dtype)
        for part, m in zip(params, masks, strict=True):
            s, t = scale_and_shift(part, m * w)
            w = m * w + (1 - m) * (w * jnp.exp(s) + t)
            log_det += ((1 - m) * s).sum((1, 2, 3))
        return w, log_det

    def inverse(params: Params, z: Images) -> Images:
        for part, m in zip(reversed(params), reversed(masks), strict=True):
            s, t = scale_and_shift(part, m * z)
            z = m * z + (1 - m) * (z - t) * jnp.exp(-s)
        return z

    def log_density(params: Params, y: Images) -> jax.Array:
        w, log_det_squeeze = squeeze(y)
        z, log_det = forward(params, w)
        return norm.logpdf(z).sum((1, 2, 3)) + log_det + log_det_squeeze

    def log_prob(keys: Key, params: Params, x: Images) -> jax.Array:
        return log_density(params, dequantise(keys, x, num_levels)) - num_dims * math.log(num_levels)

    def loss(keys: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        bits = pixels.bits_per_dim(-log_prob(keys, params, batch["image"]).mean(), shape)
        return bits, {}

    def sample(keys: Key, params: Params, num: int, labels: None = None) -> Images:
        z = random.normal(random.example_keys(keys, num), shape)
        y = (jax.nn.sigmoid(inverse(params, z)) - ALPHA) / (1 - 2 * ALPHA)
        levels = jnp.clip(jnp.floor(y * num_levels), 0, num_levels - 1).astype(jnp.int32)
        return pixels.from_level(levels, num_levels)

    return Flow(init, loss, forward, inverse, log_density, log_prob, sample)


@dataclasses.dataclass(frozen=True)
class Config(config.ImageRun):
    """Train a normalising flow, RealNVP (Dinh et al. 2017)."""

    num_couplings: int = 8
    """Number of affine couplings."""
    features: int = 32
    """Number of channels of the hidden layers of a coupling."""
    levels: int = 256
    """Number of values of a pixel."""
    num_samples: int = 64
    """Number of images drawn for the figures of a report."""

    def problems(self) -> list[str]:
        """List everything wrong with the values."""
        lowest = {"num_couplings": 2, "features": 1, "levels": 2, "num_samples": 1}
        return super().problems() + config.at_least(self, lowest)


def model(settings: Config, shape: Shape) -> Flow:
    """Make the model of the settings for images of a shape (h, w, c)."""
    return build(shape, num_couplings=settings.num_couplings, features=settings.features, num_levels=settings.levels)


def task(settings: Config, shape: Shape) -> Task:
    """Make the training task of the settings."""
    flow = model(settings, shape)
    draw = jax.jit(lambda params: flow.sample(jax.random.key(settings.seed), params, settings.num_samples))

    def write_figures(folder: pathlib.Path, step: int, params: Params, dataset: data.Dataset) -> None:
        sheets.save_samples(folder, step, draw(params))

    return images.task(settings, flow, write_figures)._replace(check=functools.partial(_check, settings))


def _check(settings: Config, dataset: data.Dataset) -> None:
    networks.check_levels("of a flow", settings.levels, dataset)


def sampler(options: SampleOptions, settings: Config, shape: Shape) -> Sampler:
    """Make the sampler for ``train.sample``."""
    return images.sampler(model(settings, shape), num_classes=0)


def score(options: ScoreOptions, settings: Config, shape: Shape) -> Score:
    """Make the score for ``train.evaluate``: two bounds of the bytes' log p(x), each by ``samples`` u.

    The ELBO is E_u log p(y) - D log L (Theis et al. 2016, eq. 3); the importance-weighted bound is tighter.
    """
    flow = model(settings, shape)

    def values(params: Params, keys: Key, rows: Batch) -> dict[str, jax.Array]:
        x = data.scale(rows["image"])

        def draw(i: jax.Array) -> jax.Array:
            return flow.log_prob(jax.vmap(lambda key: jax.random.fold_in(key, i))(keys), params, x)

        weights = jax.lax.map(draw, jnp.arange(options.samples))  # [k b]
        return {"elbo": variational.elbo(weights), "bound": variational.importance_weighted_bound(weights)}

    return Score(flow.init, values, f"{settings.levels} levels, dequantised")


RECIPE = Recipe(
    "realnvp",
    Config,
    model,
    task,
    configs=pathlib.Path(__file__).parent / "configs",
    sampler=sampler,
    score=score,
    score_options={"samples": ()},
)

if __name__ == "__main__":
    command.main(RECIPE)
