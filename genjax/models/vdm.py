"""Variational diffusion models (Kingma, Salimans, Poole & Ho 2021, arXiv:2107.00630): the schedule is learned too.

Assumes images of even levels in [-1, 1] and time in [0, 1]; γ(t) = -log SNR(t) is monotone, α² = σ(-γ), σ² = σ(γ).
Loss: D(q(x_1|x_0)‖N(0, 1)) + ½ E_{t, ε} γ'(t) |ε - ε̂(x_t, γ(t))|² - log p(x_0|x_{t=0}), nats (eq. 11 and 17).
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import diffusion, random
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

Times = Float[Array, " b"]


class Schedule(nn.Module):
    """γ(t), t in [0, 1]: a line plus a network of positive weights, stretched between two learned ends (App. H).

    Fields:
      first, last: γ(0) and γ(1) before training.
      width: of the hidden layer.
    """

    first: float = -13.3
    last: float = 5.0
    width: int = 64

    @nn.compact
    def __call__(self, t: Times) -> Times:
        """γ at times [b]."""
        low = self.param("first", nn.initializers.constant(self.first), ())
        gap = self.param("gap", nn.initializers.constant(float(np.log(self.last - self.first))), ())
        positive = lambda name, shape: jax.nn.softplus(self.param(name, nn.initializers.normal(0.5), shape) - 2.0)
        slope, inner, outer = positive("slope", ()), positive("inner", (self.width,)), positive("outer", (self.width,))
        shift = self.param("shift", nn.initializers.normal(2.0), (self.width,))
        curve = lambda t: slope * t + jax.nn.sigmoid(t[..., None] * inner * 4 + shift) @ outer
        start, end = curve(jnp.zeros(1)), curve(jnp.ones(1))
        return low + jnp.exp(gap) * (curve(t) - start) / (end - start)


class VDM(NamedTuple):
    """The model as pure functions.

    Fields:
      init: ``(key) -> params``, of the network and of the schedule.
      loss: ``(key, params, batch) -> (bits per dimension, metrics)``; ``prior``, ``diffusion`` and ``decoder`` in the
        same unit.
      losses: ``(key, params, batch) -> ([b] each)``: those three, nats per image.
      grid: ``(params, num_steps) -> Grid``, whose network is told γ.
      denoise: ``(params) -> denoise``, on such a grid.
      sample: ``(key, params, num) -> images``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], tuple[Times, Times, Times]]
    grid: Callable[[Params, int], diffusion.Grid]
    denoise: Callable[[Params], diffusion.Denoise]
    sample: Callable[[Key, Params, int], Images]


def build(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    schedule: nn.Module | None = None,
    num_levels: int = 256,
    num_steps: int = 100,
) -> VDM:
    """The model.

    Args:
      network: ``network(x_t, time [b]) -> ε``; it is told 1000 times the place of γ between its ends.
      shape: (h, w, c) of an image.
      schedule: ``schedule(t [b]) -> γ [b]``, rising; ``Schedule()`` by default.
      num_levels: of the pixels.
      num_steps: of the chain that draws.

    Raises:
      ValueError: fewer than 2 levels, or no step.
    """
    if num_levels < 2 or num_steps < 1:
        raise ValueError(f"num_levels, num_steps: expected at least 2 and 1, got {num_levels} and {num_steps}")
    gamma = schedule or Schedule()
    dims = int(np.prod(shape))

    def init(key: Key) -> Params:
        first, second = jax.random.split(key)
        found = network.init(first, jnp.zeros((1, *shape)), jnp.zeros(1)).get("params", {})
        return {"network": found, "schedule": gamma.init(second, jnp.zeros(1))["params"]}

    def at(params: Params, t: Times) -> Times:
        return jnp.asarray(gamma.apply({"params": params["schedule"]}, t))

    def said(params: Params, x: Images, g: Times) -> Images:
        ends = at(params, jnp.array([0.0, 1.0]))
        place = 1000 * (g - ends[0]) / (ends[1] - ends[0])
        return jnp.asarray(network.apply({"params": params["network"]}, x, place))

    def losses(key: Key, params: Params, batch: Batch) -> tuple[Times, Times, Times]:
        images = batch["image"]
        time_keys, noise_keys, last_keys = random.split(random.per_example(key, images.shape[0]), 3)
        t = batch["time"] if "time" in batch else jax.vmap(jax.random.uniform)(time_keys)
        noise, g = random.normal(noise_keys, shape, images.dtype), at(params, t)
        slope = jax.grad(lambda t: at(params, t).sum())(t)
        error = jnp.sum((noise - said(params, _noisy(images, g, noise), g)) ** 2, (1, 2, 3))
        start, end = at(params, jnp.zeros_like(t)), at(params, jnp.ones_like(t))
        left = jax.nn.sigmoid(-end)[:, None, None, None]
        prior = 0.5 * jnp.sum(left * images**2 - left - jnp.log1p(-left), (1, 2, 3))
        first = random.normal(last_keys, shape, images.dtype)
        seen = _noisy(images, start, first) / jnp.sqrt(jax.nn.sigmoid(-start))[:, None, None, None]
        decoder = -_reconstruct(images, seen, 0.5 * start[0], num_levels)
        return prior, 0.5 * slope * error, decoder

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        unit = dims * jnp.log(2.0)
        found = dict(zip(("prior", "diffusion", "decoder"), losses(key, params, batch), strict=True))
        metrics = {name: value.mean() / unit for name, value in found.items()}
        return metrics["prior"] + metrics["diffusion"] + metrics["decoder"], metrics

    def grid(params: Params, num_steps: int) -> diffusion.Grid:
        g = at(params, jnp.linspace(1.0, 0.0, num_steps + 1))
        signal, noise = jnp.sqrt(jax.nn.sigmoid(-g)), jnp.sqrt(jax.nn.sigmoid(g))
        return diffusion.Grid(g, signal.at[-1].set(1.0), noise.at[-1].set(0.0))

    def denoise(params: Params) -> diffusion.Denoise:
        return lambda x, g: said(params, x, g)

    def sample(key: Key, params: Params, num: int) -> Images:
        start_keys, chain_keys = random.split(random.per_example(key, num), 2)
        chain = diffusion.implicit(denoise(params), grid(params, num_steps), eta=1.0)
        return chain(chain_keys, random.normal(start_keys, shape))

    return VDM(init, loss, losses, grid, denoise, sample)


def _noisy(images: Images, g: Times, noise: Images) -> Images:
    g = g[:, None, None, None]
    return jnp.sqrt(jax.nn.sigmoid(-g)) * images + jnp.sqrt(jax.nn.sigmoid(g)) * noise


def _reconstruct(images: Images, seen: Images, log_spread: Scalar, num_levels: int) -> Times:
    """log p(x_0|x_{t=0}): the levels in proportion to N(seen; level, spread²) (eq. 12)."""
    levels = jnp.linspace(-1, 1, num_levels)
    logits = -0.5 * ((seen[..., None] - levels) * jnp.exp(-log_spread)) ** 2
    truth = -0.5 * ((seen - images) * jnp.exp(-log_spread)) ** 2
    return jnp.sum(truth - jax.nn.logsumexp(logits, -1), (1, 2, 3))
