"""What nearest neighbours tell of two sets of points: quality and variety apart, and whether points were copied."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genjax.metrics.distances import Points

CHUNK = 250  # points whose distances to all others are held at a time


class Manifold(NamedTuple):
    """Shares of points that lie within the other set's balls, which reach to the k-th neighbour within the set.

    Fields:
      precision: of what was made, within the balls of the real ones (Kynkäänniemi et al. 2019, eq. 2).
      recall: of the real ones, within the balls of what was made.
      density: how many balls of the real ones a made point is in, over k; not cheated by single outliers (Naeem et al.
        2020, eq. 4); about 1 for equal laws.
      coverage: of the real ones, whose ball has a made point in it (eq. 5).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: Points, made: Points, *, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage; use as many points of both.

    >>> line = np.arange(10.0)[:, None]
    >>> manifold(line, line[:5] + 0.5, k=1)
    Manifold(precision=1.0, recall=0.6, density=2.0, coverage=0.6)

    Raises:
      ValueError: k below 1, or a set of no more than k points.
    """
    if not 1 <= k < min(len(real), len(made)):
        raise ValueError(f"k: expected 1 to below {min(len(real), len(made))}, the smaller set; got {k}")
    real_radius, made_radius = radii(real, k), radii(made, k)
    precise, recalled, dense = np.zeros(len(made), bool), np.zeros(len(real), bool), np.zeros(len(made))
    covered = np.zeros(len(real), bool)
    for start in range(0, len(made), CHUNK):
        part = slice(start, start + CHUNK)
        distance = distances(made[part], real)
        within = distance <= real_radius
        precise[part], dense[part] = within.any(1), within.sum(1)
        covered |= within.any(0)
        recalled |= (distance <= made_radius[part, None]).any(0)
    return Manifold(float(precise.mean()), float(recalled.mean()), float(dense.mean() / k), float(covered.mean()))


class Copies(NamedTuple):
    """How near to the training set points are.

    Fields:
      ratio: median distance of made points to their nearest training point, over that of held-out points: 1 for a
        model that has learned the law, 0 for one that gives its training set back.
      share: of made points that are nearer to the training set than all but one in a hundred held-out points.
    """

    ratio: float
    share: float


def copies(train: Points, heldout: Points, made: Points) -> Copies:
    """Whether a model has memorised its training set.

    >>> train, heldout = np.arange(0.0, 100, 2)[:, None], np.arange(1.0, 100, 2)[:, None]
    >>> copies(train, heldout, train[:10]), copies(train, heldout, heldout[:10]).ratio
    (Copies(ratio=0.0, share=1.0), 1.0)
    """
    theirs, ours = nearest(heldout, train), nearest(made, train)
    return Copies(float(np.median(ours) / np.median(theirs)), float((ours < np.quantile(theirs, 0.01)).mean()))


def nearest(points: Points, others: Points) -> Float[np.ndarray, " _"]:
    """Distance of each point to the nearest of the others."""
    return _each(points, others, lambda d: d.min(1))


def radii(points: Points, k: int) -> Float[np.ndarray, " _"]:
    """Distance of each point to its k-th neighbour in its own set, itself not counted."""
    return _each(points, points, lambda d: np.partition(d, k, 1)[:, k])


def distances(a: Points, b: Points) -> Float[np.ndarray, "_ _"]:
    """Euclidean distances, in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


def _each(a: Points, b: Points, reduce) -> Float[np.ndarray, " _"]:
    return np.concatenate([reduce(distances(a[i : i + CHUNK], b)) for i in range(0, len(a), CHUNK)])
