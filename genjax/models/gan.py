"""Generative adversarial networks (Goodfellow et al. 2014): two players, one step.

The discriminator D tells data from what the generator G makes of noise z ~ N(0, I); G wants to be taken for data:
    min_G max_D V(D, G),  V = E log D(x) + E log(1 - D(G(z))).

Both losses are one, L = L_D(sg(G), D) + L_G(G, sg(D)): each player's gradient is that of its own loss, so the step that
trains every other model trains this one, with an optimizer for each player (``optimizer``).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from genjax import checks, random, statistics
from genjax.types import Batch, Images, Key, Loss, Number, Params, Scalar

Labels = Any
"""A class for each image: whole numbers [b]."""
Logits = Float[Array, " b"]
"""D's answer for each image: log odds of data, or a score."""


Table = Float[Array | np.ndarray, "..."]


class GANLoss(NamedTuple):
    """What the players minimise, for each image.

    Fields:
      discriminator: ``(logits of data, logits of what was made) -> [b]``.
      generator: ``(logits of what was made) -> [b]``.
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
    """D* = p / (p + q): the best answer to data p and a generator q, of tables or densities (proposition 1).

    Where neither has mass every answer is as good as any, and 1/2 is given.

    With it V = -log 4 + 2 JSD(p, q) (theorem 1); ``theory.information.jensen_shannon`` is the latter.

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
"""By name."""


def gradient_penalty(critic: Callable[[Images], Logits], images: Images) -> Logits:
    """(‖∇_x D(x)‖ - 1)² of each image (WGAN-GP, Gulrajani et al. 2017, eq. 3); they put points between data and fakes.

    >>> w = jnp.array([3.0, 4.0]).reshape(1, 2, 1)  # a linear D has the slope |w| everywhere
    >>> gradient_penalty(lambda x: jnp.sum(w * x, (1, 2, 3)), jnp.zeros((2, 1, 2, 1)))
    Array([16., 16.], dtype=float32)
    """
    norm = jnp.sqrt(_squared_slope(critic, images) + 1e-12)  # the root of 0 has no gradient
    return (norm - 1) ** 2


def r1(critic: Callable[[Images], Logits], images: Images) -> Logits:
    """½ ‖∇_x D(x)‖² of each image of the data (Mescheder et al. 2018, eq. 9)."""
    return _squared_slope(critic, images) / 2


def _squared_slope(critic: Callable[[Images], Logits], images: Images) -> Logits:
    return jnp.sum(jax.grad(lambda x: critic(x).sum())(images) ** 2, (1, 2, 3))


@runtime_checkable
class Sample(Protocol):
    """``(key, params, num, labels=None) -> images``."""

    def __call__(self, key: Key, params: Params, num: int, labels: Labels | None = None) -> Images: ...  # noqa: D102


class GAN(NamedTuple):
    """A generative adversarial network as pure functions.

    Fields:
      init: ``(key) -> params``, with the parts ``generator`` and ``discriminator``.
      loss: ``(key, params, batch) -> (scalar, metrics)``; the batch has ``image``, and ``label`` where the networks are
        conditional. Metrics: ``discriminator`` and ``generator``, each player's loss; ``real`` and ``fake``, mean
        logits; ``penalty``.
      generate: ``(params, z [b d], labels=None) -> images``.
      sample: ``(key, params, num, labels=None) -> images``; image i depends on (key, i) only.
      discriminate: ``(params, images, labels=None) -> logits [b]``.
    """

    init: Callable[[Key], Params]
    loss: Loss
    generate: Callable[..., Images]
    sample: Sample
    discriminate: Callable[..., Logits]


def build(
    generator: nn.Module,
    discriminator: nn.Module,
    gan_loss: GANLoss,
    shape: tuple[int, int, int],
    *,
    latent_dim: int = 64,
    gp_weight: Number = 0.0,
    r1_weight: Number = 0.0,
) -> GAN:
    """A GAN of two networks and what they minimise.

    Args:
      generator: ``network(z, labels=None) -> [b h w c]``, in [-1, 1].
      discriminator: ``network(images, labels=None) -> [b 1]``; a sown ``aux_loss`` is added to the loss
        (``nn.spectral``).
      gan_loss: what each minimises.
      shape: (h, w, c) of an image.
      latent_dim: d, numbers of z.
      gp_weight: weight of ``gradient_penalty`` between data and fakes; 10 in the paper.
      r1_weight: weight of ``r1`` at the data.

    Raises:
      ValueError: the networks' outputs do not fit, or a weight is negative or not finite.
    """
    checks.count("latent_dim", latent_dim)
    checks.counts("shape", shape, length=3)
    checks.nonnegative("gp_weight", gp_weight)
    checks.nonnegative("r1_weight", r1_weight)
    num_classes = getattr(generator, "num_classes", 0)

    def labels_of(batch: Batch) -> Labels | None:
        if not num_classes:
            return None
        if "label" not in batch:
            raise ValueError("batch: a conditional model needs label, a class for each image; this data has none")
        return checks.labels("label", batch["label"], num_classes, np.shape(batch["image"])[0])

    def images_of(name: str, images: Any) -> Images:
        return checks.images(name, images, shape, -math.inf, math.inf)  # points of a plane may lie anywhere

    def generate(params: Params, z: Any, labels: Labels | None = None) -> Images:
        checks.vectors("z", z, latent_dim)
        labels = checks.labels("labels", labels, num_classes, np.shape(z)[0])
        return jnp.asarray(generator.apply({"params": params["generator"]}, z, labels))

    def discriminate(params: Params, images: Any, labels: Labels | None = None) -> Logits:
        images = images_of("images", images)
        labels = checks.labels("labels", labels, num_classes, images.shape[0])
        return jnp.asarray(discriminator.apply({"params": params["discriminator"]}, images, labels))[:, 0]

    def init(key: Key) -> Params:
        generator_key, discriminator_key = jax.random.split(key)
        labels = jnp.zeros(1, jnp.int32) if num_classes else None
        made = generator.init(generator_key, jnp.zeros((1, latent_dim)), labels)
        judge = discriminator.init(discriminator_key, jnp.zeros((1, *shape)), labels)
        return statistics.mark(
            {"generator": made["params"], "discriminator": judge["params"]}, pulled(judge.get("aux_loss", {}))
        )

    def pulled(sown: Any) -> dict[statistics.Path, float]:
        """The parameters that the discriminator's layers pull at, by the names they sow; all the way."""
        paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(sown))
        return {("discriminator", *(key.key for key in path if hasattr(key, "key"))): 1.0 for path in paths}

    def loss(key: Key, params: Params, batch: Batch):
        real, labels = images_of("image", batch["image"]), labels_of(batch)
        keys = random.split(random.example_keys(key, real.shape[0]), 3)
        still = jax.lax.stop_gradient(params)
        theirs, mine = params | {"generator": still["generator"]}, params | {"discriminator": still["discriminator"]}

        fake = generate(theirs, random.normal(keys[0], (latent_dim,)), labels)
        variables = {"params": params["discriminator"]}
        answer, sown = discriminator.apply(variables, real, labels, mutable=["aux_loss"])
        real_logits, fake_logits = jnp.asarray(answer)[:, 0], discriminate(theirs, fake, labels)
        critic = lambda images: discriminate(theirs, images, labels)
        penalty = jnp.zeros(real.shape[0])
        if not _absent(gp_weight):
            share = jax.vmap(lambda key: jax.random.uniform(key, (1, 1, 1)))(keys[1])
            penalty += gp_weight * gradient_penalty(critic, share * real + (1 - share) * fake)
        if not _absent(r1_weight):
            penalty += r1_weight * r1(critic, real)
        judged = jnp.mean(gan_loss.discriminator(real_logits, fake_logits))

        drawn = generate(mine, random.normal(keys[2], (latent_dim,)), labels)
        made = jnp.mean(gan_loss.generator(discriminate(mine, drawn, labels)))
        metrics = {
            "discriminator": judged,
            "generator": made,
            "penalty": penalty.mean(),
            "real": real_logits.mean(),
            "fake": fake_logits.mean(),
        }
        statistics.require(params, pulled(sown.get("aux_loss", {})))
        pull = sum(jnp.sum(p) for p in jax.tree.leaves(sown))
        return judged + penalty.mean() + made + pull - jax.lax.stop_gradient(pull), metrics

    def sample(key: Key, params: Params, num: int, labels: Labels | None = None) -> Images:
        return generate(params, random.normal(random.example_keys(key, num), (latent_dim,)), labels)

    def trial(key: Key):
        params, labels = init(key), jnp.zeros(1, jnp.int32) if num_classes else None
        images = generate(params, jnp.zeros((1, latent_dim)), labels)
        variables = {"params": params["discriminator"]}
        return images, discriminator.apply(variables, jnp.zeros((1, *shape)), labels)

    if getattr(discriminator, "num_classes", 0) != num_classes:
        raise ValueError(f"discriminator: expected {num_classes} classes, as many as the generator has")
    made, judged = jax.eval_shape(trial, jax.eval_shape(lambda: jax.random.key(0)))
    if made.shape[1:] != shape:
        raise ValueError(f"generator: expected images of shape {shape}, got {made.shape[1:]}")
    if judged.shape != (1, 1):
        raise ValueError(f"discriminator: expected one logit for each image, got {judged.shape[1:]}")
    return GAN(init, loss, generate, sample, discriminate)


def optimizer(
    generator: optax.GradientTransformation, discriminator: optax.GradientTransformation, *, n_critic: int = 1
) -> optax.GradientTransformation:
    """An optimizer for each player; the generator moves at every ``n_critic``-th step, and otherwise rests.

    The running vectors of ``nn.spectral`` go all the way to where they are pulled (``genjax.statistics``).

    Raises:
      ValueError: ``n_critic`` below 1.
    """
    if isinstance(n_critic, bool) or not isinstance(n_critic, int) or n_critic < 1:
        raise ValueError(f"n_critic: expected at least 1 step of the discriminator, got {n_critic}")
    if n_critic > 1:
        generator = optax.conditionally_mask(generator, lambda step: step % n_critic == n_critic - 1)
    players = {"generator": generator, "discriminator": discriminator}
    return statistics.optimizer(players, lambda path: path[0])


def _absent(weight: Number) -> bool:
    """A number that is known to be zero."""
    return isinstance(weight, (int, float)) and weight == 0
