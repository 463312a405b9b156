"""Information from samples: means with their standard errors, and entropies of discrete samples."""

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
"""One number for each row of the batch."""


class Estimate(NamedTuple):
    """A mean over independent samples.

    Fields:
      mean: of the samples.
      standard_error: its standard deviation, s / √n.
    """

    mean: Values
    standard_error: Values


def estimate(values: Numbers) -> Estimate:
    """The mean over the leading axis with its standard error: ``estimate(-log_q)`` is the cross-entropy H(p, q) where
    ``log_q`` are log-probabilities of samples of p, ``estimate(-log_p)`` the entropy H(p).

    >>> tuple(map(float, estimate(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))))  # doctest: +ELLIPSIS
    (3.0, 0.707...)

    Raises:
      ValueError: fewer than two samples, of which no error can be known; or one is not finite.
    """
    checks.min_rows("values", values, 2)
    checks.finite("values", values)
    array, n = simplex.as_floating(values), np.shape(values)[0]
    if not checks.is_concrete(values):
        return Estimate(array.mean(0), array.std(0, ddof=1) / math.sqrt(n))
    table = np.asarray(values, np.float64)
    scale = np.maximum(np.abs(table).max(0), np.finfo(np.float64).tiny)  # squares of 1e-200 are 0
    mean, error = (f(table / scale) * scale for f in (lambda x: x.mean(0), lambda x: x.std(0, ddof=1) / math.sqrt(n)))
    return Estimate(jnp.asarray(mean, array.dtype), jnp.asarray(error, array.dtype))


def kl_from_samples(log_p: Numbers, log_q: Numbers) -> Estimate:
    """D(p‖q) from log-probabilities of samples of p under both: the mean of r - 1 - log r with r = q / p.

    Unbiased where q ≪ p, since E_p[r] = 1; never negative, and of lower variance than the mean of -log r where p and q
    are close (Schulman 2020, "Approximating KL divergence", k₃).

    Raises:
      ValueError: other shapes, fewer than two samples, or a number that is not finite: where q misses a sample of p,
        D is +∞.
    """
    if np.shape(log_p) != np.shape(log_q):
        raise ValueError(f"log_p, log_q: expected one shape, got {np.shape(log_p)} and {np.shape(log_q)}")
    checks.finite("log_p", log_p)
    checks.finite("log_q", log_q)
    if checks.is_concrete(log_p, log_q):  # the difference of large numbers, before any digit is lost
        log_r = np.asarray(log_q, np.float64) - np.asarray(log_p, np.float64)
        dtype = jnp.result_type(simplex.as_floating(log_p), simplex.as_floating(log_q))
        if np.any(log_r > (most := math.log(float(jnp.finfo(dtype).max)))):
            raise ValueError(f"log_q: expected at most {most:.0f} nats more than log_p, got {log_r.max():g} more")
        return estimate(series.expm1_minus_x(jnp.asarray(log_r, dtype)))
    return estimate(series.expm1_minus_x(simplex.as_floating(log_q) - simplex.as_floating(log_p)))


def empirical(variables: Sequence[Any], sizes: Sequence[int]) -> Float[Array, "..."]:
    """The joint frequencies of discrete samples, a table of shape ``sizes``; entropies of it are plug-in estimates.

    >>> x, y = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 1])
    >>> empirical([x, y], [2, 2]).tolist()
    [[0.25, 0.25], [0.0, 0.5]]

    Args:
      variables: samples of each variable, in [0, size) [n]; the i-th numbers of all belong together.
      sizes: number of values of each variable.

    Raises:
      ValueError: a sample outside its range or no whole number, no samples, or not as many of each variable.
    """
    if len(variables) != len(sizes) or len({np.shape(x) for x in variables}) != 1 or np.ndim(variables[0]) != 1:
        shapes = [np.shape(x) for x in variables]
        raise ValueError(f"variables: expected samples [n] of each of {len(sizes)} variables, got the shapes {shapes}")
    checks.min_rows("variables", variables[0])
    if min(sizes) < 1 or math.prod(sizes) > np.iinfo(np.int32).max:
        raise ValueError(f"sizes: expected a table of 1 to 2**31 - 1 places, got {tuple(sizes)}")
    flat = jnp.zeros(np.shape(variables[0]), jnp.int32)  # as wide as the table is, whatever the samples' type
    for i, (x, size) in enumerate(zip(variables, sizes, strict=True)):
        _check_range(f"variables[{i}]", x, size)
        flat = flat * size + jnp.clip(jnp.asarray(x).astype(jnp.int32), 0, size - 1)
    return (jnp.bincount(flat, length=math.prod(sizes)) / flat.shape[0]).reshape(tuple(sizes))


def entropy_from_samples(samples: Any, size: int) -> Float[Array, ""]:
    """H of n samples in [0, size), with the first-order correction of the plug-in estimate's bias.

    Ĥ = H(frequencies) + (m - 1) / 2n, with m the number of different values seen (Miller 1955).

    Raises:
      ValueError: as ``empirical``.
    """
    return _miller(empirical([samples], [size]), np.shape(samples)[0])


def mutual_information_from_samples(x: Any, y: Any, sizes: tuple[int, int]) -> Float[Array, ""]:
    """I(X; Y) of n pairs: Ĥ(X) + Ĥ(Y) - Ĥ(X, Y), each as ``entropy_from_samples``.

    Near 0 where they do not depend, and then as often below as above.

    Raises:
      ValueError: as ``empirical``.
    """
    joint = empirical([x, y], sizes)
    hx, hy, hxy = (_miller(table, np.shape(x)[0]) for table in (joint.sum(1), joint.sum(0), joint.reshape(-1)))
    return hx + hy - hxy


def _check_range(name: str, x: Any, size: int) -> None:
    kind = np.asarray(x).dtype if checks.is_concrete(x) else x.dtype
    if not jnp.issubdtype(kind, jnp.integer):
        raise ValueError(f"{name}: expected whole numbers, got {kind}")
    if checks.is_concrete(x) and not (0 <= np.min(x) and np.max(x) < size):
        raise ValueError(f"{name}: expected samples in [0, {size}), got {np.min(x)} to {np.max(x)}")


def _miller(frequencies: Float[Array, " k"], n: int) -> Float[Array, ""]:
    return information.entropy(frequencies) + (jnp.sum(frequencies > 0) - 1) / (2 * n)
