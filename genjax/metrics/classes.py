"""Whether every kind of thing was made, and as often as it should be."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from genjax import checks
from genjax.metrics.distances import Points, point_sets
from genjax.metrics.neighbours import pairwise_distances
from genjax.theory import information, simplex


class Balance(NamedTuple):
    """Classes of points, by a classifier or by place.

    Fields:
      shares: of each class.
      covered: classes with at least a tenth of the share they should have.
      kl: D(shares‖wanted), nats; 0 where they are as wanted, ∞ where a class should not be there.
    """

    shares: Float[np.ndarray, " k"]
    covered: int
    kl: float


def balance(classes: Any, wanted: Any) -> Balance:
    """Shares of classes [n] against those that are wanted [k].

    >>> balance(np.array([0, 0, 1, 1]), np.array([0.25, 0.25, 0.5])).covered
    2

    Raises:
      ValueError: there are no points, or a class outside [0, k), or the wanted shares do not sum to one.
    """
    simplex.check("wanted", wanted)
    classes, wanted = np.asarray(classes), np.asarray(wanted, np.float64)
    whole = classes.dtype.kind in "iu" and classes.ndim == wanted.ndim == 1
    if not whole or not classes.size or not 0 <= classes.min() <= classes.max() < len(wanted):
        raise ValueError(f"classes: expected some, in [0, {len(wanted)}), as whole numbers; got {classes}")
    shares = np.bincount(classes.astype(np.int64), minlength=len(wanted)) / len(classes)
    return Balance(shares, int((shares >= wanted / 10).sum()), float(information.kl(shares, wanted)))


def modes(points: Points, centres: Points, radius: Any) -> tuple[Int[np.ndarray, " m"], float]:
    """The nearest centre of each point that lies within ``radius`` of one, and the share of such points.

    >>> modes(np.array([[0.1], [5.0], [9.9]]), np.array([[0.0], [10.0]]), 1.0)[0]
    array([0, 1])

    Raises:
      ValueError: no points or centres [_ d] of one length, numbers that are not finite, or a radius below 0.
    """
    points, centres = point_sets(points=points, centres=centres)
    checks.within("radius", radius, 0)
    distance = pairwise_distances(points, centres)
    near = distance.min(1) <= radius
    return distance.argmin(1)[near], float(near.mean())
