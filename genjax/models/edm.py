"""The diffusion model of Karras, Aittala, Aila & Laine 2022 (arXiv:2206.00364): told σ, drawn by Heun's method.

Assumes images in [-1, 1] whose pixels have the standard deviation s; x = x_0 + σ ε, log σ ~ N(P_mean, P_std²).
Loss: E λ(σ) |D(x_0 + σ ε, σ) - x_0|², where D is the preconditioned network and λ(σ) = (σ² + s²)/(σ s)² (eq. 2 and 8).
"""

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
from genjax.types import Batch, Key, Loss, Metrics, Params, Scalar


class EDM(NamedTuple):
    """The model as pure functions.

    Fields:
      init: ``(key) -> params``.
      loss: ``(key, params, batch) -> (loss, {})``, the p_mean of ``losses``; a network that learned no more than the size
        of the data has 1.
      losses: ``(key, params, batch) -> [b]``; the batch has ``image`` [b h w c], and may have ``time`` [b] in [0, 1),
        the quantile of σ; else σ is random.
      denoise: ``(params) -> denoise``, told σ: for samplers on ``diffusion.karras``.
      sample: ``(key, params, num, keep=None) -> images [num h w c]``; ``keep`` is as in ``diffusion.samplers.Sample``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], Float[Array, " b"]]
    denoise: Callable[[Params], diffusion.Predict]
    sample: Callable[..., Any]


def losses(
    network: edm.Network,
    keys: Key,
    images: ArrayLike,
    *,
    sigma_data: float | Scalar = 0.5,
    p_mean: float = -1.2,
    p_std: float = 1.2,
    u: ArrayLike | None = None,
) -> Float[Array, " b"]:
    """λ(σ) |D(x_0 + σ ε, σ) - x_0|², averaged over an image, at one σ: log σ ~ N(p_mean, spread²) (eq. 2, Table 1).

    Args:
      network: F.
      keys: one per image.
      images: x_0.
      sigma_data: s, of the data.
      p_mean, p_std: P_mean and P_std.
      u: in [0, 1], the quantiles of the σ; random by default. The outermost millionths count as a millionth.

    Raises:
      ValueError: ``sigma_data`` or ``p_std`` that is not positive and finite, or a p_mean that is not finite; no images,
        or images that are not of floating point or not finite; or places outside [0, 1].
    """
    _check(sigma_data, p_mean, p_std)
    images = checks.batch("image", images)
    sigma_keys, noise_keys = random.split(keys, 2)
    if u is None:
        normal = random.normal(sigma_keys, (), images.dtype)
    else:
        checks.within("time", u, 0, 1)
        normal = jax.scipy.special.ndtri(jnp.clip(jnp.asarray(u), 1e-6, 1 - 1e-6))
    sigma = jnp.exp(p_mean + p_std * normal)
    noisy = images + sigma[:, None, None, None] * random.normal(noise_keys, images.shape[1:], images.dtype)
    error = (edm.precondition(network, sigma_data)(noisy, sigma).x0 - images) ** 2
    return edm.weight(sigma, sigma_data) * error.mean((1, 2, 3))


def build(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    sigma_data: float = 0.5,
    p_mean: float = -1.2,
    p_std: float = 1.2,
    grid: diffusion.Grid | None = None,
    sampler: Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample] = diffusion.heun,
) -> EDM:
    """The model.

    Args:
      network: F, ``network(c_in x, c_noise [b]) -> output`` of unit size; one with dropout also takes ``keys``, one per
        image, and drops only where it gets them.
      shape: (h, w, c) of an image.
      sigma_data: s, the standard deviation of the pixels.
      p_mean, p_std: P_mean and P_std, of log σ in training.
      grid: where the chain goes; ``diffusion.karras(18)`` by default, the paper's for 32x32.
      sampler: ``(denoise, grid) -> sample``.

    Raises:
      ValueError: ``sigma_data`` or ``p_std`` that is not positive and finite, or a p_mean that is not finite; the network
        does not take images of this shape, or does not return them; or a grid or a sampler that cannot be.

    Warns:
      diffusion.StartWarning: the grid begins where much of the image is left.
    """
    _check(sigma_data, p_mean, p_std)
    places = diffusion.karras(18) if grid is None else grid
    drops = contracts.takes_keys(network)

    def said(params: Params, keys: Key | None) -> edm.Network:
        extra: dict[str, Any] = {"keys": keys} if drops else {}
        return lambda x, c_noise: jnp.asarray(network.apply({"params": params}, x, c_noise, **extra))

    def init(key: Key) -> Params:
        return network.init(key, jnp.zeros((1, *shape)), jnp.zeros(1)).get("params", {})

    def each(key: Key, params: Params, batch: Batch) -> Float[Array, " b"]:
        images = checks.batch("image", batch["image"])
        loss_keys, dropout_keys = random.split(random.example_keys(key, images.shape[0]), 2)
        return losses(
            said(params, dropout_keys),
            loss_keys,
            images,
            sigma_data=sigma_data,
            p_mean=p_mean,
            p_std=p_std,
            u=batch.get("time"),
        )

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        return each(key, params, batch).mean(), {}

    def denoise(params: Params) -> diffusion.Predict:
        return edm.precondition(said(params, None), sigma_data)

    def sample(key: Key, params: Params, num: int, keep: Sequence[int] | None = None):
        checks.count("num", num, 0)
        start_keys, chain_keys = random.split(random.example_keys(key, num), 2)
        start = random.normal(start_keys, shape) * jnp.asarray(places.sigma[0], jnp.float32)
        return sampler(denoise(params), places)(chain_keys, start, keep)

    sampler(lambda x, sigma: x, places)  # what it refuses, it refuses here
    contracts.check_output(lambda key: denoise(init(key))(jnp.zeros((1, *shape)), jnp.ones(1)).x0, shape)
    return EDM(init, loss, each, denoise, sample)


def _check(sigma_data: float | Scalar, p_mean: float, p_std: float) -> None:
    if checks.is_concrete(sigma_data) and not (0 < sigma_data < math.inf and 0 < p_std < math.inf):
        raise ValueError(f"sigma_data, p_std: expected positive numbers, got {float(sigma_data):g} and {p_std:g}")
    checks.finite("p_mean", p_mean)
