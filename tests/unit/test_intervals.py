from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import DataError
from service.training import evaluate, intervals

Rows = tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]


def make_rows(users: int = 12, seed: int = 1, taste: float = 0.5) -> Rows:
    """Draw label, score and user of some rows, with ties among the scores; users have 2 to 8 rows and differ."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(2, 9, users))
    p = np.clip(rng.uniform(0.1, 0.9, len(user)) + rng.normal(0, taste, users)[user], 0.05, 0.95)
    return (rng.random(len(user)) < p).astype(np.float32), np.round(rng.uniform(0.1, 0.9, len(user)), 1), user


def metrics_of(label: NDArray[Any], score: NDArray[Any], user: NDArray[np.int64]) -> dict[str, float]:
    """The same metrics from the functions for one set of rows."""
    quality = evaluate.quality(label, score, user)
    number = np.unique(user, return_inverse=True)[1]
    ranked = evaluate.auc_by_user(label, score, number)[0] > 0
    ndcg = float(evaluate.ndcg_by_user(label, score, number)[ranked].mean())
    return {**quality.model_dump(), "ece": evaluate.ece(label, score), "ndcg": ndcg}


def test_point_is_the_metric() -> None:
    """With every user counted once, each metric is what its own function gives, whatever the users' numbers."""
    label, score, user = make_rows()
    assert intervals.point(intervals.make_sums(label, score, user * 7 + 3)) == pytest.approx(
        metrics_of(label, score, user)
    )


def test_counts_are_repetitions() -> None:
    """A user who counts n times weighs as n users with the same rows."""
    label, score, user = make_rows()
    counts = np.random.default_rng(2).integers(0, 4, 12)
    row = np.repeat(np.arange(len(user)), counts[user])
    copy = np.concatenate([np.arange(counts[one]) for one in user])
    expected = metrics_of(label[row], score[row], user[row] * 10 + copy)
    found = intervals.make_sums(label, score, user).metrics(counts[None].astype(float))
    for name in ("auc", "gauc", "logloss", "ndcg"):  # the bins of ECE stay where they were
        assert found[name][0] == pytest.approx(expected[name]), name


def test_draws_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed draws the same users however many draws are made at once; another seed draws others."""
    sums = intervals.make_sums(*make_rows())
    found = intervals.drawn(sums, seed=3, draws=20)
    other = intervals.drawn(sums, seed=4, draws=20)
    monkeypatch.setattr(intervals, "MOST_CELLS", 1)
    again = intervals.drawn(sums, seed=3, draws=20)
    for name in intervals.METRICS:
        np.testing.assert_allclose(found[name], again[name], rtol=1e-12)
    assert not np.allclose(found["auc"], other["auc"])


def test_intervals_cover_the_truth() -> None:
    """Of intervals at 95 % about 95 % hold the truth, though the rows of a user resemble each other."""
    rng = np.random.default_rng(5)
    truth = -0.5 * np.log(0.6) - 0.5 * np.log(0.4)  # every row says 0.6, and half of the users click on everything
    users, rows, held = 100, 10, 0
    user = np.repeat(np.arange(users), rows)
    for trial in range(200):
        label = np.repeat(rng.random(users) < 0.5, rows)
        sums = intervals.make_sums(label, np.full(users * rows, 0.6), user)
        sample = intervals.drawn(sums, trial, draws=200)["logloss"]
        figure = intervals.interval(intervals.point(sums)["logloss"], sample)
        held += figure.low <= truth <= figure.high
    assert 0.90 <= held / 200 <= 0.985  # as if rows were independent, it would be a half


def test_auc_intervals_cover_the_truth() -> None:
    """The interval of the AUC, too, holds the AUC of endless data about 95 times in 100."""
    rng = np.random.default_rng(6)
    users, rows, trials, held = 60, 6, 200, 0
    user = np.repeat(np.arange(users), rows)
    truth = 0.7602  # of normal scores whose positives lie one deviation higher: Phi(1 / sqrt 2)
    for trial in range(trials):
        label = rng.random(users * rows) < 0.5
        score = 1 / (1 + np.exp(-(label + rng.normal(0, 1, users * rows))))
        figure = intervals.figures(label, score.astype(np.float32), user, trial, draws=200)["auc"]
        held += figure.low <= truth <= figure.high
    assert 0.90 <= held / trials <= 0.985


def test_undefined_metrics_are_left_out() -> None:
    """Rows of one class have no ranking to tell of, and still a logloss with its interval."""
    user = np.repeat(np.arange(4), 2)
    found = intervals.figures(np.ones(8), np.linspace(0.1, 0.8, 8, dtype=np.float32), user, seed=1, draws=50)
    assert sorted(found) == ["ece", "logloss"]


def test_one_user_has_no_interval() -> None:
    """Where there is nobody else to draw the error says so."""
    with pytest.raises(DataError, match="are of one user: intervals are drawn by user"):
        intervals.figures(np.array([0, 1]), np.array([0.2, 0.7], np.float32), np.zeros(2, np.int64), seed=1)
