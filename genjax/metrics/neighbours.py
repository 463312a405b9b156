"""Nearest-neighbour metrics: precision, recall, density and coverage (PRDC), and memorization of training points."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from genjax import checks
from genjax.metrics.distances import Points, point_sets, power_of_two

CHUNK = 250  # points whose distances to all others are in memory at once
MAX_DIFFERENCES = 2**21  # numbers whose differences are in memory at once


class PRDC(NamedTuple):
    """Precision, recall, density and coverage. The ball of a point reaches to its k-th neighbour in its own set.

    Attributes:
      precision: share of generated points in the ball of a real point (Kynkäänniemi et al. 2019, eq. 2).
      recall: share of real points in the ball of a generated point.
      density: mean number of balls of real points that a generated point lies in, over k. Robust to single outliers
        (Naeem et al. 2020, eq. 4); about 1 for equal distributions.
      coverage: share of real points whose ball holds a generated point (eq. 5).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def prdc(real: Points, generated: Points, *, k: Any = 5) -> PRDC:
    """Precision, recall, density and coverage of generated points; use sets of equal size.

    >>> line = np.arange(10.0)[:, None]
    >>> prdc(line, line[:5] + 0.5, k=1)
    PRDC(precision=1.0, recall=0.6, density=2.0, coverage=0.6)

    Args:
      real: real points [n d].
      generated: generated points [m d].
      k: number of the neighbour that a ball reaches to.

    Raises:
      ValueError: ``k`` is below 1 or not below the number of points of a set; or as ``distances.point_sets``.
    """
    real, generated = point_sets(real=real, generated=generated)
    _check_k(k, min(len(real), len(generated)))
    real_radius, generated_radius = kth_neighbour_distances(real, k), kth_neighbour_distances(generated, k)
    precise, num_balls = np.zeros(len(generated), bool), np.zeros(len(generated))
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    limit = lambda rows, _: np.maximum(real_radius, generated_radius[rows, None])
    for rows, distance in _chunks(generated, real, limit):
        inside = distance <= real_radius
        precise[rows], num_balls[rows] = inside.any(1), inside.sum(1)
        covered |= inside.any(0)
        recalled |= (distance <= generated_radius[rows, None]).any(0)
    return PRDC(float(precise.mean()), float(recalled.mean()), float(num_balls.mean() / k), float(covered.mean()))


class Memorization(NamedTuple):
    """Distances of generated points to the training set, against those of held-out points.

    Attributes:
      ratio: median distance of generated points to their nearest training point, over the same median of held-out
        points: 1 for a model that has learned the distribution, 0 for one that repeats its training set.
      share: share of generated points that are nearer to the training set than 99 of 100 held-out points.
    """

    ratio: float
    share: float


def memorization(train: Points, heldout: Points, generated: Points) -> Memorization:
    """Measure the memorization of a training set.

    >>> train, heldout = np.arange(0.0, 100, 2)[:, None], np.arange(1.0, 100, 2)[:, None]
    >>> memorization(train, heldout, train[:10]), memorization(train, heldout, heldout[:10]).ratio
    (Memorization(ratio=0.0, share=1.0), 1.0)

    Raises:
      ValueError: half of the held-out points are training points, so the ratio means nothing; or as
        ``distances.point_sets``.
    """
    train, heldout, generated = point_sets(train=train, heldout=heldout, generated=generated)
    heldout_distance, distance = nearest_distances(heldout, train), nearest_distances(generated, train)
    if not (median := np.median(heldout_distance)) > 0:
        raise ValueError("heldout: expected points that are not in train; half of them or more are")
    share = float((distance < np.quantile(heldout_distance, 0.01)).mean())
    return Memorization(float(np.median(distance) / median), share)


def nearest_distances(points: Points, others: Points) -> Float[np.ndarray, " _"]:
    """Distance of each point to the nearest of the others.

    Raises:
      ValueError: as ``distances.point_sets``.
    """
    points, others = point_sets(points=points, others=others)
    chunks = _chunks(points, others, lambda _, upper: upper.min(1, keepdims=True))
    return np.concatenate([distance.min(1) for _, distance in chunks])


def kth_neighbour_distances(points: Points, k: Any) -> Float[np.ndarray, " _"]:
    """Distance of each point to its k-th nearest neighbour in the set; the point itself does not count.

    Raises:
      ValueError: ``k`` is below 1 or not below the number of points; or as ``distances.point_sets``.
    """
    (points,) = point_sets(points=points)
    _check_k(k, len(points))
    kth = lambda values: np.partition(values, k, 1)[:, k : k + 1]
    return np.concatenate([kth(distance)[:, 0] for _, distance in _chunks(points, points, lambda _, upper: kth(upper))])


def pairwise_distances(a: Points, b: Points) -> Float[np.ndarray, "_ _"]:
    """Euclidean distances in float64, by subtraction: exact to rounding however far from 0 the points lie.

    Raises:
      ValueError: as ``distances.point_sets``.
    """
    a, b = point_sets(a=a, b=b)
    scale = power_of_two(a, b)
    a, b = a / scale, b / scale
    rows = max(MAX_DIFFERENCES // b.size, 1)
    parts = [np.sqrt(((a[i : i + rows, None] - b) ** 2).sum(-1)) for i in range(0, len(a), rows)]
    return np.concatenate(parts) * scale


def _chunks(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], limit: Callable[[slice, np.ndarray], np.ndarray]
) -> Iterator[tuple[slice, Float[np.ndarray, "_ m"]]]:
    """Distances of each chunk of a to all of b, by subtraction for all pairs that may lie within the limit.

    All other distances come from |a|² + |b|² - 2 a·b of centred points, which is fast. The rounding of this form is
    bounded, and these pairs are certainly beyond the limit. ``limit(rows, upper)`` returns the limit of a chunk from
    its rows and from upper bounds of its distances.
    """
    scale, d = power_of_two(a, b), b.shape[1]
    a, b = a / scale, b / scale
    centre = b[0] + np.mean(b - b[0], 0)
    x, y = a - centre, b - centre
    for start in range(0, len(a), CHUNK):
        chunk = slice(start, start + CHUNK)
        lengths = (x[chunk] ** 2).sum(1)[:, None] + (y**2).sum(1)
        squares = lengths - 2 * x[chunk] @ y.T
        rounding = (d + 8) * np.finfo(np.float64).eps * lengths
        largest = limit(chunk, np.sqrt(np.maximum(squares + rounding, 0)) * scale)
        rows, columns = np.nonzero(np.sqrt(np.maximum(squares - rounding, 0)) * scale <= largest)
        for i in range(0, len(rows), step := max(MAX_DIFFERENCES // d, 1)):
            row, column = rows[i : i + step], columns[i : i + step]
            squares[row, column] = ((a[start + row] - b[column]) ** 2).sum(1)
        yield chunk, np.sqrt(squares) * scale


def _check_k(k: Any, num: int) -> None:
    if checks.count("k", k) >= num:
        raise ValueError(f"k: expected 1 to below {num}, the points of the smaller set; got {k}")
