"""Distances between two sets of points: of images, or of what a feature extractor makes of them.

Zero is only reached by equal laws, and sets of finite size keep their distance: state the number of points, and beside
every score the same score of real points that were held out, its floor.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genjax.theory.estimates import Estimate, estimate
from genjax.types import Key, Scalar

Points = Float[np.ndarray, "_ _"]


def frechet(a: Points, b: Points) -> float:
    """|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a^½ Σ_b Σ_a^½)^½): the Fréchet distance of two Gaussians, squared.

    With Inception features it is called FID (Heusel et al. 2017, eq. 6); it falls as 1/n, so sets must be equally large
    to be compared. In float64, by symmetric eigenvalues, which stay real where a covariance is singular.

    >>> x = np.array([[-1.0], [1.0]])
    >>> frechet(x, 3 * x + 2)  # means 0 and 2, variances 2 and 18: 4 + (3 √2 - √2)²
    12.0

    Raises:
      ValueError: fewer than 2 points, another number of features, or numbers that are not finite.
    """
    _check(a, b, least=2)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    distance = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first) + np.trace(second) - 2 * cross
    return round(float(max(distance, 0.0)), 12)


def kernel(key: Key, a: Points, b: Points, *, num_blocks: int = 100, size: int = 1000) -> Estimate:
    """The squared kernel distance of kernel (x·y / d + 1)³, without bias, with its standard error over random blocks.

    Called KID with Inception features (Bińkowski et al. 2018, §4). Standardise features beforehand: it has their scale.

    Args:
      key: of the choice of blocks.
      a, b: the sets.
      num_blocks: of points drawn without replacement from both.
      size: of a block; no larger than the sets.

    Raises:
      ValueError: fewer than 2 points, another number of features, or numbers that are not finite.
    """
    _check(a, b, least=2)
    size = min(size, len(a), len(b))
    power = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
    off = lambda k: (k.sum() - np.trace(k)) / (size * (size - 1))
    values = []
    for block in jax.random.split(key, num_blocks):
        both = zip((a, b), jax.random.split(block), strict=True)
        x, y = (np.asarray(s[jax.random.permutation(k, len(s))[:size]], np.float64) for s, k in both)
        values.append(off(power(x, x)) + off(power(y, y)) - 2 * power(x, y).mean())
    return estimate(jnp.asarray(values))


def energy(a: Float[Array, "n d"], b: Float[Array, "m d"]) -> Scalar:
    """2 E|x - y| - E|x - x'| - E|y - y'| ≥ 0 of the two empirical laws (Székely & Rizzo 2013, eq. 5); jittable.

    >>> float(energy(jnp.array([[0.0], [1.0]]), jnp.array([[0.0], [1.0]])))
    0.0
    """
    mean = lambda x, y: jnp.mean(jnp.sqrt(jnp.sum((x[:, None] - y) ** 2, -1)))
    return 2 * mean(a, b) - mean(a, a) - mean(b, b)


def standardise(reference: Points, *others: Points) -> tuple[Points, ...]:
    """The other sets in units where the reference has mean 0 and standard deviation 1.

    A feature that hardly varies is not blown up: no deviation counts as less than a hundredth of the largest.
    """
    mean, spread = reference.mean(0), reference.std(0)
    least = spread.max(initial=0) / 100
    return tuple((x - mean) / np.maximum(spread, least if least > 0 else 1) for x in others)


def _check(a: Points, b: Points, *, least: int) -> None:
    for name, x in (("a", a), ("b", b)):
        if x.ndim != 2 or len(x) < least:
            raise ValueError(f"{name}: expected at least {least} points [n d], got the shape {x.shape}")
        if not np.isfinite(x).all():
            raise ValueError(f"{name}: expected finite numbers")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"b: expected points of {a.shape[1]} features, as a has; got {b.shape[1]}")
