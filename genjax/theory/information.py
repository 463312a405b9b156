"""Information theory (Shannon 1948; Cover & Thomas 2006, ch. 2): entropies and divergences in nats and bits.

Distributions are arrays of probabilities over ``axis`` (one, or several for a joint distribution); the other axes are
a batch. Values are in nats, or in bits where the name ends in ``_bits``. 0 · log 0 = 0; XLA takes subnormal numbers for
0. Outside ``jit`` a ``ValueError`` names the row that is no distribution.

Every value is a sum of terms of one sign, so no value is negative, and small values are exact to rounding. The
surprisal of an almost certain outcome is log1p of the probability of the others; divergences sum ``series.kl_div``.

Gradients are those of the formulas, and finite everywhere: a term whose slope is infinite (entropy at p = 0), or whose
value is (KL where q is 0 and p is not), has gradient 0. To optimise up to the boundary use the functions of logits.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genjax import checks
from genjax.theory import series, simplex
from genjax.theory.simplex import Axis, Numbers

Values = Float[Array, "..."]
"""A number for each row of the batch."""


def bits(nats: Numbers) -> Values:
    """Convert nats to bits: divide by log 2."""
    checks.real("nats", nats)
    return jnp.asarray(nats) / math.log(2)


def bits_per_dim(nats: Numbers, num_dims: int) -> Values:
    """Convert nats of an example to bits per dimension; an image has h · w · c dimensions.

    Raises:
      ValueError: ``num_dims`` < 1.
    """
    if num_dims < 1:
        raise ValueError(f"num_dims: expected at least 1, got {num_dims}")
    return bits(nats) / num_dims


def self_information(p: Numbers) -> Values:
    """I(x) = -log p(x) of each probability; +∞ at 0 (Cover & Thomas 2006, §2.1).

    >>> [round(float(i), 2) for i in self_information_bits(jnp.array([0.2, 0.8]))]
    [2.32, 0.32]

    Raises:
      ValueError: a number is outside [0, 1].
    """
    simplex.check_probability("p", p)
    table = simplex.as_floating(p)
    simplex.check_underflow("p", p, table.dtype)
    nats = 0 - jnp.log(jnp.where(table > 0, table, 1))
    return jnp.where(table > 1, 0, jnp.where(table > 0, nats, jnp.inf))  # above 1 by rounding


def entropy(p: Numbers, axis: Axis = -1) -> Values:
    """H(p) = -Σ p log p (Cover & Thomas 2006, eq. 2.1).

    >>> float(entropy_bits(jnp.array([0.5, 0.5]))), round(float(entropy_bits(jnp.array([0.2, 0.8]))), 2)
    (1.0, 0.72)

    Raises:
      ValueError: ``p`` is no distribution over ``axis``.
    """
    return cross_entropy(p, p, axis)


def cross_entropy(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """H(p, q) = -Σ p log q: mean length of a code for q on symbols of p; +∞ where q is 0 and p is not.

    >>> coin = jnp.array([0.5, 0.5])
    >>> [round(float(cross_entropy_bits(coin, jnp.array(q))), 2) for q in ([0.2, 0.8], [0.4, 0.6])]
    [1.32, 1.03]
    >>> q, p = jnp.array([1.0, 0, 0, 0]), jnp.array([1 / 2, 1 / 4, 1 / 8, 1 / 8])
    >>> [float(cross_entropy_bits(*pair)) for pair in ((q, p), (q, q), (p, q))]
    [1.0, 0.0, inf]

    Raises:
      ValueError: ``p`` or ``q`` is no distribution over ``axis``.
    """
    axis, p, q = simplex.pair(axis, p, q)
    return series.with_gradient_of(
        jnp.sum(series.weighted(p, series.surprisal(q, axis)), axis), 0 - jnp.sum(_p_log_q(p, q), axis)
    )


def kl(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """D(p‖q) = Σ p log(p / q) ≥ 0, the Kullback–Leibler divergence; +∞ where q is 0 and p is not.

    Cover & Thomas 2006, eq. 2.26. D(p‖q) = H(p, q) - H(p), so for a fixed p both have the same gradient in q. The sum
    is over p log(p / q) - p + q, which is never negative; Σ p = Σ q, to rounding.

    >>> round(float(kl_bits(jnp.array([0.5, 0.5]), jnp.array([0.2, 0.8]))), 2)
    0.32

    Raises:
      ValueError: ``p`` or ``q`` is no distribution over ``axis``.
    """
    axis, p, q = simplex.pair(axis, p, q)
    return series.with_gradient_of(jnp.sum(series.kl_div(p, q), axis), jnp.sum(_p_log_q(p, p) - _p_log_q(p, q), axis))


def jensen_shannon(p: Numbers, q: Numbers, axis: Axis = -1) -> Values:
    """JSD(p, q) = ½ D(p‖m) + ½ D(q‖m) with m = ½ (p + q), in [0, log 2] (Lin 1991).

    >>> float(jensen_shannon_bits(jnp.array([1.0, 0]), jnp.array([0, 1.0])))
    1.0

    Raises:
      ValueError: ``p`` or ``q`` is no distribution over ``axis``.
    """
    axis, p, q = simplex.pair(axis, p, q)
    log_p_and_q, m = _p_log_q(p, p) + _p_log_q(q, q), (p + q) / 2
    value = jnp.minimum(jnp.sum(series.jensen_shannon(p, q), axis) / 2, math.log(2))
    return series.with_gradient_of(value, jnp.sum(log_p_and_q / 2 - _p_log_q(m, m), axis))


def conditional_entropy(joint: Numbers) -> Values:
    """H(Y|X) = -Σ p(x, y) log p(y|x), of a table over the last two axes (x, y) (Cover & Thomas 2006, eq. 2.10).

    >>> float(conditional_entropy_bits(jnp.array([[0.25, 0.25], [0.5, 0.0]])))  # a fair coin half the time
    0.5

    Raises:
      ValueError: ``joint`` is no distribution over its last two axes.
    """
    joint = simplex.distribution("joint", joint, (-2, -1))
    x = joint.sum(-1, keepdims=True)
    given_x = series.safe_divide(joint, x)
    value = jnp.sum(series.weighted(joint, series.surprisal(given_x, -1)), (-2, -1))
    return series.with_gradient_of(value, jnp.sum(_p_log_q(joint, x) - _p_log_q(joint, joint), (-2, -1)))


def mutual_information(joint: Numbers) -> Values:
    """I(X; Y) = Σ p(x, y) log(p(x, y) / (p(x) p(y))), over the last two axes (Cover & Thomas 2006, eq. 2.28).

    >>> float(mutual_information_bits(jnp.array([[0.5, 0], [0, 0.5]])))
    1.0

    Raises:
      ValueError: ``joint`` is no distribution over its last two axes.
    """
    return _conditional_mutual_information(simplex.distribution("joint", joint, (-2, -1))[..., None])


def conditional_mutual_information(joint: Numbers) -> Values:
    """I(X; Y|Z) of a table over the last three axes (x, y, z) (Cover & Thomas 2006, eq. 2.60).

    I(X; Y|Z) = Σ p(x, y, z) log(p(x, y, z) p(z) / (p(x, z) p(y, z))); 0 iff X and Y are independent given Z.

    >>> xor = jnp.array([[[0.25, 0], [0, 0.25]], [[0, 0.25], [0.25, 0]]])  # z = x ⊕ y
    >>> float(bits(conditional_mutual_information(xor))), float(mutual_information(xor.sum(-1)))
    (1.0, 0.0)

    Raises:
      ValueError: ``joint`` is no distribution over its last three axes.
    """
    return _conditional_mutual_information(simplex.distribution("joint", joint, (-3, -2, -1)))


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


def entropy_from_logits(logits: Numbers) -> Values:
    """H(softmax(l)) over the last axis, smooth to the extremes; a logit of -∞ is an impossible outcome.

    Raises:
      ValueError: a logit is NaN or +∞, or all logits of a row are -∞.
    """
    simplex.check_logits("logits", logits)
    logits = simplex.as_floating(logits)
    return _cross_entropy(jax.nn.softmax(logits), logits)


def cross_entropy_from_logits(p: Numbers, logits: Numbers) -> Values:
    """H(p, softmax(l)) = -Σ p log softmax(l) over the last axis: the loss of classification, without log 0.

    Raises:
      ValueError: ``p`` is no distribution over the last axis; logits as in ``entropy_from_logits``.
    """
    simplex.same_outcomes(-1, p=p, logits=logits)
    simplex.check_logits("logits", logits)
    return _cross_entropy(simplex.distribution("p", p), simplex.as_floating(logits))


def kl_from_logits(p_logits: Numbers, q_logits: Numbers) -> Values:
    """D(softmax(l_p)‖softmax(l_q)) over the last axis.

    Raises:
      ValueError: logits as in ``entropy_from_logits``.
    """
    simplex.same_outcomes(-1, p_logits=p_logits, q_logits=q_logits)
    simplex.check_logits("p_logits", p_logits)
    simplex.check_logits("q_logits", q_logits)
    return _kl(simplex.as_floating(p_logits), simplex.as_floating(q_logits))


def binary_cross_entropy(y: Numbers, logits: Numbers) -> Values:
    """-y log σ(l) - (1 - y) log σ(-l) of each element: the negative log-likelihood of a Bernoulli for y of 0 or 1.

    Value and gradient, which is σ(l) - y, are finite for all finite logits. For other y the value is the cross-entropy
    of two Bernoulli distributions, and no likelihood of y.

    Raises:
      ValueError: ``y`` is outside [0, 1], or a logit is NaN.
    """
    checks.within("y", y, 0, 1)
    checks.within("logits", logits)
    y, logits = simplex.as_floating(y), simplex.as_floating(logits)
    term = lambda p, log_q: jnp.where(p == 0, 0, -p) * jnp.where(p == 0, 0, log_q)
    return term(y, jax.nn.log_sigmoid(logits)) + term(1 - y, jax.nn.log_sigmoid(-logits))


@jax.jit
def _cross_entropy(p: Values, logits: Values) -> Values:
    q, log_q = jax.nn.softmax(logits), jax.nn.log_softmax(logits)
    likely = q > series.LIKELY
    others = jnp.sum(jnp.where(likely, 0, q), -1, keepdims=True)
    surprisal = jnp.where(likely, 0 - jnp.log1p(-jnp.where(likely, others, 0)), 0 - log_q)
    return series.with_gradient_of(jnp.sum(series.weighted(p, surprisal), -1), 0 - jnp.sum(_p_times_log(p, log_q), -1))


@jax.jit
def _kl(a: Values, b: Values) -> Values:
    p, log_p, log_q = jax.nn.softmax(a), jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    # log(q / p) from the difference of the logits, centred first: a constant added to all logits has no effect
    both = ~(jnp.isneginf(a) | jnp.isneginf(b))
    difference = jnp.where(both, b - jnp.where(both, a, 0), 0)
    mean = jnp.sum(p * difference, -1, keepdims=True)
    log_tilted = jnp.where(both, log_p + (difference - mean), b - jax.nn.logsumexp(a, -1, keepdims=True) - mean)
    log_ratio = difference - mean - jax.nn.logsumexp(log_tilted, -1, keepdims=True)
    is_close = jnp.abs(log_ratio) < 0.5
    close = p * series.expm1_minus_x(jnp.where(is_close, log_ratio, 0))
    finite = jnp.where(is_close, close, jnp.maximum(jnp.exp(log_q) - p - p * log_ratio, 0))
    value = jnp.where(both, finite, jnp.where(p > 0, jnp.inf, jnp.exp(log_q)))
    return series.with_gradient_of(jnp.sum(value, -1), jnp.sum(_p_times_log(p, log_p) - _p_times_log(p, log_q), -1))


@jax.jit
def _conditional_mutual_information(joint: Values) -> Values:
    """I(X; Y|Z) = Σ p(x, z) D(p(y|x, z)‖p(y|z)), in which every term is ≥ 0 exactly."""
    xz, yz, z = (joint.sum(axis, keepdims=True) for axis in (-2, -3, (-3, -2)))
    value = xz * series.kl_div(series.safe_divide(joint, xz), series.safe_divide(yz, z))
    numerator, denominator = _p_log_q(joint, joint) + _p_log_q(joint, z), _p_log_q(joint, xz) + _p_log_q(joint, yz)
    return series.with_gradient_of(jnp.sum(value, (-3, -2, -1)), jnp.sum(numerator - denominator, (-3, -2, -1)))


def _p_log_q(p: Values, q: Values) -> Values:
    """p log q for gradients: gradient 0 where q is 0."""
    return jnp.where(q > 0, p * jnp.log(jnp.where(q > 0, q, 1)), 0)


def _p_times_log(p: Values, log_q: Values) -> Values:
    """p · log_q for gradients: gradient 0 where log_q is -∞."""
    impossible = jnp.isneginf(log_q)
    return jnp.where(impossible, 0, p * jnp.where(impossible, 0, log_q))
