"""Estimates from samples: means with standard errors, KL divergences, and entropies of discrete variables."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax import checks
from genjax.theory import information, series, simplex
from genjax.theory.simplex import Numbers

Values = Float[Array, "..."]
"""A number for each row of the batch."""


class Estimate(NamedTuple):
    """Mean over independent samples, with its error.

    Attributes:
      mean: mean of the samples.
      standard_error: standard deviation of the mean, s / √n.
    """

    mean: Values
    standard_error: Values


def estimate(values: Numbers) -> Estimate:
    """The mean over the leading axis with its standard error.

    For log-probabilities ``log_q`` of samples of p, ``estimate(-log_q)`` is the cross-entropy H(p, q), and
    ``estimate(-log_p)`` the entropy H(p).

    >>> tuple(map(float, estimate(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))))  # doctest: +ELLIPSIS
    (3.0, 0.707...)

    Raises:
      ValueError: there are fewer than two samples, so no error can be estimated; or a sample is not finite.
    """
    checks.min_rows("values", values, 2)
    checks.finite("values", values)
    array, n = simplex.as_floating(values), np.shape(values)[0]
    if not checks.is_concrete(values):
        return Estimate(array.mean(0), array.std(0, ddof=1) / math.sqrt(n))
    table = np.asarray(values, np.float64)
    scale = np.maximum(np.abs(table).max(0), np.finfo(np.float64).tiny)  # squares of 1e-200 are 0
    mean, error = (table / scale).mean(0) * scale, (table / scale).std(0, ddof=1) / math.sqrt(n) * scale
    return Estimate(jnp.asarray(mean, array.dtype), jnp.asarray(error, array.dtype))


def kl_from_samples(log_p: Numbers, log_q: Numbers) -> Estimate:
    """D(p‖q) from log-probabilities of samples of p under both: the mean of r - 1 - log r with r = q / p.

    Unbiased where q ≪ p, since E_p[r] = 1; never negative, and of lower variance than the mean of -log r where p and q
    are close (Schulman 2020, "Approximating KL divergence", k₃).

    Raises:
      ValueError: the shapes differ, there are fewer than two samples, or a number is not finite: where q is 0 at a
        sample of p, D is +∞.
    """
    if np.shape(log_p) != np.shape(log_q):
        raise ValueError(f"log_p, log_q: expected one shape, got {np.shape(log_p)} and {np.shape(log_q)}")
    checks.finite("log_p", log_p)
    checks.finite("log_q", log_q)
    if checks.is_concrete(log_p, log_q):  # in float64: the difference of large numbers
        log_r = np.asarray(log_q, np.float64) - np.asarray(log_p, np.float64)
        dtype = jnp.result_type(simplex.as_floating(log_p), simplex.as_floating(log_q))
        if np.any(log_r > (limit := math.log(float(jnp.finfo(dtype).max)))):
            raise ValueError(f"log_q: expected at most {limit:.0f} nats more than log_p, got {log_r.max():g} more")
        return estimate(series.expm1_minus_x(jnp.asarray(log_r, dtype)))
    return estimate(series.expm1_minus_x(simplex.as_floating(log_q) - simplex.as_floating(log_p)))


def empirical(variables: Sequence[Any], sizes: Sequence[int]) -> Float[Array, "..."]:
    """Joint frequencies of discrete samples, a table of shape ``sizes``; its entropies are plug-in estimates.

    >>> x, y = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 1])
    >>> empirical([x, y], [2, 2]).tolist()
    [[0.25, 0.25], [0.0, 0.5]]

    Args:
      variables: samples of each variable, integers in [0, size) [n]; entry i of all variables is one joint sample.
      sizes: number of values of each variable.

    Raises:
      ValueError: a sample is no integer or outside its range, there are no samples, or the lengths differ.
    """
    if len(variables) != len(sizes) or len({np.shape(x) for x in variables}) != 1 or np.ndim(variables[0]) != 1:
        shapes = [np.shape(x) for x in variables]
        raise ValueError(f"variables: expected samples [n] of each of {len(sizes)} variables, got the shapes {shapes}")
    checks.min_rows("variables", variables[0])
    if min(sizes) < 1 or math.prod(sizes) > np.iinfo(np.int32).max:
        raise ValueError(f"sizes: expected a table of 1 to 2**31 - 1 entries, got {tuple(sizes)}")
    flat = jnp.zeros(np.shape(variables[0]), jnp.int32)  # wide enough for the table, whatever the samples' dtype
    for i, (x, size) in enumerate(zip(variables, sizes, strict=True)):
        _check_range(f"variables[{i}]", x, size)
        flat = flat * size + jnp.clip(jnp.asarray(x).astype(jnp.int32), 0, size - 1)
    return (jnp.bincount(flat, length=math.prod(sizes)) / flat.shape[0]).reshape(tuple(sizes))


def entropy_from_samples(samples: Any, size: int) -> Float[Array, ""]:
    """Entropy of n samples in [0, size), with the first-order correction of the plug-in estimate's bias.

    Ĥ = H(frequencies) + (m - 1) / 2n, with m the number of different values that occur (Miller 1955).

    Raises:
      ValueError: as ``empirical``.
    """
    return _miller(empirical([samples], [size]), np.shape(samples)[0])


def mutual_information_from_samples(x: Any, y: Any, sizes: tuple[int, int]) -> Float[Array, ""]:
    """Mutual information of n pairs: Ĥ(X) + Ĥ(Y) - Ĥ(X, Y), with Ĥ of ``entropy_from_samples``.

    For independent variables the estimate is near 0, as often below as above.

    Raises:
      ValueError: as ``empirical``.
    """
    joint = empirical([x, y], sizes)
    hx, hy, hxy = (_miller(table, np.shape(x)[0]) for table in (joint.sum(1), joint.sum(0), joint.reshape(-1)))
    return hx + hy - hxy


def _check_range(name: str, x: Any, size: int) -> None:
    dtype = np.asarray(x).dtype if checks.is_concrete(x) else x.dtype
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"{name}: expected whole numbers, got {dtype}")
    if checks.is_concrete(x) and not (0 <= np.min(x) and np.max(x) < size):
        raise ValueError(f"{name}: expected samples in [0, {size}), got {np.min(x)} to {np.max(x)}")


def _miller(frequencies: Float[Array, " k"], n: int) -> Float[Array, ""]:
    return information.entropy(frequencies) + (jnp.sum(frequencies > 0) - 1) / (2 * n)
