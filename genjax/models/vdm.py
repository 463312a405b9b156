"""Variational diffusion models (Kingma, Salimans, Poole & Ho 2021, arXiv:2107.00630): the schedule is learned too.

Assumes images of even levels in [-1, 1] and time in [0, 1]; γ(t) = -log SNR(t) is monotone, α² = σ(-γ), σ² = σ(γ).
Loss: D(q(x_1|x_0)‖N(0, 1)) + ½ E_{t, ε} γ'(t) |ε - ε̂(x_t, γ(t))|² - log p(x_0|x_{t=0}), nats (eq. 11 and 17).

Between its ends the schedule changes the variance of the loss alone; there, its gradient is the square's (App. I.2).
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
from genjax.types import Batch, Images, Key, Loss, Metrics, Params, Scalar

Times = Float[Array, " b"]
Ends = Float[Array, " 2"]


class NoiseSchedule(nn.Module):
    """γ(t), t in [0, 1]: a line plus a network of positive weights, stretched between two learned ends (App. H).

    The steps of the hidden layer, 0.1 wide, begin evenly spread over [0, 1], so that each part of γ can bend by itself.

    Fields:
      gamma_min: γ(0) before training.
      gamma_max: γ(1) before training.
      width: of the hidden layer.
    """

    gamma_min: float = -13.3
    gamma_max: float = 5.0
    width: int = 64

    @nn.compact
    def __call__(self, t: Times) -> Times:
        """γ at times [b].

        Raises:
          ValueError: ends that do not rise or are not finite, or a layer of no width.
        """
        if not -np.inf < self.gamma_min < self.gamma_max < np.inf:
            raise ValueError(
                f"gamma_min, gamma_max: expected γ(0) < γ(1), got {self.gamma_min:g} and {self.gamma_max:g}"
            )
        checks.count("width", self.width)
        low = self.param("first", nn.initializers.constant(self.gamma_min), ())
        gap = self.param("gap", nn.initializers.constant(float(np.log(self.gamma_max - self.gamma_min))), ())
        positive = lambda name, shape: jax.nn.softplus(self.param(name, nn.initializers.normal(0.5), shape))
        slope, inner, outer = positive("slope", ()), positive("inner", (self.width,)), positive("outer", (self.width,))
        middle = self.param("middle", lambda key: jnp.linspace(0.0, 1.0, self.width))
        curve = lambda t: slope * t + jax.nn.sigmoid((t[..., None] - middle) * inner * 30) @ outer / self.width
        start, end = curve(jnp.zeros(1)), curve(jnp.ones(1))
        return low + jnp.exp(gap) * (curve(t) - start) / (end - start)


class VDM(NamedTuple):
    """The model as pure functions.

    Fields:
      init: ``(key) -> params``, of the network and of the schedule.
      loss: ``(key, params, batch) -> (bits per dimension, metrics)``; ``prior``, ``diffusion`` and ``decoder`` in the
        same unit. The batch has ``image`` [b h w c], and may have ``time`` [b] in [0, 1); else t is uniform. This one
        is for training: dropout is on, and the gradient of the schedule is that of the variance.
      losses: ``(key, params, batch) -> VLBTerms``, nats per image [b].
      gamma: ``(params, t [b]) -> γ [b]``.
      grid: ``(params, num_steps) -> Grid``, whose network is told γ.
      denoise: ``(params) -> denoise``, on such a grid.
      sample: ``(key, params, num, keep=None) -> images [num h w c]``; ``keep`` is as in ``diffusion.samplers.Sample``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    losses: Callable[[Key, Params, Batch], "VLBTerms"]
    gamma: Callable[[Params, Times], Times]
    grid: Callable[[Params, int], diffusion.Grid]
    denoise: Callable[[Params], diffusion.Denoise]
    sample: Callable[..., Any]


class VLBTerms(NamedTuple):
    """-log p(x) is at most the expectation of the sum, nats per image [b].

    Fields:
      prior: D(q(x_1|x_0)‖N(0, 1)).
      diffusion: ½ γ'(t) |ε - ε̂|² at one random t: its mean over t and ε is meant.
      decoder: -log p(x_0|x_{t=0}) at one random x_{t=0}.
    """

    prior: Times
    diffusion: Times
    decoder: Times


def build(
    network: nn.Module,
    shape: tuple[int, int, int],
    *,
    schedule: nn.Module | None = None,
    num_levels: int = 256,
    sampler: Callable[[diffusion.Denoise, diffusion.Grid], diffusion.Sample] | None = None,
    num_steps: int = 250,
) -> VDM:
    """The model.

    Args:
      network: ``network(x_t, time [b]) -> ε``; it is told 1000 times the place of γ between its ends. One with dropout
        also takes ``keys``, one per image, and drops only where it gets them.
      shape: (h, w, c) of an image.
      schedule: ``schedule(t [b]) -> γ [b]``, rising; ``NoiseSchedule()`` by default.
      num_levels: of the pixels; images are taken to the nearest.
      sampler: ``(denoise, grid) -> sample``; by default ancestral, ``diffusion.ddim_on_grid`` with η = 1.
      num_steps: of the chain that draws, at even t.

    Raises:
      ValueError: fewer than 2 levels, or no step; a schedule that does not rise; the network does not take images of
        this shape, or does not return them; or a sampler that cannot be.

    Warns:
      diffusion.StartWarning: the schedule ends, before training, where much of the image is left.
    """
    if not num_levels >= 2 or not num_steps >= 1:
        raise ValueError(f"num_levels, num_steps: expected at least 2 and 1, got {num_levels} and {num_steps}")
    checks.count("num_levels", num_levels)
    checks.count("num_steps", num_steps)
    curve, draws = schedule or NoiseSchedule(), sampler or functools.partial(diffusion.ddim_on_grid, eta=1.0)
    drops = contracts.takes_keys(network)
    bits = 1 / (float(np.prod(shape)) * np.log(2.0))

    def init(key: Key) -> Params:
        first, second = jax.random.split(key)
        found = network.init(first, jnp.zeros((1, *shape)), jnp.zeros(1)).get("params", {})
        return {"network": found, "schedule": curve.init(second, jnp.zeros(1))["params"]}

    def gamma(params: Params, t: Times) -> Times:
        return jnp.asarray(curve.apply({"params": params["schedule"]}, t))

    def ends_of(params: Params) -> Ends:
        return gamma(params, jnp.array([0.0, 1.0]))

    def rise(params: Params, t: Times) -> Times:
        """γ's place between its ends, from 0 to 1."""
        ends = ends_of(params)
        return (gamma(params, t) - ends[0]) / (ends[1] - ends[0])

    def said(net: Params, x: Images, place: Times, keys: Key | None) -> Images:
        extra: dict[str, Any] = {"keys": keys} if drops else {}
        return jnp.asarray(network.apply({"params": net}, x, 1000 * place, **extra))

    def terms(drawn: _Drawn, net: Params, ends: Ends, place: Times, speed: Times) -> VLBTerms:
        images, noise = drawn.images, drawn.noise
        stretch = ends[1] - ends[0]
        x_t = _noisy(images, ends[0] + stretch * place, noise)
        error = jnp.sum((noise - said(net, x_t, place, drawn.dropout_keys)) ** 2, (1, 2, 3))
        left = jax.nn.sigmoid(-ends[1])
        prior = 0.5 * jnp.sum(left * images**2 - left - jnp.log1p(-left), (1, 2, 3))
        seen = _noisy(images, jnp.broadcast_to(ends[0], place.shape), drawn.first) / jnp.sqrt(jax.nn.sigmoid(-ends[0]))
        return VLBTerms(prior, 0.5 * stretch * speed * error, -_reconstruct(images, seen, 0.5 * ends[0], num_levels))

    def draw(key: Key, batch: Batch, training: bool) -> tuple[_Drawn, Times]:
        given = checks.batch("image", batch["image"])
        images = (jnp.round((given + 1) / 2 * (num_levels - 1)) / (num_levels - 1)) * 2 - 1
        keys = random.split(random.example_keys(key, images.shape[0]), 4)
        if "time" in batch:
            checks.within("time", batch["time"], 0, 1)
        t = batch["time"] if "time" in batch else jax.vmap(jax.random.uniform)(keys[0])
        noise, first = (random.normal(k, shape, images.dtype) for k in keys[1:3])
        return _Drawn(images, noise, first, keys[3] if training else None), t

    def at(params: Params, t: Times) -> tuple[Params, Ends, Times, Times]:
        place, speed = jax.jvp(functools.partial(rise, params), (t,), (jnp.ones_like(t),))
        return params["network"], ends_of(params), place, speed

    def losses(key: Key, params: Params, batch: Batch) -> VLBTerms:
        drawn, t = draw(key, batch, training=False)
        return terms(drawn, *at(params, t))

    def loss(key: Key, params: Params, batch: Batch) -> tuple[Scalar, Metrics]:
        drawn, t = draw(key, batch, training=True)
        bound = jax.tree.map(lambda nats: nats * bits, _steadied(terms, bits)(drawn, *at(params, t)))
        means = {name: value.mean() for name, value in bound._asdict().items()}
        return means["prior"] + means["diffusion"] + means["decoder"], means

    def grid(params: Params, num_steps: int) -> diffusion.Grid:
        checks.count("num_steps", num_steps)
        g = gamma(params, jnp.linspace(1.0, 0.0, num_steps + 1))
        signal, noise = jnp.sqrt(jax.nn.sigmoid(-g)), jnp.sqrt(jax.nn.sigmoid(g))
        return diffusion.Grid(g, signal.at[-1].set(1.0), noise.at[-1].set(0.0))

    def denoise(params: Params) -> diffusion.Denoise:
        ends = ends_of(params)
        return lambda x, g: said(params["network"], x, (g - ends[0]) / (ends[1] - ends[0]), None)

    def sample(key: Key, params: Params, num: int, keep: Sequence[int] | None = None):
        checks.count("num", num, 0)
        start_keys, chain_keys = random.split(random.example_keys(key, num), 2)
        return draws(denoise(params), grid(params, num_steps))(chain_keys, random.normal(start_keys, shape), keep)

    untrained = {"schedule": curve.init(jax.random.key(0), jnp.zeros(1))["params"]}
    ends = ends_of(untrained)
    if checks.is_concrete(ends) and not ends[0] < ends[1]:
        raise ValueError(f"schedule: expected γ(0) < γ(1), got {float(ends[0]):g} and {float(ends[1]):g}")
    draws(lambda x, g: x, grid(untrained, num_steps))  # what it refuses, it refuses here
    contracts.check_output(lambda key: said(init(key)["network"], jnp.zeros((1, *shape)), jnp.zeros(1), None), shape)
    return VDM(init, loss, losses, gamma, grid, denoise, sample)


class _Drawn(NamedTuple):
    """What a loss draws, besides its times; keys are for dropout."""

    images: Images
    noise: Images
    first: Images
    dropout_keys: Key | None


def _steadied(terms: Callable[..., VLBTerms], unit: float) -> Callable[..., VLBTerms]:
    """The same terms, whose gradient by the schedule between its ends is that of the square of the diffusion term,
    counted in a unit.

    One backward pass gives the gradient of each term by its own γ; by the chain rule, that of its square is 2 L times
    as much (Kingma et al. 2021, App. I.2).
    """

    @jax.custom_vjp
    def steadied(drawn, net, ends, place, speed):
        return terms(drawn, net, ends, place, speed)

    def forward(drawn, net, ends, place, speed):
        found, pull = jax.vjp(functools.partial(terms, drawn), net, ends, place, speed)
        return found, (pull, found.diffusion)

    def backward(kept, gradient: VLBTerms):
        pull, nats = kept
        net, ends, place, speed = pull(gradient)
        twice = 2 * unit * nats
        return None, net, ends, twice * place, twice * speed

    steadied.defvjp(forward, backward)
    return steadied


def _noisy(images: Images, g: Times, noise: Images) -> Images:
    g = g[:, None, None, None]
    return jnp.sqrt(jax.nn.sigmoid(-g)) * images + jnp.sqrt(jax.nn.sigmoid(g)) * noise


def _reconstruct(images: Images, seen: Images, log_spread: Scalar, num_levels: int) -> Times:
    """log p(x_0|x_{t=0}): the levels in proportion to N(seen; level, spread²) (eq. 12)."""
    levels = jnp.linspace(-1, 1, num_levels)
    logits = -0.5 * ((seen[..., None] - levels) * jnp.exp(-log_spread)) ** 2
    truth = -0.5 * ((seen - images) * jnp.exp(-log_spread)) ** 2
    return jnp.sum(truth - jax.nn.logsumexp(logits, -1), (1, 2, 3))
