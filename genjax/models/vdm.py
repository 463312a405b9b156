"""Variational diffusion models (Kingma, Salimans, Poole & Ho 2021, arXiv:2107.00630): the schedule is learned too.

Assumes images of even levels in [-1, 1] and time in [0, 1]; γ(t) = -log SNR(t) is monotone, α² = σ(-γ), σ² = σ(γ).
Loss: D(q(x_1|x_0)‖N(0, 1)) + ½ E_{t, ε} γ'(t) |ε - ε̂(x_t, γ(t))|² - log p(x_0|x_{t=0}), nats (eq. 11 and 17).

Between its ends the schedule changes only the variance of the loss. Its gradient there is that of the squared loss,
which lowers the variance (App. I.2).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks, diffusion, random
from genjax.models import contracts
from genjax.models.vdm_losses import (
    Times,
    VLBTerms,
    diffusion_loss,
    prior_loss,
    reconstruction_loss,
    with_variance_gradient,
)
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

__all__ = ["VDM", "NoiseSchedule", "VLBTerms", "build", "diffusion_loss", "prior_loss", "reconstruction_loss"]

Ends = Float[Array, " 2"]
"""γ(0) and γ(1)."""

Sampler = Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample]
"""Maker of a reverse chain, ``(denoise, grid) -> sample``."""


class NoiseSchedule(nn.Module):
    """γ(t), t in [0, 1]: a line plus a network of positive weights, stretched between two learned ends (App. H).

    The steps of the hidden layer, 0.1 wide, begin evenly spread over [0, 1], so that each part of γ can bend by itself.

    Attributes:
      gamma_min: γ(0) before training.
      gamma_max: γ(1) before training.
      width: number of units of the hidden layer.
    """

    gamma_min: float = -13.3
    gamma_max: float = 5.0
    width: int = 64

    @nn.compact
    def __call__(self, t: Times) -> Times:
        """Compute γ at times [b].

        Raises:
          ValueError: the ends do not rise or are not finite, or ``width`` < 1.
        """
        if not -np.inf < self.gamma_min < self.gamma_max < np.inf:
            raise ValueError(
                f"gamma_min, gamma_max: expected γ(0) < γ(1), got {self.gamma_min:g} and {self.gamma_max:g}"
            )
        checks.count("width", self.width)
        first = self.param("first", nn.initializers.constant(self.gamma_min), ())
        log_gap = float(np.log(self.gamma_max - self.gamma_min))
        gap = self.param("gap", nn.initializers.constant(log_gap), ())
        positive = lambda name, shape: jax.nn.softplus(self.param(name, nn.initializers.normal(0.5), shape))
        slope, inner, outer = positive("slope", ()), positive("inner", (self.width,)), positive("outer", (self.width,))
        middle = self.param("middle", lambda key: jnp.linspace(0.0, 1.0, self.width))
        curve = lambda t: slope * t + jax.nn.sigmoid((t[..., None] - middle) * inner * 30) @ outer / self.width
        start, end = curve(jnp.zeros(1)), curve(jnp.ones(1))
        return first + jnp.exp(gap) * (curve(t) - start) / (end - start)


class VDM(NamedTuple):
    """The model as pure functions.

    Attributes:
      init: parameters of the network and of the schedule, ``(key) -> params``.
      loss: training loss, ``(key, params, batch) -> (bits per dimension, metrics)``, with ``prior``, ``diffusion`` and
        ``decoder`` in the same unit as metrics. The batch has ``image`` [b h w c]; its optional ``time`` [b] in [0, 1)
        are the times, which are uniform otherwise. Dropout is on, and the gradient of the schedule is that of the
        variance.
      losses: terms of the bound without dropout, ``(key, params, batch) -> VLBTerms``.
      gamma: the schedule, ``(params, t [b]) -> γ [b]``.
      grid: grid of even times, ``(params, num_steps) -> Grid``; the network is conditioned on γ.
      denoise: denoiser on such a grid, ``(params) -> denoise``.
      sample: new images, ``(key, params, num, keep=None) -> images [num h w c]``; for ``keep`` see
        ``diffusion.Sample``.
      optimizer: optimizer for these parameters, made of another, ``(inner) -> optimizer``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], VLBTerms]
    gamma: Callable[[Params, Times], Times]
    grid: Callable[[Params, int], diffusion.Grid]
    denoise: Callable[[Params], diffusion.Denoise]
    sample: Callable[..., Any]
    optimizer: contracts.MakeOptimizer = contracts.unchanged


class _Setup(NamedTuple):
    """Arguments of ``build``."""

    network: nn.Module
    shape: tuple[int, int, int]
    schedule: nn.Module
    num_levels: int
    sampler: Sampler
    num_steps: int


class _Drawn(NamedTuple):
    """Random numbers of a loss, and the images at levels.

    Attributes:
      images: x_0, at levels.
      t: times [b].
      noise: ε of x_t.
      first_noise: ε of x_{t=0}.
      dropout_keys: keys for dropout; None without.
    """

    images: Images
    t: Times
    noise: Images
    first_noise: Images
    dropout_keys: Key | None


def _init(setup: _Setup, key: Key) -> Params:
    network_key, schedule_key = jax.random.split(key)
    network = setup.network.init(network_key, jnp.zeros((1, *setup.shape)), jnp.zeros(1)).get("params", {})
    return {"network": network, "schedule": setup.schedule.init(schedule_key, jnp.zeros(1))["params"]}


def _gamma(setup: _Setup, params: Params, t: Times) -> Times:
    return jnp.asarray(setup.schedule.apply({"params": params["schedule"]}, t))


def _ends(setup: _Setup, params: Params) -> Ends:
    return _gamma(setup, params, jnp.array([0.0, 1.0]))


def _apply(setup: _Setup, network: Params, x: Images, u: Times, keys: Key | None) -> Images:
    """The network, which is conditioned on 1000 times u, the place of γ between its ends in [0, 1]."""
    dropout: dict[str, Any] = {"keys": keys} if contracts.takes_keys(setup.network) else {}
    return jnp.asarray(setup.network.apply({"params": network}, x, 1000 * u, **dropout))


def _terms(setup: _Setup, drawn: _Drawn, network: Params, ends: Ends, u: Times, slope: Times) -> VLBTerms:
    """The terms of the bound, as a function of γ(t) = γ(0) + (γ(1) - γ(0)) u(t) and of u'(t)."""
    gamma_range = ends[1] - ends[0]
    predict = lambda x_t: _apply(setup, network, x_t, u, drawn.dropout_keys)
    return VLBTerms(
        prior=prior_loss(drawn.images, ends[1]),
        diffusion=diffusion_loss(predict, drawn.images, drawn.noise, ends[0] + gamma_range * u, gamma_range * slope),
        decoder=reconstruction_loss(drawn.images, drawn.first_noise, ends[0], setup.num_levels),
    )


def _draw(setup: _Setup, key: Key, batch: Batch, training: bool) -> _Drawn:
    images = checks.batch("image", batch["image"])
    top = setup.num_levels - 1
    images = (jnp.round((images + 1) / 2 * top) / top) * 2 - 1
    keys = random.split(random.example_keys(key, images.shape[0]), 4)
    if "time" in batch:
        checks.within("time", batch["time"], 0, 1)
    t = batch["time"] if "time" in batch else jax.vmap(jax.random.uniform)(keys[0])
    noise, first_noise = (random.normal(k, setup.shape, images.dtype) for k in keys[1:3])
    return _Drawn(images, t, noise, first_noise, keys[3] if training else None)


def _schedule_at(setup: _Setup, params: Params, t: Times) -> tuple[Ends, Times, Times]:
    """The ends of γ, and at times t the place u of γ between them and its slope u'(t)."""

    def place(t: Times) -> Times:
        ends = _ends(setup, params)
        return (_gamma(setup, params, t) - ends[0]) / (ends[1] - ends[0])

    u, slope = jax.jvp(place, (t,), (jnp.ones_like(t),))
    return _ends(setup, params), u, slope


def _losses(setup: _Setup, key: Key, params: Params, batch: Batch) -> VLBTerms:
    drawn = _draw(setup, key, batch, training=False)
    return _terms(setup, drawn, params["network"], *_schedule_at(setup, params, drawn.t))


def _loss(setup: _Setup, key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
    bits = 1 / (float(np.prod(setup.shape)) * np.log(2.0))
    drawn = _draw(setup, key, batch, training=True)
    terms = with_variance_gradient(functools.partial(_terms, setup), bits)
    bound = terms(drawn, params["network"], *_schedule_at(setup, params, drawn.t))
    bound = jax.tree.map(lambda nats: nats * bits, bound)
    means = {name: value.mean() for name, value in bound._asdict().items()}
    return means["prior"] + means["diffusion"] + means["decoder"], means


def _grid(setup: _Setup, params: Params, num_steps: int) -> diffusion.Grid:
    checks.count("num_steps", num_steps)
    gamma = _gamma(setup, params, jnp.linspace(1.0, 0.0, num_steps + 1))
    alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))
    return diffusion.Grid(gamma, alpha.at[-1].set(1.0), sigma.at[-1].set(0.0))


def _denoiser(setup: _Setup, params: Params) -> diffusion.Denoise:
    ends = _ends(setup, params)
    return lambda x, gamma: _apply(setup, params["network"], x, (gamma - ends[0]) / (ends[1] - ends[0]), None)


def _sample(setup: _Setup, key: Key, params: Params, num: int, keep: Sequence[int] | None = None) -> Any:
    checks.count("num", num, 0)
    start_keys, chain_keys = random.split(random.example_keys(key, num), 2)
    sample = setup.sampler(_denoiser(setup, params), _grid(setup, params, setup.num_steps))
    return sample(chain_keys, random.normal(start_keys, setup.shape), keep)


def build(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    schedule: nn.Module | None = None,
    num_levels: int = 256,
    sampler: Sampler | None = None,
    num_steps: int = 250,
) -> VDM:
    """Make the model.

    Args:
      network: network ``(x_t, cond [b]) -> ε``, where ``cond`` is 1000 times the place of γ between its ends; see
        ``genjax.nn.protocols.Denoiser``.
      shape: (h, w, c) of an image.
      schedule: rising schedule, ``schedule(t [b]) -> γ [b]``; ``NoiseSchedule()`` by default.
      num_levels: levels of a pixel; images are rounded to the nearest.
      sampler: maker of the reverse chain; by default ancestral, ``diffusion.ddim_on_grid`` with η = 1.
      num_steps: steps of the chain, at even times.

    Raises:
      ValueError: ``num_levels`` < 2 or ``num_steps`` < 1; the schedule does not rise; the network does not take images
        of this shape, does not return them, or has variables other than parameters; or the sampler is impossible.

    Warns:
      diffusion.StartWarning: much of the image is left at the end of the untrained schedule.
    """
    if not num_levels >= 2 or not num_steps >= 1:
        raise ValueError(f"num_levels, num_steps: expected at least 2 and 1, got {num_levels} and {num_steps}")
    checks.count("num_levels", num_levels)
    checks.count("num_steps", num_steps)
    sampler = sampler or functools.partial(diffusion.ddim_on_grid, eta=1.0)
    setup = _Setup(network, shape, schedule or NoiseSchedule(), num_levels, sampler, num_steps)
    untrained = {"schedule": setup.schedule.init(jax.random.key(0), jnp.zeros(1))["params"]}
    ends = _ends(setup, untrained)
    if checks.is_concrete(ends) and not ends[0] < ends[1]:
        raise ValueError(f"schedule: expected γ(0) < γ(1), got {float(ends[0]):g} and {float(ends[1]):g}")
    predict = lambda params: _apply(setup, params, jnp.zeros((1, *shape)), jnp.zeros(1), None)
    sampler(lambda x, gamma: x, _grid(setup, untrained, num_steps))  # refuses impossible settings now
    contracts.check_denoiser(network, predict, shape, jnp.zeros(1))
    return VDM(
        init=functools.partial(_init, setup),
        loss=functools.partial(_loss, setup),
        losses=functools.partial(_losses, setup),
        gamma=functools.partial(_gamma, setup),
        grid=functools.partial(_grid, setup),
        denoise=functools.partial(_denoiser, setup),
        sample=functools.partial(_sample, setup),
    )
