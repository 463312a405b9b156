"""Terms of the variational bound of a diffusion model in continuous time (Kingma et al. 2021, eq. 11).

α² = σ(-γ) and σ² = σ(γ), where γ(t) = -log SNR(t) rises from γ(0) to γ(1). All terms are nats per image [b].
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax.types import Images, Params, Scalar

Times = Float[Array, " b"]
Ends = Float[Array, " 2"]
"""γ(0) and γ(1)."""


class VLBTerms(NamedTuple):
    """Terms of the variational bound: -log p(x) is at most the expectation of their sum (eq. 11), nats [b].

    Attributes:
      prior: ``prior_loss``.
      diffusion: ``diffusion_loss`` at one random t; the bound has the mean over t and ε.
      decoder: ``reconstruction_loss`` at one random x_{t=0}.
    """

    prior: Times
    diffusion: Times
    decoder: Times


def prior_loss(images: Images, gamma_1: Scalar) -> Times:
    """Compute D(q(x_1|x_0)‖N(0, 1)), nats (eq. 11, first term).

    Args:
      images: x_0.
      gamma_1: γ(1).
    """
    alpha_squared = jax.nn.sigmoid(-gamma_1)
    return 0.5 * jnp.sum(alpha_squared * images**2 - alpha_squared - jnp.log1p(-alpha_squared), (1, 2, 3))


def reconstruction_loss(images: Images, noise: Images, gamma_0: Scalar, num_levels: int) -> Times:
    """Compute -log p(x_0|x_{t=0}), nats (eq. 11, second term): each level in proportion to N(x̄; level, σ̄²) (eq. 12).

    Args:
      images: x_0, at ``num_levels`` even levels in [-1, 1].
      noise: ε of x_{t=0}.
      gamma_0: γ(0).
      num_levels: levels of a pixel.
    """
    x_0 = noisy(images, jnp.broadcast_to(gamma_0, images.shape[:1]), noise)
    x_bar, log_sigma_bar = x_0 / jnp.sqrt(jax.nn.sigmoid(-gamma_0)), 0.5 * gamma_0
    levels = jnp.linspace(-1, 1, num_levels)
    logits = -0.5 * ((x_bar[..., None] - levels) * jnp.exp(-log_sigma_bar)) ** 2
    target = -0.5 * ((x_bar - images) * jnp.exp(-log_sigma_bar)) ** 2
    return -jnp.sum(target - jax.nn.logsumexp(logits, -1), (1, 2, 3))


def diffusion_loss(
    predict: Callable[[Images], Images], images: Images, noise: Images, gamma: Times, gamma_slope: Times
) -> Times:
    """Compute ½ γ'(t) |ε - ε̂(x_t, γ(t))|², nats (eq. 17), whose mean over t and ε is the third term of eq. 11.

    Args:
      predict: the network at γ(t), ``(x_t) -> ε̂``.
      images: x_0.
      noise: ε of x_t.
      gamma: γ(t) [b].
      gamma_slope: γ'(t) [b].
    """
    error = jnp.sum((noise - predict(noisy(images, gamma, noise))) ** 2, (1, 2, 3))
    return 0.5 * gamma_slope * error


def noisy(images: Images, gamma: Times, noise: Images) -> Images:
    """Compute x_t = √σ(-γ) x_0 + √σ(γ) ε (eq. 1 with α² = σ(-γ))."""
    gamma = gamma[:, None, None, None]
    return jnp.sqrt(jax.nn.sigmoid(-gamma)) * images + jnp.sqrt(jax.nn.sigmoid(gamma)) * noise


def with_variance_gradient(terms: Callable[..., VLBTerms], unit: float) -> Callable[..., VLBTerms]:
    """Make the same terms with another gradient by the schedule between its ends: that of the squared diffusion loss.

    One backward pass gives the gradient of each image's loss L by its own γ; by the chain rule, that of L² is 2 L times
    as much (Kingma et al. 2021, App. I.2).

    Args:
      terms: the terms, ``(drawn, network, ends, u, slope) -> VLBTerms`` in nats.
      unit: the unit of L, in nats.
    """

    @jax.custom_vjp
    def same_terms(drawn: Any, network: Params, ends: Ends, u: Times, slope: Times) -> VLBTerms:
        return terms(drawn, network, ends, u, slope)

    def forward(drawn: Any, network: Params, ends: Ends, u: Times, slope: Times) -> tuple[VLBTerms, Any]:
        bound, vjp = jax.vjp(functools.partial(terms, drawn), network, ends, u, slope)
        return bound, (vjp, bound.diffusion)

    def backward(residuals: Any, gradient: VLBTerms) -> tuple[Any, ...]:
        vjp, nats = residuals
        network, ends, u, slope = vjp(gradient)
        twice = 2 * unit * nats
        return None, network, ends, twice * u, twice * slope

    same_terms.defvjp(forward, backward)
    return same_terms
