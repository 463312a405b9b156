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

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks
from genjax.theory import information, simplex
from genjax.theory.simplex import Numbers

Table = Float[Array, "..."]


def joint(prior: Numbers, conditional: Numbers) -> Table:
    """p(x, y) = p(x) p(y|x), the product rule (Bishop 2006, eq. 1.32).

    Args:
      prior: p(x), any number of variables [...x].
      conditional: p(y|x) [...x y].

    Raises:
      ValueError: not distributions, or the axes of the condition are not those of the prior.
    """
    if np.shape(conditional)[:-1] != np.shape(prior):
        expected = f"the axes {np.shape(prior)} of the prior and one more"
        raise ValueError(f"conditional: expected {expected}, got {np.shape(conditional)}")
    return _whole("prior", prior)[..., None] * simplex.distribution("conditional", conditional)


def marginal(table: Numbers, axes: tuple[int, ...]) -> Table:
    """The distribution of the variables on ``axes``, in that order: the others summed out (Bishop 2006, eq. 1.31).

    >>> marginal(jnp.array([[0.125, 0.25], [0.125, 0.5]]), (0,)).tolist()
    [0.375, 0.625]
    >>> marginal(jnp.array([[0.125, 0.25], [0.125, 0.5]]), (1, 0)).tolist()
    [[0.125, 0.125], [0.25, 0.5]]

    Raises:
      ValueError: ``table`` is no joint distribution, or has no such axes, or one is named twice.
    """
    p = _whole("table", table)
    kept = _axes("axes", axes, p.ndim)
    return _sum_out(p, kept)


def conditional(table: Numbers, given: tuple[int, ...]) -> Table:
    """p(others|given) = p(all) / p(given), in the axes of ``table``; NaN where the condition has no probability.

    >>> conditional(jnp.array([[0.125, 0.375], [0.125, 0.375]]), (0,)).tolist()
    [[0.25, 0.75], [0.25, 0.75]]

    Args:
      table: a joint distribution.
      given: axes of the variables in the condition.

    Raises:
      ValueError: ``table`` is no joint distribution, or has no such axes, or one is named twice.
    """
    p = _whole("table", table)
    kept = _axes("given", given, p.ndim)
    others = tuple(axis for axis in range(p.ndim) if axis not in kept)
    if checks.is_concrete(table):  # in float64: what float32 takes for 0 is a condition too
        wide = np.asarray(table, np.float64)
        unit = wide.max(others, keepdims=True, initial=0)
        parts = wide / np.where(unit > 0, unit, 1)
        return jnp.asarray(
            np.where(unit > 0, parts / np.where(unit > 0, parts.sum(others, keepdims=True), 1), np.nan), p.dtype
        )
    total = p.sum(others, keepdims=True)
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
    if np.shape(likelihood) != np.shape(prior):
        raise ValueError(
            f"likelihood: expected one number for each of the prior's {np.shape(prior)}, got {np.shape(likelihood)}"
        )
    p = _whole("prior", prior)
    checks.real("likelihood", likelihood)
    if checks.is_concrete(prior, likelihood):
        seen = np.asarray(likelihood, np.float64)
        checks.finite("likelihood", likelihood)
        if np.any(seen < 0):
            raise ValueError(f"likelihood: expected nothing negative, got {seen.min():g}")
        if not np.any((seen > 0) & (np.asarray(prior) > 0)):
            raise ValueError("likelihood: the data are impossible under the prior, so there is no posterior")
        with np.errstate(divide="ignore"):
            logits = np.log(np.asarray(prior, np.float64)) + np.log(seen)
        return _softmax(jnp.asarray(logits - logits.max(), p.dtype))
    with_zeros = lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)
    return _softmax(with_zeros(p) + with_zeros(simplex.as_floating(likelihood)))


def log_posterior(log_prior: Numbers, log_likelihood: Numbers) -> Table:
    """``posterior`` from logarithms, where a product over many observations would underflow.

    Args:
      log_prior: log p(x), up to a constant; -∞ for what cannot be.
      log_likelihood: log p(data|x), the sum over observations, in the same axes.

    Returns:
      Probabilities, not logarithms; in ``jit`` NaN where nothing is possible.

    Raises:
      ValueError: other axes, a number is NaN or +∞, or nothing is possible.
    """
    if np.shape(log_likelihood) != np.shape(log_prior) or not np.ndim(log_prior):
        shapes = f"{np.shape(log_prior)} and {np.shape(log_likelihood)}"
        raise ValueError(f"log_prior, log_likelihood: expected the same axes, one at least, got {shapes}")
    a, b = simplex.as_floating(log_prior), simplex.as_floating(log_likelihood)
    for name, x in (("log_prior", log_prior), ("log_likelihood", log_likelihood)):
        checks.within(name, x, high=np.finfo(np.float64).max)
    if not checks.is_concrete(log_prior, log_likelihood):
        return _softmax(a + b)
    logits = np.asarray(log_prior, np.float64) + np.asarray(log_likelihood, np.float64)
    if not np.any(logits > -np.inf):
        raise ValueError("log_likelihood: the data are impossible under the prior, so there is no posterior")
    return _softmax(jnp.asarray(logits - logits.max(), jnp.result_type(a, b)))


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
      ValueError: ``table`` is no joint distribution, or has no such axes, or one is named twice.
    """
    p = _whole("table", table)
    ordered = _sum_out(p, _axes("x, y, given", (x, y, *given), p.ndim))
    return information.conditional_mutual_information(ordered.reshape(*ordered.shape[:2], -1))


def independent(table: Numbers, x: int, y: int, given: tuple[int, ...] = (), *, tolerance: float | int = 1e-6) -> bool:
    """Whether X ⊥ Y | given: ``dependence`` of at most ``tolerance`` nats. Not for use inside ``jit``.

    Raises:
      ValueError: as ``dependence``; the tolerance is negative, or the table is not known.
    """
    checks.within("tolerance", tolerance, 0)
    if not checks.is_concrete(table):
        raise ValueError("table: expected known values, got a tracer; in jit compare dependence")
    return bool(dependence(table, x, y, given) <= tolerance)


def _whole(name: str, table: Numbers) -> Table:
    """A distribution over all of its axes."""
    return simplex.distribution(name, table, tuple(range(np.ndim(table))))


def _axes(name: str, axes: Any, ndim: int) -> tuple[int, ...]:
    """Counted from 0; none twice."""
    if not isinstance(axes, tuple | list):
        raise ValueError(f"{name}: expected a tuple of axes, got {axes!r}")
    counted = tuple(checks.axis(name, axis, ndim) for axis in axes)
    if len(set(counted)) < len(counted):
        raise ValueError(f"{name}: expected different axes, got {axes}")
    return counted


def _sum_out(p: Table, kept: tuple[int, ...]) -> Table:
    """All but the axes in ``kept``, which come in that order."""
    others = tuple(axis for axis in range(p.ndim) if axis not in kept)
    return jnp.transpose(p, (*kept, *others)).sum(tuple(range(len(kept), p.ndim)))


def _softmax(logits: Table) -> Table:
    return jax.nn.softmax(logits.reshape(-1)).reshape(logits.shape)
