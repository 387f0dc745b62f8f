"""How far scores have moved from those of training."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from service.drift import BOUNDS, HALF_LIFE_S, LEAST_SCORES, Scores, Window, make_scores, psi
from service.spec import SHARE_BUCKETS

BINS = len(BOUNDS)
EVEN = (1 / BINS,) * BINS
SHARES = st.lists(st.floats(0, 1), min_size=BINS, max_size=BINS).filter(lambda values: sum(values) > 0.01)


def as_shares(values: list[float]) -> NDArray[np.float64]:
    """Numbers that add up to 1."""
    return np.array(values) / sum(values)


def counts(*bins: int, each: int = LEAST_SCORES) -> NDArray[np.float64]:
    """So many scores in each of these bins."""
    made = np.zeros(BINS)
    made[list(bins)] = each
    return made


def test_psi_by_hand() -> None:
    """Shares of 0.5 and 0.5 against 0.25 and 0.75 give 0.25 ln 3, worked out by hand."""
    assert psi(np.array([0.5, 0.5]), np.array([0.25, 0.75])) == pytest.approx(0.25 * np.log(3))


@given(SHARES, SHARES)
def test_psi_is_a_divergence(one: list[float], other: list[float]) -> None:
    """It is 0 for one and the same distribution, never negative, and the same from both sides."""
    a, b = as_shares(one), as_shares(other)
    assert psi(a, a) == 0
    assert psi(a, b) >= 0
    assert psi(a, b) == pytest.approx(psi(b, a))


def test_empty_bins_leave_it_finite() -> None:
    """Distributions that have nothing in common are far apart, and not infinitely."""
    assert 9 < psi(counts(0, each=1), counts(1, each=1)) < 20


def test_scores_describe_rows() -> None:
    """Shares are by the bins of `din_probability`, a score on a bound counting below it, beside the share of clicks."""
    made = make_scores(np.array([0.0, 0.25, 0.26, 1.0], np.float32), np.array([0, 0, 0, 1], np.float32))
    assert (made.rows, made.clicks, made.bounds) == (4, 0.25, SHARE_BUCKETS)
    assert [i for i, share in enumerate(made.shares) if share == 0.25] == [0, 4, 5, 19]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"shares": (1.0,)}, "as many shares as bounds", id="too-few-shares"),
        pytest.param({"shares": (0.5, 0.2)}, "add up to 1", id="not-all-rows"),
        pytest.param({"shares": (1.5, -0.5)}, "less than or equal to 1", id="no-shares"),
        pytest.param({"bounds": (1.0, 0.5)}, "must ascend", id="descending"),
        pytest.param({"rows": 0}, "greater than 0", id="no-rows"),
        pytest.param({"clicks": float("nan")}, "less than or equal to 1", id="not-a-number"),
        pytest.param({"median": 0.5}, "not permitted", id="unknown-field"),
    ],
)
def test_odd_scores_are_refused(change: dict[str, Any], reason: str) -> None:
    """Scores that no training can have left are refused."""
    good = {"bounds": (0.5, 1.0), "shares": (0.5, 0.5), "rows": 2, "clicks": 0.5}
    assert Scores.model_validate(good).rows == 2
    with pytest.raises(ValidationError, match=reason):
        Scores.model_validate(good | change)


def test_few_scores_say_nothing() -> None:
    """Until enough scores count there is no value, which chance would make."""
    window = Window(EVEN)
    assert window.look(counts(), 0) is None
    assert window.look(counts(0, each=LEAST_SCORES - 1), 0) is None
    assert window.look(counts(0, each=LEAST_SCORES), 0) is not None


def test_scores_as_in_training_do_not_drift() -> None:
    """Scores spread as they were in training give 0, others more."""
    window = Window(EVEN)
    window.look(counts(), 0)
    assert window.look(counts(*range(BINS)), 1) == pytest.approx(0, abs=1e-9)
    moved = window.look(counts(*range(BINS)) + counts(19, each=20 * LEAST_SCORES), 2)
    assert moved is not None
    assert moved > 0.25


def test_old_scores_count_half_after_the_half_life() -> None:
    """What was counted a half-life ago weighs half of what is counted now."""
    window = Window((0.0, *EVEN[1:-1], 2 / BINS))
    window.look(counts(), 0)
    window.look(counts(0), 0)
    window.look(counts(0), HALF_LIFE_S)
    drift = window.look(counts(0, 1), HALF_LIFE_S)
    found = counts(0, each=1) / 3 + counts(1, each=2) / 3
    assert drift == pytest.approx(psi(np.array((0.0, *EVEN[1:-1], 2 / BINS)), found))


def test_how_often_one_looks_hardly_matters() -> None:
    """Scores that come evenly weigh the same, looked at once an hour or every second."""
    often, once = Window(EVEN), Window(EVEN)
    for at in range(3601):
        last = often.look(counts(0, each=10 * at) + counts(*range(BINS), each=at), at)
    once.look(counts(), 0)
    assert once.look(counts(0, each=36000) + counts(*range(BINS), each=3600), 3600) == pytest.approx(last)


def test_without_traffic_it_falls_silent() -> None:
    """When scores stop coming those that were are forgotten, and there is no value again."""
    window = Window(EVEN)
    window.look(counts(), 0)
    assert window.look(counts(0, 1), 1) is not None
    assert window.look(counts(0, 1), 10 * HALF_LIFE_S) is None


def test_what_was_before_the_first_look_is_soon_outweighed() -> None:
    """A million old scores say something at once, and next to nothing when as many new ones have come."""
    window = Window(EVEN)
    old = counts(0, each=10**6)
    assert window.look(old, 0) == pytest.approx(psi(np.array(EVEN), counts(0, each=1)))
    assert window.look(old + counts(*range(BINS), each=10**6), 60) == pytest.approx(0, abs=0.01)


def test_counting_that_begins_again_is_no_loss() -> None:
    """When the count is smaller than it was, as of a series that was dropped, all of it is new."""
    window = Window(EVEN)
    window.look(counts(), 0)
    window.look(counts(*range(BINS), each=10**6), 0)
    assert window.look(counts(*range(BINS)), 1) == pytest.approx(0, abs=1e-9)
