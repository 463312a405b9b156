"""The losses of GANs: each player's, the game they belong to in closed form, and penalties on the gradient of D."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks
from genjax.types import Images, Key, Number, Scalar

Logits = Float[Array, " b"]
"""D's output for each image: log odds of data, or a score."""
Table = Float[Array | np.ndarray, "..."]


class GANLoss(NamedTuple):
    """The losses of both players, for each image.

    Attributes:
      discriminator: ``(logits of data, logits of generated images) -> [b]``.
      generator: ``(logits of generated images) -> [b]``.
    """

    discriminator: Callable[[Logits, Logits], Logits]
    generator: Callable[[Logits], Logits]


def value(real: Logits, fake: Logits) -> Scalar:
    """V = E log σ(real) + E log(1 - σ(fake)) (Goodfellow et al. 2014, eq. 1), nats; -log 4 where D cannot tell.

    >>> round(float(value(jnp.zeros(3), jnp.zeros(3))), 4)
    -1.3863

    Raises:
      ValueError: no logits, or logits that are not of floating point.
    """
    for name, logits in (("real", real), ("fake", fake)):
        checks.min_rows(name, logits)
        checks.floating(name, logits)
    return jnp.mean(jax.nn.log_sigmoid(real)) + jnp.mean(jax.nn.log_sigmoid(-fake))


def optimal_discriminator(p: Table, q: Table) -> Table:
    """D* = p / (p + q): the best discriminator of data p and a generator q, as tables or densities (proposition 1).

    Where neither has mass every D is best, and 1/2 is returned. With D*, V = -log 4 + 2 JSD(p, q) (theorem 1;
    ``theory.information.jensen_shannon``).

    >>> float(optimal_discriminator(jnp.array(0.3), jnp.array(0.1)))
    0.75

    Raises:
      ValueError: a number is negative or not finite.
    """
    checks.nonnegative("p", p)
    checks.nonnegative("q", q)
    xp = jnp if isinstance(p, jax.Array) or isinstance(q, jax.Array) else np
    half = p / 2 + q / 2  # p + q may pass the largest number
    return xp.where(half > 0, p / 2, 1) / xp.where(half > 0, half, 2)


def _cross_entropy(real: Logits, fake: Logits) -> Logits:
    return jax.nn.softplus(-real) + jax.nn.softplus(fake)


minimax = GANLoss(_cross_entropy, lambda fake: -jax.nn.softplus(fake))
"""Goodfellow et al. 2014, eq. 1: G descends log(1 - D), which is flat where D is sure."""
non_saturating = GANLoss(_cross_entropy, lambda fake: jax.nn.softplus(-fake))
"""The same D; G descends -log D (§3)."""
least_squares = GANLoss(lambda real, fake: ((real - 1) ** 2 + fake**2) / 2, lambda fake: (fake - 1) ** 2 / 2)
"""Mao et al. 2017, eq. 9: 1 is data, 0 is not."""
hinge = GANLoss(lambda real, fake: jax.nn.relu(1 - real) + jax.nn.relu(1 + fake), lambda fake: -fake)
"""Lim & Ye 2017; Miyato et al. 2018, eq. 16 and 17."""
wasserstein = GANLoss(lambda real, fake: fake - real, lambda fake: -fake)
"""Arjovsky et al. 2017: the 1-Wasserstein distance, for a D of slope at most 1; wants ``gradient_penalty``."""

LOSSES = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "least_squares": least_squares,
    "hinge": hinge,
    "wasserstein": wasserstein,
}
"""The losses by name."""


def gradient_penalty(critic: Callable[[Images], Logits], images: Images) -> Logits:
    """(‖∇_x D(x)‖ - 1)² of each image, which Gulrajani et al. 2017 put between data and fakes (WGAN-GP, eq. 3).

    >>> w = jnp.array([3.0, 4.0]).reshape(1, 2, 1)  # a linear D has the slope |w| everywhere
    >>> gradient_penalty(lambda x: jnp.sum(w * x, (1, 2, 3)), jnp.zeros((2, 1, 2, 1)))
    Array([16., 16.], dtype=float32)
    """
    norm = jnp.sqrt(_squared_gradient_norm(critic, images) + 1e-12)  # the root of 0 has no gradient
    return (norm - 1) ** 2


def r1(critic: Callable[[Images], Logits], images: Images) -> Logits:
    """½ ‖∇_x D(x)‖² of each image of the data (Mescheder et al. 2018, eq. 9)."""
    return _squared_gradient_norm(critic, images) / 2


def _squared_gradient_norm(critic: Callable[[Images], Logits], images: Images) -> Logits:
    return jnp.sum(jax.grad(lambda x: critic(x).sum())(images) ** 2, (1, 2, 3))


def penalty(
    critic: Callable[[Images], Logits], real: Images, fake: Images, keys: Key, gp_weight: Number, r1_weight: Number
) -> Float[Array, " b"]:
    """The weighted gradient penalties of each image.

    Args:
      critic: D, ``(images) -> logits``.
      real: images of the data.
      fake: generated images.
      keys: keys [b], for the points between data and fakes.
      gp_weight: weight of ``gradient_penalty``; at 0 it is not computed.
      r1_weight: weight of ``r1``; at 0 it is not computed.
    """
    total = jnp.zeros(real.shape[0])
    if not _is_zero(gp_weight):
        share = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1)))(keys)
        total += gp_weight * gradient_penalty(critic, share * real + (1 - share) * fake)
    if not _is_zero(r1_weight):
        total += r1_weight * r1(critic, real)
    return total


def _is_zero(weight: Number) -> bool:
    """True for a weight that is known to be zero."""
    return isinstance(weight, (int, float)) and weight == 0
