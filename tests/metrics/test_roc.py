"""The curve of a score, against counting pairs."""

import numpy as np
import pytest

from genjax.metrics import roc


@pytest.mark.parametrize("levels", [5, 1000])
def test_the_area_is_the_probability_that_a_positive_scores_higher(levels):
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.3
    scores = np.round((rng.standard_normal(300) + positive) * levels / 5) / levels
    pairs = scores[positive][:, None] - scores[~positive]
    curve = roc.curve(scores, positive)
    assert np.isclose(curve.auc, ((pairs > 0) + 0.5 * (pairs == 0)).mean(), atol=1e-12)
    assert curve.fpr[0] == 0 == curve.tpr[0]
    assert curve.fpr[-1] == 1 == curve.tpr[-1]
    assert np.all(np.diff(curve.tpr) >= 0) and np.all(np.diff(curve.fpr) >= 0)


def test_perfect_useless_and_impossible_scores():
    positive = np.arange(10) < 4
    assert roc.curve(positive * 1.0, positive).auc == 1 and roc.curve(np.zeros(10), positive).auc == 0.5
    with pytest.raises(ValueError, match="both classes, got 0 positives of 10"):
        roc.curve(np.zeros(10), np.zeros(10, bool))


def test_scores_and_kinds_of_every_type():
    """Unsigned scores do not wrap, 0 and 1 are truth values, infinities tie."""
    scores, kinds = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert roc.curve(scores, kinds).auc == roc.curve(list(scores), kinds.astype(bool)).auc == 0.75
    assert roc.curve(np.array([0, 1, 255], np.uint8), np.array([0, 0, 1])).auc == 1
    assert roc.curve(np.array([False, True]), np.array([0, 1])).auc == 1
    assert roc.curve(np.array([np.inf, np.inf]), np.array([0, 1])).auc == 0.5
    assert roc.curve(np.array([-np.inf, np.inf, -np.inf]), np.array([0, 1, 1])).auc == 0.75


@pytest.mark.parametrize(
    ("scores", "positive", "message"),
    [
        ([np.nan, 1.0], [0, 1], "scores: expected numbers .* got nan at 0"),
        ([0.0, 1.0, 2.0], [0, 1], "positive: expected one for each of the scores"),
        ([], [], "positive: expected"),
        ([0.0, 1.0], [0, 2], "positive: expected whole numbers from 0 to 1, got 2"),
        ([0.0, 1.0], [0.0, 1.0], "positive: expected whole numbers"),
        (["a", "b"], [0, 1], "scores: expected real numbers"),
    ],
)
def test_what_is_no_score_is_refused(scores, positive, message):
    with pytest.raises(ValueError, match=message):
        roc.curve(np.array(scores), np.array(positive))
