"""Diffusion models of Karras, Aittala, Aila & Laine 2022 (arXiv:2206.00364): conditioned on σ, drawn by Heun's method.

Assumes images in [-1, 1] whose pixels have the standard deviation s; x = x_0 + σ ε, log σ ~ N(P_mean, P_std²).
Loss: E λ(σ) |D(x_0 + σ ε, σ) - x_0|², where D is the preconditioned network and λ(σ) = (σ² + s²)/(σ s)² (eq. 2 and 8).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from genjax import checks, diffusion, random
from genjax.diffusion import edm
from genjax.models import contracts
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

Sampler = Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample]
"""Maker of a reverse chain, ``(denoise, grid) -> sample``."""


class EDM(NamedTuple):
    """The model as pure functions.

    Attributes:
      init: parameters, ``(key) -> params``.
      loss: training loss, ``(key, params, batch) -> (loss, {})``, the mean of ``losses``; 1 for a network that has
        learned no more than the size of the data.
      losses: loss of each image, ``(key, params, batch) -> [b]``. The batch has ``image`` [b h w c]; its optional
        ``time`` [b] in [0, 1) are the quantiles of σ, which is random otherwise.
      denoise: denoiser on ``diffusion.karras``, conditioned on σ, ``(params) -> denoise``.
      sample: new images, ``(key, params, num, keep=None) -> images [num h w c]``; for ``keep`` see
        ``diffusion.Sample``.
      optimizer: optimizer for these parameters, made of another, ``(inner) -> optimizer``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], Float[Array, " b"]]
    denoise: Callable[[Params], diffusion.Predict]
    sample: Callable[..., Any]
    optimizer: contracts.MakeOptimizer = contracts.unchanged


def draw_sigma(
    keys: Key, u: ArrayLike | None, p_mean: float | int, p_std: float | int, dtype: Any = jnp.float32
) -> Float[Array, " b"]:
    """Draw σ with log σ ~ N(P_mean, P_std²), or compute its quantiles.

    Args:
      keys: keys of the images [b].
      u: quantiles [b] in [0, 1]; None for random σ. Quantiles nearer to 0 or 1 than a millionth count as a millionth.
      p_mean: P_mean.
      p_std: P_std.
      dtype: dtype of a random σ.

    Raises:
      ValueError: a quantile is outside [0, 1].
    """
    if u is None:
        normal = random.normal(keys, (), dtype)
    else:
        checks.within("time", u, 0, 1)
        normal = jax.scipy.special.ndtri(jnp.clip(jnp.asarray(u), 1e-6, 1 - 1e-6))
    return jnp.exp(p_mean + p_std * normal)


def losses(
    network: edm.Network,
    keys: Key,
    images: ArrayLike,
    *,
    sigma_data: float | int | Scalar = 0.5,
    p_mean: float | int = -1.2,
    p_std: float | int = 1.2,
    u: ArrayLike | None = None,
) -> Float[Array, " b"]:
    """Compute λ(σ) |D(x_0 + σ ε, σ) - x_0|², averaged over an image, at one σ (eq. 2, Table 1).

    Args:
      network: F.
      keys: keys of the images [b].
      images: x_0 [b h w c].
      sigma_data: s, the standard deviation of the data.
      p_mean: P_mean, the mean of log σ.
      p_std: P_std, the standard deviation of log σ.
      u: quantiles [b] of σ in [0, 1]; random by default. See ``draw_sigma``.

    Raises:
      ValueError: ``sigma_data`` or ``p_std`` is not positive and finite, or ``p_mean`` is not finite; there are no
        images, or images are not of floating point or not finite; or a quantile is outside [0, 1].
    """
    _check(sigma_data, p_mean, p_std)
    images = checks.batch("image", images)
    sigma_keys, noise_keys = random.split(keys, 2)
    sigma = draw_sigma(sigma_keys, u, p_mean, p_std, images.dtype)
    noisy = images + sigma[:, None, None, None] * random.normal(noise_keys, images.shape[1:], images.dtype)
    error = (edm.precondition(network, sigma_data)(noisy, sigma).x0 - images) ** 2
    return edm.weight(sigma, sigma_data) * error.mean((1, 2, 3))


class _Setup(NamedTuple):
    """Arguments of ``build``."""

    network: nn.Module
    shape: tuple[int, int, int]
    sigma_data: float | int
    p_mean: float | int
    p_std: float | int
    grid: diffusion.Grid
    sampler: Sampler


def _init(setup: _Setup, key: Key) -> Params:
    return setup.network.init(key, jnp.zeros((1, *setup.shape)), jnp.zeros(1)).get("params", {})


def _apply(setup: _Setup, params: Params, keys: Key | None) -> edm.Network:
    dropout: dict[str, Any] = {"keys": keys} if contracts.takes_keys(setup.network) else {}
    return lambda x, c_noise: jnp.asarray(setup.network.apply({"params": params}, x, c_noise, **dropout))


def _losses(setup: _Setup, key: Key, params: Params, batch: Batch) -> Float[Array, " b"]:
    images = checks.batch("image", batch["image"])
    loss_keys, dropout_keys = random.split(random.example_keys(key, images.shape[0]), 2)
    options = {"sigma_data": setup.sigma_data, "p_mean": setup.p_mean, "p_std": setup.p_std}
    return losses(_apply(setup, params, dropout_keys), loss_keys, images, **options, u=batch.get("time"))


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    return _losses(setup, key, params, batch).mean(), {}


def _denoiser(setup: _Setup, params: Params) -> diffusion.Predict:
    return edm.precondition(_apply(setup, params, None), setup.sigma_data)


def _sample(setup: _Setup, key: Key, params: Params, num: int, keep: Sequence[int] | None = None) -> Any:
    checks.count("num", num, 0)
    start_keys, chain_keys = random.split(random.example_keys(key, num), 2)
    start = random.normal(start_keys, setup.shape) * jnp.asarray(setup.grid.sigma[0], jnp.float32)
    return setup.sampler(_denoiser(setup, params), setup.grid)(chain_keys, start, keep)


def build(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    sigma_data: float | int = 0.5,
    p_mean: float | int = -1.2,
    p_std: float | int = 1.2,
    grid: diffusion.Grid | None = None,
    sampler: Sampler = diffusion.heun,
) -> EDM:
    """Make the model.

    Args:
      network: F, ``network(c_in x, c_noise [b]) -> output`` of unit size; see ``genjax.nn.protocols.Denoiser``.
      shape: (h, w, c) of an image.
      sigma_data: s, the standard deviation of the pixels.
      p_mean: P_mean, the mean of log σ in training.
      p_std: P_std, the standard deviation of log σ in training.
      grid: grid of the chain; ``diffusion.karras(18)`` by default, the paper's for 32x32.
      sampler: maker of the reverse chain.

    Raises:
      ValueError: ``sigma_data`` or ``p_std`` is not positive and finite, or ``p_mean`` is not finite; the network does
        not take images of this shape, does not return them, or has variables other than parameters; or the grid or the
        sampler is impossible.

    Warns:
      diffusion.StartWarning: much of the image is left at the first place of the grid.
    """
    _check(sigma_data, p_mean, p_std)
    grid = diffusion.karras(18) if grid is None else grid
    setup = _Setup(network, shape, sigma_data, p_mean, p_std, grid, sampler)

    def predict(params: Params) -> Images:
        return _denoiser(setup, params)(jnp.zeros((1, *shape)), jnp.ones(1)).x0

    sampler(lambda x, sigma: x, grid)  # refuses impossible settings now
    contracts.check_denoiser(network, predict, shape, jnp.zeros(1))
    return EDM(
        init=functools.partial(_init, setup),
        loss=functools.partial(_loss, setup),
        losses=functools.partial(_losses, setup),
        denoise=functools.partial(_denoiser, setup),
        sample=functools.partial(_sample, setup),
    )


def _check(sigma_data: float | int | Scalar, p_mean: float | int, p_std: float | int) -> None:
    if checks.is_concrete(sigma_data) and not (0 < sigma_data < math.inf and 0 < p_std < math.inf):
        raise ValueError(f"sigma_data, p_std: expected positive numbers, got {float(sigma_data):g} and {p_std:g}")
    checks.finite("p_mean", p_mean)
