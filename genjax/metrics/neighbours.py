"""What nearest neighbours tell of two sets of points: quality and variety apart, and whether points were copied."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from genjax import checks
from genjax.metrics.distances import Points, point_sets, power_of_two

CHUNK = 250  # points whose distances to all others are held at a time
PART = 2**21  # numbers whose differences are held at a time


class PRDC(NamedTuple):
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


def prdc(real: Points, made: Points, *, k: Any = 5) -> PRDC:
    """Precision, recall, density and coverage; use as many points of both.

    >>> line = np.arange(10.0)[:, None]
    >>> prdc(line, line[:5] + 0.5, k=1)
    PRDC(precision=1.0, recall=0.6, density=2.0, coverage=0.6)

    Raises:
      ValueError: k below 1, or a set of no more than k points, or other points than ``distances.point_sets`` takes.
    """
    real, made = point_sets(real=real, made=made)
    _check_k(k, min(len(real), len(made)))
    real_radius, made_radius = kth_neighbour_distances(real, k), kth_neighbour_distances(made, k)
    precise, recalled, dense = np.zeros(len(made), bool), np.zeros(len(real), bool), np.zeros(len(made))
    covered = np.zeros(len(real), bool)
    for part, distance in _chunks(made, real, lambda part, _: np.maximum(real_radius, made_radius[part, None])):
        within = distance <= real_radius
        precise[part], dense[part] = within.any(1), within.sum(1)
        covered |= within.any(0)
        recalled |= (distance <= made_radius[part, None]).any(0)
    return PRDC(float(precise.mean()), float(recalled.mean()), float(dense.mean() / k), float(covered.mean()))


class Memorization(NamedTuple):
    """How near to the training set points are.

    Fields:
      ratio: median distance of made points to their nearest training point, over that of held-out points: 1 for a
        model that has learned the law, 0 for one that gives its training set back.
      share: of made points that are nearer to the training set than all but one in a hundred held-out points.
    """

    ratio: float
    share: float


def memorization(train: Points, heldout: Points, made: Points) -> Memorization:
    """Whether a model has memorised its training set.

    >>> train, heldout = np.arange(0.0, 100, 2)[:, None], np.arange(1.0, 100, 2)[:, None]
    >>> memorization(train, heldout, train[:10]), memorization(train, heldout, heldout[:10]).ratio
    (Memorization(ratio=0.0, share=1.0), 1.0)

    Raises:
      ValueError: half of the held-out points are training points, so that nothing can be told; or other points than
        ``distances.point_sets`` takes.
    """
    train, heldout, made = point_sets(train=train, heldout=heldout, made=made)
    theirs, ours = nearest_distances(heldout, train), nearest_distances(made, train)
    if not (middle := np.median(theirs)) > 0:
        raise ValueError("heldout: expected points that are not in train; half of them or more are")
    return Memorization(float(np.median(ours) / middle), float((ours < np.quantile(theirs, 0.01)).mean()))


def nearest_distances(points: Points, others: Points) -> Float[np.ndarray, " _"]:
    """Distance of each point to the nearest of the others.

    Raises:
      ValueError: other points than ``distances.point_sets`` takes.
    """
    points, others = point_sets(points=points, others=others)
    found = _chunks(points, others, lambda _, most: most.min(1, keepdims=True))
    return np.concatenate([distance.min(1) for _, distance in found])


def kth_neighbour_distances(points: Points, k: Any) -> Float[np.ndarray, " _"]:
    """Distance of each point to its k-th neighbour in its own set, itself not counted.

    Raises:
      ValueError: k below 1, or no more than k points, or other points than ``distances.point_sets`` takes.
    """
    (points,) = point_sets(points=points)
    _check_k(k, len(points))
    kth = lambda values: np.partition(values, k, 1)[:, k : k + 1]
    return np.concatenate([kth(distance)[:, 0] for _, distance in _chunks(points, points, lambda _, most: kth(most))])


def pairwise_distances(a: Points, b: Points) -> Float[np.ndarray, "_ _"]:
    """Euclidean distances, in float64, by subtraction: right however far from 0 the points lie.

    Raises:
      ValueError: other points than ``distances.point_sets`` takes.
    """
    a, b = point_sets(a=a, b=b)
    scale = power_of_two(a, b)
    a, b = a / scale, b / scale
    rows = max(PART // b.size, 1)
    parts = [np.sqrt(((a[i : i + rows, None] - b) ** 2).sum(-1)) for i in range(0, len(a), rows)]
    return np.concatenate(parts) * scale


def _chunks(
    a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"], reach: Callable[[slice, np.ndarray], np.ndarray]
) -> Iterator[tuple[slice, Float[np.ndarray, "_ m"]]]:
    """Distances of some points of a to all of b, by subtraction for all pairs that may be within reach.

    The others come from |a|² + |b|² - 2 a·b of centred points, which is quick; its rounding is bounded, and theirs are
    certainly out of reach. ``reach`` makes its bound of the chunk's place and of what distances are at most.
    """
    scale, d = power_of_two(a, b), b.shape[1]
    a, b = a / scale, b / scale
    centre = b[0] + np.mean(b - b[0], 0)
    x, y = a - centre, b - centre
    for start in range(0, len(a), CHUNK):
        part = slice(start, start + CHUNK)
        lengths = (x[part] ** 2).sum(1)[:, None] + (y**2).sum(1)
        squares = lengths - 2 * x[part] @ y.T
        slack = (d + 8) * np.finfo(np.float64).eps * lengths
        bound = reach(part, np.sqrt(np.maximum(squares + slack, 0)) * scale)
        rows, columns = np.nonzero(np.sqrt(np.maximum(squares - slack, 0)) * scale <= bound)
        for i in range(0, len(rows), step := max(PART // d, 1)):
            row, column = rows[i : i + step], columns[i : i + step]
            squares[row, column] = ((a[start + row] - b[column]) ** 2).sum(1)
        yield part, np.sqrt(squares) * scale


def _check_k(k: Any, num: int) -> None:
    if checks.count("k", k) >= num:
        raise ValueError(f"k: expected 1 to below {num}, the points of the smaller set; got {k}")
