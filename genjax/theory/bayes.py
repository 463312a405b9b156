"""Bayes' rule on tables: joint, marginal and conditional distributions of discrete variables (Bishop 2006, §1.2).

A joint table has one axis for each variable and sums to one over all axes. A conditional table p(y|x) has the
variables of the condition first and sums to one over the last axis.

A test is positive for 99 of 100 ill people and for 5 of 100 healthy ones; 1 of 100 people is ill. After a positive test
the probability of illness is 1/6:

>>> prior = jnp.array([0.99, 0.01])  # healthy, ill
>>> likelihood = jnp.array([[0.95, 0.05], [0.01, 0.99]])  # p(test|state)
>>> [round(float(p), 4) for p in posterior(prior, likelihood[:, 1])]
[0.8333, 0.1667]

A second test, independent of the first given the state, updates the posterior:

>>> [round(float(p), 4) for p in posterior(posterior(prior, likelihood[:, 1]), likelihood[:, 1])]
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
      prior: p(x) of any number of variables [...x].
      conditional: p(y|x) [...x y].

    Raises:
      ValueError: a table is no distribution, or the axes of the condition differ from those of the prior.
    """
    if np.shape(conditional)[:-1] != np.shape(prior):
        expected = f"the axes {np.shape(prior)} of the prior and one more"
        raise ValueError(f"conditional: expected {expected}, got {np.shape(conditional)}")
    return _joint("prior", prior)[..., None] * simplex.distribution("conditional", conditional)


def marginal(table: Numbers, axes: tuple[int, ...]) -> Table:
    """Sum out all variables but those on ``axes``; the result has them in this order (Bishop 2006, eq. 1.31).

    >>> marginal(jnp.array([[0.125, 0.25], [0.125, 0.5]]), (0,)).tolist()
    [0.375, 0.625]
    >>> marginal(jnp.array([[0.125, 0.25], [0.125, 0.5]]), (1, 0)).tolist()
    [[0.125, 0.125], [0.25, 0.5]]

    Raises:
      ValueError: ``table`` is no joint distribution, or an axis does not exist or is named twice.
    """
    p = _joint("table", table)
    kept = _axes("axes", axes, p.ndim)
    return _sum_out(p, kept)


def conditional(table: Numbers, given: tuple[int, ...]) -> Table:
    """p(others|given) = p(all) / p(given), in the axes of ``table``; NaN where the condition has probability 0.

    >>> conditional(jnp.array([[0.125, 0.375], [0.125, 0.375]]), (0,)).tolist()
    [[0.25, 0.75], [0.25, 0.75]]

    Args:
      table: a joint distribution.
      given: axes of the variables in the condition.

    Raises:
      ValueError: ``table`` is no joint distribution, or an axis does not exist or is named twice.
    """
    p = _joint("table", table)
    kept = _axes("given", given, p.ndim)
    others = tuple(axis for axis in range(p.ndim) if axis not in kept)
    if checks.is_concrete(table):  # in float64, since float32 takes small probabilities for 0
        exact = np.asarray(table, np.float64)
        largest = exact.max(others, keepdims=True, initial=0)
        scaled = exact / np.where(largest > 0, largest, 1)
        sums = np.where(largest > 0, scaled.sum(others, keepdims=True), 1)
        return jnp.asarray(np.where(largest > 0, scaled / sums, np.nan), p.dtype)
    total = p.sum(others, keepdims=True)
    return jnp.where(total > 0, p / jnp.where(total > 0, total, 1), jnp.nan)


def posterior(prior: Numbers, likelihood: Numbers) -> Table:
    """p(x|data) = p(data|x) p(x) / Σ_x' p(data|x') p(x'), Bayes' rule (Bishop 2006, eq. 1.12).

    Args:
      prior: p(x) of any number of variables; sums to one over all axes.
      likelihood: p(data|x) of the observed data, in the axes of the prior; a density is allowed.

    Returns:
      The posterior, a distribution in the axes of the prior.

    Raises:
      ValueError: the prior is no distribution, a likelihood is negative, or the data are impossible under the prior.
    """
    if np.shape(likelihood) != np.shape(prior):
        raise ValueError(
            f"likelihood: expected one number for each of the prior's {np.shape(prior)}, got {np.shape(likelihood)}"
        )
    p = _joint("prior", prior)
    checks.real("likelihood", likelihood)
    if checks.is_concrete(prior, likelihood):
        exact = np.asarray(likelihood, np.float64)
        checks.finite("likelihood", likelihood)
        if np.any(exact < 0):
            raise ValueError(f"likelihood: expected nothing negative, got {exact.min():g}")
        if not np.any((exact > 0) & (np.asarray(prior) > 0)):
            raise ValueError("likelihood: the data are impossible under the prior, so there is no posterior")
        with np.errstate(divide="ignore"):
            logits = np.log(np.asarray(prior, np.float64)) + np.log(exact)
        return _softmax(jnp.asarray(logits - logits.max(), p.dtype))
    log = lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), -jnp.inf)
    return _softmax(log(p) + log(simplex.as_floating(likelihood)))


def log_posterior(log_prior: Numbers, log_likelihood: Numbers) -> Table:
    """``posterior`` from logarithms, for products over many observations, which would underflow.

    Args:
      log_prior: log p(x), up to a constant; -∞ for impossible values.
      log_likelihood: log p(data|x), the sum over observations, in the axes of ``log_prior``.

    Returns:
      The posterior as probabilities, not logarithms; in ``jit`` NaN where the data are impossible.

    Raises:
      ValueError: the axes differ, a number is NaN or +∞, or the data are impossible under the prior.
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
    """I(X; Y|given) of a joint table, nats: 0 iff X and Y are independent given the condition (Bishop 2006, §8.2).

    >>> cause = jnp.array([0.5, 0.5])
    >>> effect = jnp.array([[0.75, 0.25], [0.25, 0.75]])
    >>> both = cause[:, None, None] * effect[:, :, None] * effect[:, None, :]  # two effects of one cause
    >>> round(float(dependence(both, 1, 2)), 4), round(float(dependence(both, 1, 2, given=(0,))), 4)
    (0.0316, 0.0)

    Args:
      table: a joint distribution.
      x: axis of the first variable.
      y: axis of the second variable.
      given: axes of the condition; all axes that are not named are summed out.

    Raises:
      ValueError: ``table`` is no joint distribution, or an axis does not exist or is named twice.
    """
    p = _joint("table", table)
    ordered = _sum_out(p, _axes("x, y, given", (x, y, *given), p.ndim))
    return information.conditional_mutual_information(ordered.reshape(*ordered.shape[:2], -1))


def independent(table: Numbers, x: int, y: int, given: tuple[int, ...] = (), *, tolerance: float | int = 1e-6) -> bool:
    """Return True where X ⊥ Y | given: ``dependence`` is at most ``tolerance`` nats. Not jittable.

    Raises:
      ValueError: as ``dependence``; ``tolerance`` is negative, or ``table`` is a tracer.
    """
    checks.within("tolerance", tolerance, 0)
    if not checks.is_concrete(table):
        raise ValueError("table: expected known values, got a tracer; in jit compare dependence")
    return bool(dependence(table, x, y, given) <= tolerance)


def _joint(name: str, table: Numbers) -> Table:
    """The table as an array, checked to be a distribution over all of its axes."""
    return simplex.distribution(name, table, tuple(range(np.ndim(table))))


def _axes(name: str, axes: Any, ndim: int) -> tuple[int, ...]:
    """The axes counted from 0; refused where one is named twice."""
    if not isinstance(axes, tuple | list):
        raise ValueError(f"{name}: expected a tuple of axes, got {axes!r}")
    counted = tuple(checks.axis(name, axis, ndim) for axis in axes)
    if len(set(counted)) < len(counted):
        raise ValueError(f"{name}: expected different axes, got {axes}")
    return counted


def _sum_out(p: Table, kept: tuple[int, ...]) -> Table:
    """Sum over all axes but those in ``kept``; the result has the kept axes in their order."""
    others = tuple(axis for axis in range(p.ndim) if axis not in kept)
    return jnp.transpose(p, (*kept, *others)).sum(tuple(range(len(kept), p.ndim)))


def _softmax(logits: Table) -> Table:
    return jax.nn.softmax(logits.reshape(-1)).reshape(logits.shape)
