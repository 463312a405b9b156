"""Telling two kinds apart by a score: the receiver operating characteristic (Fawcett 2006)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from genjax import checks


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


def curve(scores: Any, strange: Any) -> Curve:
    """The curve of a score that should be high for the strange ones.

    >>> curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).area
    0.75

    Args:
      scores: [n] numbers of any type; infinite ones are above or below all others, and tie.
      strange: [n] truth values, or whole numbers 0 and 1.

    Raises:
      ValueError: one of the kinds is missing; a score is not a number; or the two are not lists of one length.
    """
    scores, strange = np.asarray(scores), np.asarray(strange)
    if scores.ndim != 1 or scores.shape != strange.shape:
        raise ValueError(f"strange: expected one for each of the scores [n], got {strange.shape} for {scores.shape}")
    if strange.dtype != bool:
        checks.integers("strange", strange, 0, 2)
        strange = strange.astype(bool)
    checks.within("scores", scores)
    if strange.all() or not strange.any():
        raise ValueError(f"strange: expected both kinds, got {int(strange.sum())} strange of {len(strange)}")
    order = np.argsort(scores, kind="stable")[::-1]
    falling = scores[order]
    last = np.append(falling[1:] != falling[:-1], True)  # equal scores cross the threshold together
    found, mistaken = np.cumsum(strange[order])[last], np.cumsum(~strange[order])[last]
    true_positive = np.concatenate([[0], found / found[-1]])
    false_positive = np.concatenate([[0], mistaken / mistaken[-1]])
    return Curve(false_positive, true_positive, float(np.trapezoid(true_positive, false_positive)))
