"""Information theory (Shannon 1948; Cover & Thomas 2006, ch. 2): how many nats, or bits, a distribution needs.

Distributions are arrays of probabilities over ``axis`` (one, or several for a joint distribution); the other axes are
a batch. Everything is in nats, and in bits where the name ends so. 0 · log 0 = 0, and subnormal numbers are 0 to XLA.
Outside ``jit`` a ``ValueError`` says which row is no distribution.

Gradients are finite everywhere: where the true slope is infinite (the entropy's at p = 0) or the value itself is (KL
where q misses mass) the term in question contributes no slope. To optimise up to that edge use the forms from logits.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as Numbers

from genjax.theory import simplex
from genjax.theory.simplex import Axis

Values = Float[Array, "..."]
"""One number for each row of the batch."""


def bits(nats: Numbers) -> Values:
    """Nats to bits: divided by log 2."""
    return jnp.asarray(nats) / math.log(2)


def bits_per_dim(nats: Numbers, num_dims: int) -> Values:
    """Nats of a whole example to bits for each of its ``num_dims`` dimensions (of an image: h · w · c)."""
    return bits(nats) / num_dims


def self_information(p: Numbers) -> Values:
    """I(x) = -log p(x), of each probability; +∞ at 0 (Cover & Thomas 2006, §2.1).

    >>> [round(float(i), 2) for i in self_information_bits(jnp.array([0.2, 0.8]))]
    [2.32, 0.32]

    Raises:
      ValueError: a number outside [0, 1].
    """
    simplex.check_probability("p", p)
    return -jnp.log(_float(p))


def entropy(p: Numbers, axis: Axis = -1) -> Values:
    """H(p) = -Σ p log p (Cover & Thomas 2006, eq. 2.1).

    >>> float(entropy_bits(jnp.array([0.5, 0.5]))), round(float(entropy_bits(jnp.array([0.2, 0.8]))), 2)
    (1.0, 0.72)

    Raises:
      ValueError: ``p`` is no distribution over ``axis``.
    """
    return cross_entropy(p, p, axis)


def cross_entropy(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """H(p, q) = -Σ p log q: what symbols of p cost in a code made for q; +∞ where q misses mass of p.

    >>> coin = jnp.array([0.5, 0.5])
    >>> [round(float(cross_entropy_bits(coin, jnp.array(q))), 2) for q in ([0.2, 0.8], [0.4, 0.6])]
    [1.32, 1.03]
    >>> q, p = jnp.array([1.0, 0, 0, 0]), jnp.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    >>> [float(cross_entropy_bits(*pair)) for pair in ((q, p), (q, q), (p, q))]
    [1.0, 0.0, inf]

    Raises:
      ValueError: ``p`` or ``q`` is no distribution over ``axis``.
    """
    p, q = _distributions(axis, p=p, q=q)
    return 0 - jnp.sum(_p_log_q(p, q), axis)  # 0 - x and not -x, which would be -0. for a certain event


def kl(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """D(p‖q) = Σ p log(p / q) ≥ 0, the Kullback–Leibler divergence; +∞ where q misses mass of p.

    Cover & Thomas 2006, eq. 2.26. It is H(p, q) - H(p), so for a fixed p both have the same gradient in q.

    >>> round(float(kl_bits(jnp.array([0.5, 0.5]), jnp.array([0.2, 0.8]))), 2)
    0.32

    Raises:
      ValueError: ``p`` or ``q`` is no distribution over ``axis``.
    """
    p, q = _distributions(axis, p=p, q=q)
    return jnp.sum(_p_log_q(p, p) - _p_log_q(p, q), axis)


def jensen_shannon(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """JSD(p, q) = ½ D(p‖m) + ½ D(q‖m) with m = ½ (p + q), in [0, log 2] (Lin 1991).

    >>> float(jensen_shannon_bits(jnp.array([1.0, 0]), jnp.array([0, 1.0])))
    1.0

    Raises:
      ValueError: ``p`` or ``q`` is no distribution over ``axis``.
    """
    p, q = _distributions(axis, p=p, q=q)
    log_p_and_q, m = _p_log_q(p, p) + _p_log_q(q, q), (p + q) / 2
    return jnp.sum(log_p_and_q / 2 - _p_log_q(m, m), axis)


def conditional_entropy(joint: Numbers) -> Values:
    """H(Y|X) = -Σ p(x, y) log p(y|x), of a table over the last two axes (x, y) (Cover & Thomas 2006, eq. 2.10).

    >>> float(conditional_entropy_bits(jnp.array([[0.25, 0.25], [0.5, 0.0]])))  # half the time a fair coin
    0.5

    Raises:
      ValueError: ``joint`` is no distribution over its last two axes.
    """
    (joint,) = _distributions((-2, -1), joint=joint)
    x = joint.sum(-1, keepdims=True)
    return jnp.sum(_p_log_q(joint, x) - _p_log_q(joint, joint), (-2, -1))


def mutual_information(joint: Numbers) -> Values:
    """I(X; Y) = Σ p(x, y) log(p(x, y) / (p(x) p(y))), over the last two axes (Cover & Thomas 2006, eq. 2.28).

    >>> float(mutual_information_bits(jnp.array([[0.5, 0], [0, 0.5]])))
    1.0

    Raises:
      ValueError: ``joint`` is no distribution over its last two axes.
    """
    (joint,) = _distributions((-2, -1), joint=joint)
    x, y = joint.sum(-1, keepdims=True), joint.sum(-2, keepdims=True)
    return jnp.sum(_p_log_q(joint, joint) - _p_log_q(joint, x) - _p_log_q(joint, y), (-2, -1))


def conditional_mutual_information(joint: Numbers) -> Values:
    """I(X; Y|Z) of a table over the last three axes (x, y, z) (Cover & Thomas 2006, eq. 2.60).

    I(X; Y|Z) = Σ p(x, y, z) log(p(x, y, z) p(z) / (p(x, z) p(y, z))); 0 iff X and Y are independent given Z.

    >>> xor = jnp.array([[[0.25, 0], [0, 0.25]], [[0, 0.25], [0.25, 0]]])  # z = x ⊕ y
    >>> float(bits(conditional_mutual_information(xor))), float(mutual_information(xor.sum(-1)))
    (1.0, 0.0)

    Raises:
      ValueError: ``joint`` is no distribution over its last three axes.
    """
    (joint,) = _distributions((-3, -2, -1), joint=joint)
    xz, yz, z = (joint.sum(axis, keepdims=True) for axis in (-2, -3, (-3, -2)))
    numerator, denominator = _p_log_q(joint, joint) + _p_log_q(joint, z), _p_log_q(joint, xz) + _p_log_q(joint, yz)
    return jnp.sum(numerator - denominator, (-3, -2, -1))


def self_information_bits(p: Numbers) -> Values:
    """``self_information`` in bits: log₂ 1/p."""
    return bits(self_information(p))


def entropy_bits(p: Numbers, axis: Axis = -1) -> Values:
    """``entropy`` in bits."""
    return bits(entropy(p, axis))


def cross_entropy_bits(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """``cross_entropy`` in bits."""
    return bits(cross_entropy(p, q, axis))


def kl_bits(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """``kl`` in bits."""
    return bits(kl(p, q, axis))


def jensen_shannon_bits(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """``jensen_shannon`` in bits, in [0, 1]."""
    return bits(jensen_shannon(p, q, axis))


def conditional_entropy_bits(joint: Numbers) -> Values:
    """``conditional_entropy`` in bits."""
    return bits(conditional_entropy(joint))


def mutual_information_bits(joint: Numbers) -> Values:
    """``mutual_information`` in bits."""
    return bits(mutual_information(joint))


def entropy_from_logits(logits: Float[Array, "... k"]) -> Values:
    """H(softmax(l)) over the last axis, smooth to the extremes; a logit of -∞ is an outcome that cannot be."""
    return cross_entropy_from_logits(jax.nn.softmax(logits), logits)


def cross_entropy_from_logits(p: Float[Array, "... k"], logits: Float[Array, "... k"]) -> Values:
    """H(p, softmax(l)) = -Σ p log softmax(l) over the last axis: classification's loss, without log(0)."""
    return 0 - jnp.sum(_p_times_log(p, jax.nn.log_softmax(logits)), -1)


def kl_from_logits(p_logits: Float[Array, "... k"], q_logits: Float[Array, "... k"]) -> Values:
    """D(softmax(l_p)‖softmax(l_q)) over the last axis."""
    p, log_p, log_q = jax.nn.softmax(p_logits), jax.nn.log_softmax(p_logits), jax.nn.log_softmax(q_logits)
    return jnp.sum(_p_times_log(p, log_p) - _p_times_log(p, log_q), -1)


def binary_cross_entropy(y: Float[Array, "..."], logits: Float[Array, "..."]) -> Values:
    """-y log σ(l) - (1 - y) log σ(-l), of each element: a Bernoulli's negative log-likelihood where y is 0 or 1.

    Value and gradient, which is σ(l) - y, are finite for all finite logits. For y in between it is the cross-entropy of
    two Bernoulli distributions, and no likelihood of y.
    """
    return -y * jax.nn.log_sigmoid(logits) - (1 - y) * jax.nn.log_sigmoid(-logits)


def _p_log_q(p: Values, q: Values) -> Values:
    """p log q, 0 where p is and -∞ where only q is; without a NaN in the gradient."""
    return jnp.where(q > 0, p * jnp.log(jnp.where(q > 0, q, 1)), jnp.where(p > 0, -jnp.inf, 0))


def _p_times_log(p: Values, log_q: Values) -> Values:
    """p · log_q, 0 where p is, also for log_q = -∞."""
    impossible = jnp.isneginf(log_q)
    return jnp.where(impossible, jnp.where(p > 0, -jnp.inf, 0), p * jnp.where(impossible, 0, log_q))


def _distributions(axis: Axis, **tables: Numbers) -> list[Values]:
    for name, table in tables.items():
        simplex.check(name, table, axis)
    return [_float(table) for table in tables.values()]


def _float(x: Numbers) -> Values:
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
