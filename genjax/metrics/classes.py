"""Whether every kind of thing was made, and as often as it should be."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from genjax.theory import information


class Balance(NamedTuple):
    """Classes of points, by a classifier or by place.

    Fields:
      shares: of each class.
      covered: classes with at least a tenth of the share they should have.
      kl: D(shares‖wanted), nats; 0 where they are as wanted.
    """

    shares: Float[np.ndarray, " k"]
    covered: int
    kl: float


def balance(classes: Int[np.ndarray, " n"], wanted: Float[np.ndarray, " k"]) -> Balance:
    """Shares of classes against those that are wanted.

    >>> balance(np.array([0, 0, 1, 1]), np.array([0.25, 0.25, 0.5])).covered
    2

    Raises:
      ValueError: there are no points, or a class outside [0, k).
    """
    if not len(classes) or not 0 <= classes.min() <= classes.max() < len(wanted):
        raise ValueError(f"classes: expected some, in [0, {len(wanted)})")
    shares = np.bincount(classes, minlength=len(wanted)) / len(classes)
    return Balance(shares, int((shares >= wanted / 10).sum()), float(information.kl(shares, np.asarray(wanted))))


def modes(
    points: Float[np.ndarray, "n d"], centres: Float[np.ndarray, "k d"], radius: float
) -> tuple[Int[np.ndarray, " m"], float]:
    """The nearest centre of each point that lies within ``radius`` of one, and the share of such points.

    >>> modes(np.array([[0.1], [5.0], [9.9]]), np.array([[0.0], [10.0]]), 1.0)[0]
    array([0, 1])
    """
    distance = np.linalg.norm(points[:, None] - centres, axis=-1)
    near = distance.min(1) <= radius
    return distance.argmin(1)[near], float(near.mean())
