"""Bayes' rule on tables: joint, marginal and conditional distributions of discrete variables (Bishop 2006, §1.2).

A joint table has one axis for each variable and sums to one over all of them. A conditional table p(y|x) has the
variables of the condition first and sums to one over the last axis.

A test finds 99 of 100 of the ill and 5 of 100 of the healthy; 1 of 100 is ill. Who is found is ill with chance 1/6:

>>> prior = jnp.array([0.99, 0.01])  # healthy, ill
>>> found = jnp.array([[0.95, 0.05], [0.01, 0.99]])  # p(test|state)
>>> [round(float(p), 4) for p in posterior(prior, found[:, 1])]
[0.8333, 0.1667]

A second test of the same kind, independent given the state, multiplies in:

>>> [round(float(p), 4) for p in posterior(posterior(prior, found[:, 1]), found[:, 1])]
[0.2016, 0.7984]
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from jaxtyping import ArrayLike as Numbers

from genjax.theory import information, simplex

Table = Float[Array, "..."]


def joint(prior: Numbers, conditional: Numbers) -> Table:
    """p(x, y) = p(x) p(y|x), the product rule (Bishop 2006, eq. 1.32).

    Args:
      prior: p(x), any number of variables [...x].
      conditional: p(y|x) [...x y].

    Raises:
      ValueError: not distributions, or the axes of the condition are not those of the prior.
    """
    p, table = jnp.asarray(prior), jnp.asarray(conditional)
    if table.shape[:-1] != p.shape:
        raise ValueError(f"conditional: expected the axes {p.shape} of the prior and one more, got {table.shape}")
    simplex.check("prior", prior, tuple(range(p.ndim)))
    simplex.check("conditional", conditional)
    return p[..., None] * table


def marginal(table: Numbers, axes: tuple[int, ...]) -> Table:
    """The distribution of the variables on ``axes``: the others summed out (the sum rule; Bishop 2006, eq. 1.31).

    >>> marginal(jnp.array([[0.125, 0.25], [0.125, 0.5]]), (0,)).tolist()
    [0.375, 0.625]

    Raises:
      ValueError: ``table`` is no joint distribution.
    """
    p = _joint(table)
    kept = {axis % p.ndim for axis in axes}
    return p.sum(tuple(axis for axis in range(p.ndim) if axis not in kept))


def conditional(table: Numbers, given: tuple[int, ...]) -> Table:
    """p(others|given) = p(all) / p(given), in the axes of ``table``; NaN where the condition has no probability.

    >>> conditional(jnp.array([[0.125, 0.375], [0.125, 0.375]]), (0,)).tolist()
    [[0.25, 0.75], [0.25, 0.75]]

    Args:
      table: a joint distribution.
      given: axes of the variables in the condition.

    Raises:
      ValueError: ``table`` is no joint distribution.
    """
    p = _joint(table)
    kept = {axis % p.ndim for axis in given}
    total = p.sum(tuple(axis for axis in range(p.ndim) if axis not in kept), keepdims=True)
    return jnp.where(total > 0, p / jnp.where(total > 0, total, 1), jnp.nan)


def posterior(prior: Numbers, likelihood: Numbers) -> Table:
    """p(x|data) = p(data|x) p(x) / Σ_x' p(data|x') p(x'), Bayes' rule (Bishop 2006, eq. 1.12).

    Args:
      prior: p(x), any number of variables; sums to one over all axes.
      likelihood: p(data|x) of what was seen, in the axes of the prior; need not sum to one, and may be a density.

    Returns:
      A distribution in the axes of the prior.

    Raises:
      ValueError: the prior is no distribution, a likelihood is negative, or the data are impossible under the prior.
    """
    p, seen = jnp.asarray(prior), jnp.asarray(likelihood)
    simplex.check("prior", prior, tuple(range(p.ndim)))
    if seen.shape != p.shape:
        raise ValueError(f"likelihood: expected one number for each of the prior's {p.shape}, got {seen.shape}")
    if simplex.known(prior, likelihood):
        if not np.all(np.asarray(seen) >= 0):
            raise ValueError(f"likelihood: expected nothing negative, got {np.min(np.asarray(seen)):g}")
        if not np.any(np.asarray(seen * p) > 0):
            raise ValueError("likelihood: the data are impossible under the prior, so there is no posterior")
    with_zeros = lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)
    return log_posterior(with_zeros(p), with_zeros(seen))


def log_posterior(log_prior: Table, log_likelihood: Table) -> Table:
    """``posterior`` from logarithms, where a product over many observations would underflow.

    Args:
      log_prior: log p(x), up to a constant; -∞ for what cannot be.
      log_likelihood: log p(data|x), the sum over observations, in the same axes.

    Returns:
      Probabilities, not logarithms; NaN where nothing is possible.
    """
    logits = log_prior + log_likelihood
    return jax.nn.softmax(logits.reshape(-1)).reshape(logits.shape)


def dependence(table: Numbers, x: int, y: int, given: tuple[int, ...] = ()) -> Float[Array, ""]:
    """I(X; Y|given) in nats, of a joint table: 0 iff the two are independent given the others (Bishop 2006, §8.2).

    >>> cause = jnp.array([0.5, 0.5])
    >>> effect = jnp.array([[0.75, 0.25], [0.25, 0.75]])
    >>> both = cause[:, None, None] * effect[:, :, None] * effect[:, None, :]  # two effects of one cause
    >>> round(float(dependence(both, 1, 2)), 4), round(float(dependence(both, 1, 2, given=(0,))), 4)
    (0.0316, 0.0)

    Args:
      table: a joint distribution.
      x, y: the axes of the two variables.
      given: the axes of the condition; the axes not named are summed out.

    Raises:
      ValueError: ``table`` is no joint distribution, or the axes are not different.
    """
    p = _joint(table)
    axes = [axis % p.ndim for axis in (x, y, *given)]
    if len(set(axes)) != len(axes):
        raise ValueError(f"x, y, given: expected different axes, got {axes}")
    others = tuple(axis for axis in range(p.ndim) if axis not in axes)
    ordered = jnp.transpose(p, (*axes, *others)).sum(tuple(range(len(axes), p.ndim)))
    three = ordered.reshape(*ordered.shape[:2], -1)
    return information.conditional_mutual_information(three)


def independent(table: Numbers, x: int, y: int, given: tuple[int, ...] = (), *, tolerance: float = 1e-6) -> bool:
    """Whether X ⊥ Y | given: ``dependence`` of at most ``tolerance`` nats. Not for use inside ``jit``."""
    return bool(dependence(table, x, y, given) <= tolerance)


def _joint(table: Numbers) -> Table:
    p = jnp.asarray(table)
    simplex.check("table", table, tuple(range(p.ndim)))
    return p
