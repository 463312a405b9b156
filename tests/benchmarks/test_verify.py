"""Quoted numbers and what holds them: nothing quoted is forgotten, and what is off is not held."""

import fnmatch
import math
import pathlib
import re

import numpy as np
import pytest

from benchmarks import returns, verify

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_every_result_is_made_again_or_says_why_not():
    made = {experiment.result for experiment in verify.EXPERIMENTS} | {"verify"}
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        apart = [name for name in verify.NOT_AGAIN if fnmatch.fnmatch(path.stem, name)]
        assert (path.stem in made) != bool(apart), path.name
    for name in verify.NOT_AGAIN:
        assert list((ROOT / "benchmarks" / "results").glob(f"{name}.json")), name


def test_every_number_in_words_is_where_it_is_sought():
    for quote in verify.QUOTES:
        assert math.isfinite(float(verify.quoted_text(quote)))


def test_every_config_that_states_a_result_is_made_again_or_says_why_not():
    quoted = {quote.file for quote in verify.QUOTES}
    for path in sorted((ROOT / "train" / "configs").rglob("*.toml")):
        name = path.relative_to(ROOT).as_posix()
        states = re.search(r"^# Result: .*\d", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not states or name in quoted or name in verify.ELSEWHERE, name
    assert set(verify.ELSEWHERE) <= {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "train" / "configs").rglob("*.toml")
    }


@pytest.mark.parametrize(
    ("quoted", "again", "held"),
    [
        (verify.Number(1.0, 0.1, "seeds"), verify.Number(1.42, 0.1, "seeds"), True),
        (verify.Number(1.0, 0.1, "seeds"), verify.Number(1.43, 0.1, "seeds"), False),
        (verify.Number(1.0, 0.1, "images"), verify.Number(1.31), False),
        (verify.Number(2.0), verify.Number(2.019), True),
        (verify.Number(2.0), verify.Number(2.021), False),
        (verify.Number(0.0), verify.Number(0.0), True),
        (verify.Number(0.0), verify.Number(1e-9), False),
        (verify.Number(1.0, 0.1, "seeds"), verify.Number(math.nan, 0.1, "seeds"), False),
        (verify.Number(1.0), verify.Number(math.nan), False),
    ],
)
def test_a_number_holds_within_its_own_error_bar(quoted, again, held):
    (row,) = verify.compare({"x": quoted}, {"x": again}, 3.0)
    assert row["held"] is held


def test_a_number_that_does_not_come_again_has_not_held():
    (row,) = verify.compare({"x": verify.Number(1.0)}, {"y": verify.Number(1.0)}, 3.0)
    assert row["held"] is False and row["again"] is None


def test_the_interval_of_a_share_covers():
    """Wilson's interval, whose coverage is about 95 %, by simulation at a share near 1."""
    random = np.random.default_rng(0)
    found = [returns.solved(np.where(random.random(100) < 0.95, 500.0, 100.0)) for _ in range(2000)]
    assert 0.92 < np.mean([share.low <= 0.95 <= share.high for share in found]) < 0.985
    assert returns.solved([500.0] * 100).low < 0.97 and returns.solved([500.0] * 100).high == pytest.approx(1)
