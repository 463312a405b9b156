"""Receiver operating characteristic of a score (Fawcett 2006)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from genjax import checks


class ROC(NamedTuple):
    """Error rates at each threshold, from the highest threshold down.

    Attributes:
      fpr: false positive rate: share of the negatives above the threshold, from 0 to 1.
      tpr: true positive rate: share of the positives above the threshold, from 0 to 1.
      auc: area under the curve: probability that a positive scores above a negative, ties counting half.
    """

    fpr: Float[np.ndarray, " t"]
    tpr: Float[np.ndarray, " t"]
    auc: float


def curve(scores: Any, positive: Any) -> ROC:
    """The curve of a score that should be high for the positives.

    >>> curve(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).auc
    0.75

    Args:
      scores: numbers of any type [n]; infinite scores lie above or below all others, and tie with each other.
      positive: truth values [n], or integers 0 and 1.

    Raises:
      ValueError: one of the classes is missing; a score is NaN; or the arguments are not lists of one length.
    """
    scores, positive = np.asarray(scores), np.asarray(positive)
    if scores.ndim != 1 or scores.shape != positive.shape:
        raise ValueError(f"positive: expected one for each of the scores [n], got {positive.shape} for {scores.shape}")
    if positive.dtype != bool:
        checks.integers("positive", positive, 0, 2)
        positive = positive.astype(bool)
    checks.within("scores", scores)
    if positive.all() or not positive.any():
        raise ValueError(f"positive: expected both classes, got {int(positive.sum())} positives of {len(positive)}")
    order = np.argsort(scores, kind="stable")[::-1]
    descending = scores[order]
    last = np.append(descending[1:] != descending[:-1], True)  # equal scores cross the threshold together
    true_positives, false_positives = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    tpr = np.concatenate([[0], true_positives / true_positives[-1]])
    fpr = np.concatenate([[0], false_positives / false_positives[-1]])
    return ROC(fpr, tpr, float(np.trapezoid(tpr, fpr)))
