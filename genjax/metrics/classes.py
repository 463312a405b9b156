"""Balance of classes: which classes a model generates, and how often."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from genjax import checks
from genjax.metrics.distances import Points, point_sets
from genjax.metrics.neighbours import pairwise_distances
from genjax.theory import information, simplex


class Balance(NamedTuple):
    """Shares of classes against target shares.

    Attributes:
      shares: share of each class [k].
      covered: number of classes with at least a tenth of their target share.
      kl: D(shares‖target), nats; 0 where all shares are met, ∞ where a class of target share 0 occurs.
    """

    shares: Float[np.ndarray, " k"]
    covered: int
    kl: float


def balance(classes: Any, target: Any) -> Balance:
    """Compare the shares of classes [n] with target shares [k].

    >>> balance(np.array([0, 0, 1, 1]), np.array([0.25, 0.25, 0.5])).covered
    2

    Raises:
      ValueError: ``classes`` is empty or holds a class outside [0, k), or the target shares do not sum to one.
    """
    simplex.check("target", target)
    classes, target = np.asarray(classes), np.asarray(target, np.float64)
    is_valid = classes.dtype.kind in "iu" and classes.ndim == target.ndim == 1
    if not is_valid or not classes.size or not 0 <= classes.min() <= classes.max() < len(target):
        raise ValueError(f"classes: expected whole numbers in [0, {len(target)}), at least one; got {classes}")
    shares = np.bincount(classes.astype(np.int64), minlength=len(target)) / len(classes)
    return Balance(shares, int((shares >= target / 10).sum()), float(information.kl(shares, target)))


def modes(points: Points, centres: Points, radius: Any) -> tuple[Int[np.ndarray, " m"], float]:
    """Assign points to the nearest of the centres, where it lies within ``radius``.

    >>> modes(np.array([[0.1], [5.0], [9.9]]), np.array([[0.0], [10.0]]), 1.0)[0]
    array([0, 1])

    Args:
      points: points [n d].
      centres: centres of the modes [k d].
      radius: largest distance of a point to its centre.

    Returns:
      modes: index of the centre of each point that lies within ``radius`` of one [m].
      share: share m / n of these points.

    Raises:
      ValueError: a set is empty, the numbers of dimensions differ, a number is not finite, or ``radius`` is below 0.
    """
    points, centres = point_sets(points=points, centres=centres)
    checks.within("radius", radius, 0)
    distance = pairwise_distances(points, centres)
    is_near = distance.min(1) <= radius
    return distance.argmin(1)[is_near], float(is_near.mean())
