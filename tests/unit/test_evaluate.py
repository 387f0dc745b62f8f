from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, ndcg_score, roc_auc_score

from service.errors import DataError
from service.training import data, evaluate
from tests.labelled import make_samples

NEXT_ITEM = Path(__file__).parents[2].parent / "shared" / "data" / "next_item_samples.parquet"
ROW = st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 4))  # user, label, score


def test_quality_by_hand() -> None:
    """AUC counts pairs over all rows, GAUC within the user, weighted by rows; logloss is the mean of -log p."""
    label = np.array([1, 0, 1, 0, 0, 1])
    score = np.array([0.8, 0.2, 0.5, 0.6, 0.5, 0.9])
    result = evaluate.quality(label, score, np.array([1, 1, 2, 2, 2, 3]))
    assert result.auc == pytest.approx(7.5 / 9)
    assert result.gauc == pytest.approx((2 * 1 + 3 * 0.25) / 5)  # user 3 has one class only
    assert result.logloss == pytest.approx(-np.log([0.8, 0.8, 0.5, 0.4, 0.5, 0.9]).mean())


@given(st.lists(ROW, min_size=2, max_size=30))
def test_gauc_is_mean_of_users(rows: list[tuple[int, bool, int]]) -> None:
    """GAUC is scikit-learn's AUC per user, averaged by impressions, ties and order notwithstanding."""
    user, label, score = (np.array(column) for column in zip(*rows, strict=True))
    mixed = [one for one in np.unique(user) if len(np.unique(label[user == one])) == 2]
    assume(mixed)
    each = [roc_auc_score(label[user == one], score[user == one]) for one in mixed]
    expected = np.average(each, weights=[(user == one).sum() for one in mixed])
    assert evaluate.gauc(label, score, user) == pytest.approx(expected)


@given(st.lists(ROW, min_size=2, max_size=40))
def test_ndcg_of_each_user(rows: list[tuple[int, bool, int]]) -> None:
    """A user's NDCG is scikit-learn's, equal scores averaged over their orders, and 0 without a positive."""
    user, label, score = (np.array(column) for column in zip(*rows, strict=True))
    number = np.unique(user, return_inverse=True)[1]
    found = evaluate.ndcg_by_user(label, score, number, k=3)
    for one, value in enumerate(found):
        own = label[number == one]
        if len(own) > 1:  # scikit-learn refuses a single row
            assert value == pytest.approx(ndcg_score([own], [score[number == one]], k=3))
        else:
            assert value == own[0]


def test_ndcg_by_hand() -> None:
    """The second of three rows is the positive: its discount over that of the first place."""
    found = evaluate.ndcg_by_user(np.array([0, 1, 0]), np.array([0.9, 0.8, 0.1]), np.zeros(3, int))
    assert found == pytest.approx([1 / np.log2(3)])
    found = evaluate.ndcg_by_user(np.arange(20) == 19, -np.arange(20), np.zeros(20, int))
    assert found == pytest.approx([0])  # its only positive is beyond the tenth place


def test_ece_by_hand() -> None:
    """Rows weigh the gap between a bin's mean score and its click rate; equal scores share a bin."""
    score = np.repeat([0.1, 0.6], [6, 4])
    label = np.array([1, 1, 1, 0, 0, 0, 1, 1, 0, 0])
    assert evaluate.ece(label, score) == pytest.approx(0.6 * 0.4 + 0.4 * 0.1)
    assert evaluate.bins(score).tolist() == [0] * 6 + [1] * 4
    assert evaluate.ece(np.zeros(5), np.full(5, 0.25)) == pytest.approx(0.25)


def test_bins_hold_equally_many() -> None:
    """Scores of which no two are equal fall into ten bins of as many rows each, in ascending order."""
    score = np.random.default_rng(1).permutation(1000) ** 4 / 1e12
    bins = evaluate.bins(score)
    assert np.bincount(bins).tolist() == [100] * 10
    assert (np.diff(bins[np.argsort(score)]) >= 0).all()


def test_losses_are_scikit_learns() -> None:
    """The mean of the rows' losses is scikit-learn's logloss, for certain and wrong rows too."""
    score = np.array([0.2, 0.9, 0, 1, 0.5], np.float32)
    label = np.array([0, 1, 1, 0, 1])
    assert evaluate.losses(label, score).mean() == pytest.approx(log_loss(label, score), rel=1e-5)


@pytest.mark.parametrize(
    ("label", "user", "message"),
    [
        pytest.param([1, 1], [0, 0], "all of one class", id="one-class"),
        pytest.param([1, 0], [0, 1], "no user has both", id="one-class-a-user"),
    ],
)
def test_quality_needs_both_classes(label: list[int], user: list[int], message: str) -> None:
    """Where nothing can be ranked there is an error and not a number."""
    with pytest.raises(DataError, match=message):
        evaluate.quality(np.array(label), np.array([0.5, 0.6]), np.array(user))


@pytest.mark.parametrize("text", [pytest.param(False, id="integers"), pytest.param(True, id="text")])
def test_popularity_ranks_by_count(text: bool) -> None:
    """The more often an item is a training positive the higher its probability; an unknown item is the lowest."""
    item = [1] * 8 + [2] * 4 + [3] * 2 + [4, 5, 6, 7, 8, 4, 5, 3]
    label = [1] * 14 + [0] * 8
    test = [9, 3, 2, 1]
    train = make_samples([b"%d" % i for i in item] if text else item, label)
    probability = evaluate.popularity(train, make_samples([b"%d" % i for i in test] if text else test, [0] * 4))
    assert probability.dtype == np.float32
    assert (np.diff(probability) > 0).all()
    assert 0 < probability.min() < probability.max() < 1


@pytest.mark.skipif(not NEXT_ITEM.exists(), reason=f"{NEXT_ITEM} is missing")
def test_popularity_on_next_item_samples() -> None:
    """On the reference samples popularity reaches the figures measured for it."""
    split = data.load(NEXT_ITEM, seed=1)
    result = evaluate.quality(split.test.label, evaluate.popularity(split.known, split.test), split.test.user)
    assert (round(result.auc, 3), round(result.gauc, 3)) == (0.826, 0.827)
