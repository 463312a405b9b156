"""Information from samples: means with their standard errors, and entropies of discrete samples."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from genjax.theory import information, simplex

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


def estimate(values: Float[Array, "n ..."]) -> Estimate:
    """The mean over the leading axis with its standard error: ``estimate(-log_q)`` is the cross-entropy H(p, q) where
    ``log_q`` are log-probabilities of samples of p, ``estimate(-log_p)`` the entropy H(p).

    >>> tuple(map(float, estimate(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0]))))  # doctest: +ELLIPSIS
    (3.0, 0.707...)
    """
    return Estimate(values.mean(0), values.std(0, ddof=1) / math.sqrt(values.shape[0]))


def kl_from_samples(log_p: Float[Array, "n ..."], log_q: Float[Array, "n ..."]) -> Estimate:
    """D(p‖q) from log-probabilities of samples of p under both: the mean of r - 1 - log r with r = q / p.

    Unbiased where q ≪ p, since E_p[r] = 1; never negative, and of lower variance than the mean of -log r where p and q
    are close (Schulman 2020, "Approximating KL divergence", k₃).
    """
    log_r = log_q - log_p
    return estimate(jnp.expm1(log_r) - log_r)


def empirical(variables: Sequence[Integer[Array, " n"]], sizes: Sequence[int]) -> Float[Array, "..."]:
    """The joint frequencies of discrete samples, a table of shape ``sizes``; entropies of it are plug-in estimates.

    >>> x, y = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 1])
    >>> empirical([x, y], [2, 2]).tolist()
    [[0.25, 0.25], [0.0, 0.5]]

    Args:
      variables: samples of each variable, in [0, size); the i-th numbers of all belong together.
      sizes: number of values of each variable.

    Raises:
      ValueError: a sample outside its range.
    """
    for i, (x, size) in enumerate(zip(variables, sizes, strict=True)):
        if simplex.known(x) and x.size and not (0 <= np.min(x) and np.max(x) < size):
            raise ValueError(f"variables[{i}]: expected samples in [0, {size}), got {np.min(x)} to {np.max(x)}")
    flat = jnp.ravel_multi_index(tuple(variables), tuple(sizes), mode="clip")
    return (jnp.bincount(flat, length=math.prod(sizes)) / flat.shape[0]).reshape(tuple(sizes))


def entropy_from_samples(samples: Integer[Array, " n"], size: int) -> Float[Array, ""]:
    """H of n samples in [0, size), with the first-order correction of the plug-in estimate's bias.

    Ĥ = H(frequencies) + (m - 1) / 2n, with m the number of different values seen (Miller 1955).
    """
    return _miller(empirical([samples], [size]), samples.shape[0])


def mutual_information_from_samples(
    x: Integer[Array, " n"], y: Integer[Array, " n"], sizes: tuple[int, int]
) -> Float[Array, ""]:
    """I(X; Y) of n pairs: Ĥ(X) + Ĥ(Y) - Ĥ(X, Y), each as ``entropy_from_samples``; near 0 where they do not depend."""
    joint = empirical([x, y], sizes)
    hx, hy, hxy = (_miller(table, x.shape[0]) for table in (joint.sum(1), joint.sum(0), joint.reshape(-1)))
    return hx + hy - hxy


def _miller(frequencies: Float[Array, " k"], n: int) -> Float[Array, ""]:
    return information.entropy(frequencies) + (jnp.sum(frequencies > 0) - 1) / (2 * n)
