import numpy as np
import pytest

from service.errors import DataError
from service.training import compare, intervals
from tests.labelled import make_samples, make_split


def test_difference_is_paired() -> None:
    """What two versions share cancels out: a small steady gain is beyond luck though their own intervals overlap."""
    test = make_split(users=40).test
    rng = np.random.default_rng(3)
    first = rng.uniform(0.2, 0.8, len(test)).astype(np.float32)
    second = (first + np.where(test.label > 0, 0.04, -0.04)).astype(np.float32)
    found = compare.differences(test, first, second, seed=1, draws=200)
    own = [intervals.figures(test.label, score, test.user, 1, 200) for score in (first, second)]
    for name in ("auc", "logloss"):
        assert found[name].better == "second"
        assert max(own[0][name].low, own[1][name].low) < min(own[0][name].high, own[1][name].high)
        assert found[name].change.value == pytest.approx(own[1][name].value - own[0][name].value)
    turned = compare.differences(test, second, first, seed=1, draws=200)
    assert turned["auc"].better == turned["logloss"].better == "first"


def test_equal_versions_differ_in_nothing() -> None:
    """A version is no better than itself."""
    test = make_split().test
    score = np.random.default_rng(1).uniform(0.1, 0.9, len(test)).astype(np.float32)
    for each in compare.differences(test, score, score, seed=1, draws=50).values():
        assert (each.change.value, each.change.low, each.change.high, each.better) == (0, 0, 0, None)


def test_one_class_is_refused() -> None:
    """Where nothing can be ranked there is nothing to compare."""
    score = np.array([0.1, 0.2], np.float32)
    with pytest.raises(DataError, match="all of one class"):
        compare.differences(make_samples([1, 2], [1, 1], user=[0, 1]), score, score, seed=1)
