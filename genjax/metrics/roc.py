"""Telling two kinds apart by a score: the receiver operating characteristic (Fawcett 2006)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float


class Curve(NamedTuple):
    """What share of each kind lies above each threshold, from the highest threshold down.

    Fields:
      false_positive: share of the ordinary ones that are taken for strange; from 0 to 1.
      true_positive: share of the strange ones that are found; from 0 to 1.
      area: under the curve: the chance that a strange one scores above an ordinary one, ties counting half.
    """

    false_positive: Float[np.ndarray, " t"]
    true_positive: Float[np.ndarray, " t"]
    area: float


def curve(scores: Float[np.ndarray, " n"], strange: Bool[np.ndarray, " n"]) -> Curve:
    """The curve of a score that should be high for the strange ones.

    >>> curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).area
    0.75

    Raises:
      ValueError: one of the kinds is missing.
    """
    if strange.all() or not strange.any():
        raise ValueError(f"strange: expected both kinds, got {int(strange.sum())} strange of {len(strange)}")
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores cross the threshold together
    found, mistaken = np.cumsum(strange[order])[last], np.cumsum(~strange[order])[last]
    true_positive = np.concatenate([[0], found / found[-1]])
    false_positive = np.concatenate([[0], mistaken / mistaken[-1]])
    return Curve(false_positive, true_positive, float(np.trapezoid(true_positive, false_positive)))
