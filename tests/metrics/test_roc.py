"""The curve of a score, against counting pairs."""

import numpy as np
import pytest

from genjax.metrics import roc


@pytest.mark.parametrize("levels", [5, 1000])
def test_the_area_is_the_chance_that_a_strange_one_scores_higher(levels):
    rng = np.random.default_rng(0)
    strange = rng.random(300) < 0.3
    scores = np.round((rng.standard_normal(300) + strange) * levels / 5) / levels
    pairs = scores[strange][:, None] - scores[~strange]
    curve = roc.curve(scores, strange)
    assert np.isclose(curve.area, ((pairs > 0) + 0.5 * (pairs == 0)).mean(), atol=1e-12)
    assert curve.false_positive[0] == 0 == curve.true_positive[0]
    assert curve.false_positive[-1] == 1 == curve.true_positive[-1]
    assert np.all(np.diff(curve.true_positive) >= 0) and np.all(np.diff(curve.false_positive) >= 0)


def test_perfect_useless_and_impossible_scores():
    strange = np.arange(10) < 4
    assert roc.curve(strange * 1.0, strange).area == 1 and roc.curve(np.zeros(10), strange).area == 0.5
    with pytest.raises(ValueError, match="both kinds, got 0 strange of 10"):
        roc.curve(np.zeros(10), np.zeros(10, bool))


def test_scores_and_kinds_of_every_type():
    """Unsigned scores do not wrap, 0 and 1 are truth values, infinities tie."""
    scores, kinds = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    assert roc.curve(scores, kinds).area == roc.curve(list(scores), kinds.astype(bool)).area == 0.75
    assert roc.curve(np.array([0, 1, 255], np.uint8), np.array([0, 0, 1])).area == 1
    assert roc.curve(np.array([False, True]), np.array([0, 1])).area == 1
    assert roc.curve(np.array([np.inf, np.inf]), np.array([0, 1])).area == 0.5
    assert roc.curve(np.array([-np.inf, np.inf, -np.inf]), np.array([0, 1, 1])).area == 0.75


@pytest.mark.parametrize(
    ("scores", "strange", "message"),
    [
        ([np.nan, 1.0], [0, 1], "scores: expected numbers .* got nan at 0"),
        ([0.0, 1.0, 2.0], [0, 1], "strange: expected one for each of the scores"),
        ([], [], "strange: expected"),
        ([0.0, 1.0], [0, 2], "strange: expected whole numbers from 0 to 1, got 2"),
        ([0.0, 1.0], [0.0, 1.0], "strange: expected whole numbers"),
        (["a", "b"], [0, 1], "scores: expected real numbers"),
    ],
)
def test_what_is_no_score_is_refused(scores, strange, message):
    with pytest.raises(ValueError, match=message):
        roc.curve(np.array(scores), np.array(strange))
