"""Variational inference: fit a distribution q(z) to a density known up to a constant (Blei et al. 2017).

All bounds come from the log weights log w = log p(x, z) - log q(z) at draws of q. The mean of log w is the evidence
lower bound; the log of the mean of K weights is tighter; for q = p(z|x) every weight is p(x).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from genjax import checks, random
from genjax.theory import markov
from genjax.theory.families import Distribution, Family
from genjax.types import Key, Params, Scalar

LogJoint = Callable[[Float[Array, " d"]], Scalar]
"""``z -> log p(x, z)``, nats, for one draw z [d]; any log-density up to a constant."""

LogWeights = Float[Array, "k ..."]
"""log p(x, z_i) - log q(z_i) of K draws of q, and a batch."""


def elbo(log_weights: LogWeights) -> Float[Array, "..."]:
    """ELBO = E_q[log p(x, z) - log q(z)] = log p(x) - D(q‖p(z|x)) ≤ log p(x) (Jordan et al. 1999); nats."""
    return jnp.mean(log_weights, 0)


def importance_weighted_bound(log_weights: LogWeights) -> Float[Array, "..."]:
    """log 1/K Σ_i w_i, nats; its expectation rises with K from the ELBO to log p(x) (Burda et al. 2016, eq. 8).

    >>> weights = jnp.log(jnp.array([1.0, 3.0]))
    >>> round(float(jnp.exp(importance_weighted_bound(weights))), 4), round(float(jnp.exp(elbo(weights))), 4)
    (2.0, 1.7321)
    """
    return jax.nn.logsumexp(log_weights, 0) - jnp.log(log_weights.shape[0])


def log_weights(
    key: Key, log_joint: LogJoint, family: Family, params: Params, num_samples: int
) -> Float[Array, " num_samples"]:
    """log w_i = log p(x, z_i) - log q(z_i) of draws z_i ~ q, differentiable in ``params``.

    Raises:
      ValueError: ``num_samples`` is below 1.
    """
    checks.within("num_samples", num_samples, 1)
    q = family.distribution(params)
    return _log_weights(key, log_joint, family, q, q, num_samples)


class GradientEstimate(NamedTuple):
    """Estimates of a bound and of its gradient.

    Attributes:
      bound: estimate of the bound, nats.
      gradient: gradient of the bound, a tree like the parameters.
    """

    bound: Scalar
    gradient: Params


def reparameterised(
    key: Key,
    log_joint: LogJoint,
    family: Family,
    params: Params,
    num_samples: int,
    bound: Callable[[LogWeights], Float[Array, "..."]] = elbo,
) -> GradientEstimate:
    """Unbiased gradient through the draws z = g(ε, params) (Kingma & Welling 2014, §2.3; Rezende et al. 2014)."""
    value = lambda params: bound(log_weights(key, log_joint, family, params, num_samples))
    return GradientEstimate(*jax.value_and_grad(value)(params))


def sticking_the_landing(
    key: Key, log_joint: LogJoint, family: Family, params: Params, num_samples: int
) -> GradientEstimate:
    """Gradient through the draws alone, without E[∇ log q] = 0: no variance at q = p(z|x) (Roeder et al. 2017)."""

    def value(params: Params) -> Scalar:
        q = family.distribution(params)
        return elbo(_log_weights(key, log_joint, family, q, jax.lax.stop_gradient(q), num_samples))

    return GradientEstimate(*jax.value_and_grad(value)(params))


def score_function(key: Key, log_joint: LogJoint, family: Family, params: Params, num_samples: int) -> GradientEstimate:
    """E[(log w - b) ∇ log q(z)]: no derivative of log p, so densities with jumps are allowed (Williams 1992).

    The baseline b of a draw is the mean log w of the other draws: no bias (Mnih & Rezende 2016, eq. 6).

    Raises:
      ValueError: ``num_samples`` is below 2.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples: expected at least 2, as each draw's baseline is the others; got {num_samples}")
    constant = jax.lax.stop_gradient(family.distribution(params))

    def log_q(params: Params) -> tuple[Float[Array, " k"], Float[Array, "k d"]]:
        draws, values = _draws(key, family, constant, family.distribution(params), num_samples)
        return values, draws

    log_q_values, pullback, draws = jax.vjp(log_q, params, has_aux=True)
    log_w = jax.vmap(log_joint)(draws) - log_q_values
    advantage = (log_w - log_w.mean()) / (num_samples - 1)  # = (log w - mean of the others) / num_samples
    return GradientEstimate(log_w.mean(), pullback(advantage)[0])


class Fit(NamedTuple):
    """Result of ``fit``.

    Attributes:
      params: unconstrained parameters after the last step.
      distribution: q, the distribution of ``params``.
      bound: estimate of the bound at each step [t], nats.
    """

    params: Params
    distribution: Distribution
    bound: Float[Array, " t"]


def fit(
    log_joint: LogJoint,
    family: Family,
    key: Key,
    *,
    num_steps: int = 1000,
    num_samples: int = 16,
    gradient: Callable[[Key, LogJoint, Family, Params, int], GradientEstimate] = reparameterised,
    optimizer: Any = None,
) -> Fit:
    """Maximise the ELBO by stochastic gradient ascent, as one scan; works under ``jit`` and ``vmap``.

    >>> from genjax.theory import exponential_normal, families
    >>> log_joint = lambda z: exponential_normal.log_joint(z, 1.0).sum()
    >>> result = fit(log_joint, families.truncated_normal(1), jax.random.key(0), gradient=sticking_the_landing)
    >>> [round(float(x), 2) for x in (result.bound[-1], exponential_normal.log_evidence(1.0))]  # q is the posterior
    [-1.19, -1.19]

    Args:
      log_joint: log-density to fit to.
      family: family of q.
      key: random key for the draws.
      num_steps: number of optimizer steps.
      num_samples: number of draws of q per step.
      gradient: ``reparameterised``, ``sticking_the_landing``, ``score_function``, or another estimator.
      optimizer: optax optimizer; None for Adam with a cosine schedule from 0.1 to 0.

    Raises:
      ValueError: ``log_joint`` returns no single number for a vector of the family's length; ``num_steps`` or
        ``num_samples`` is below 1; or, outside ``jit``, the result is not finite.
    """
    for name, count in (("num_steps", num_steps), ("num_samples", num_samples)):
        checks.within(name, count, 1)
    optimizer = optimizer or optax.adam(optax.cosine_decay_schedule(0.1, num_steps))
    out = jax.eval_shape(lambda key: log_joint(family.sample(key, family.distribution(family.init))), key)
    if out.shape:
        raise ValueError(f"log_joint: expected one number for one draw, got shape {out.shape}; sum over the dimensions")

    def step(key: Key, state: tuple[Params, Any], _: Any) -> tuple[tuple[Params, Any], Scalar]:
        params, opt_state = state
        estimate = gradient(key, log_joint, family, params, num_samples)
        descent = jax.tree.map(jnp.negative, estimate.gradient)
        updates, opt_state = optimizer.update(descent, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), estimate.bound

    start = (family.init, optimizer.init(family.init))
    (params, _), bound = markov.simulate(step, key, start, length=num_steps)
    is_finite = lambda tree: all(np.isfinite(x).all() for x in jax.tree.leaves(tree))
    if checks.is_concrete(params, bound) and not is_finite((params, bound[-1])):
        first = int(np.argmin(np.isfinite(bound))) if not np.isfinite(bound).all() else num_steps - 1
        raise ValueError(
            f"log_joint: the fit is not finite at its end; the bound was {bound[first]} at step {first}. Expected "
            "finite log-densities and slopes wherever the family draws; else take a smaller step, or score_function"
        )
    return Fit(params, family.distribution(params), bound)


def _draws(
    key: Key, family: Family, drawn_from: Distribution, q: Distribution, num_samples: int
) -> tuple[Float[Array, "k d"], Float[Array, " k"]]:
    """Draws of ``drawn_from``, and log q of each draw."""

    def draw(key: Key) -> tuple[Float[Array, " d"], Scalar]:
        if family.sample_and_log_prob is not None:
            return family.sample_and_log_prob(key, drawn_from, q)
        z = family.sample(key, drawn_from)
        return z, family.log_prob(q, z)

    return jax.vmap(draw)(random.example_keys(key, num_samples))


def _log_weights(
    key: Key, log_joint: LogJoint, family: Family, drawn_from: Distribution, q: Distribution, num_samples: int
) -> Float[Array, " num_samples"]:
    draws, log_q = _draws(key, family, drawn_from, q, num_samples)
    return jax.vmap(log_joint)(draws) - log_q
