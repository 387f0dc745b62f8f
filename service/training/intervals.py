"""Every metric as a function of how often each user counts, so that one code path gives its value and its bootstrap.

Rows of one user resemble each other, so the bootstrap draws users with replacement, each with all rows (Davison and
Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Two scorers of the same rows are compared on the
same draws. Letters: N rows, P of them positive and Q not, U users, K calibration bins, b draws made at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.batch import Floats
from service.errors import DataError
from service.evaluation import Figure
from service.training import evaluate

DRAWS = 1000
LEVEL = 0.95
METRICS = ("auc", "gauc", "logloss", "ece", "ndcg")
HIGHER_IS_BETTER = {"auc": True, "gauc": True, "logloss": False, "ece": False, "ndcg": True}
MOST_CELLS = 1 << 21  # of a block of draws x rows, 16 MB an array

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class UserSums:
    """What the metrics of one scorer are made of, by user. `make_sums` makes it."""

    rows: Counts  # (U,)
    loss: Counts  # (U,)
    ranked: Counts  # (U,) rows of users with both classes, whose ranking is worth something; 0 for others
    auc: Counts  # (U,)
    gain: Counts  # (U,) NDCG@10
    gap: Counts  # (U, K) probability less label, summed over the rows in each bin
    positive: NDArray[np.int64]  # (P,) users of the positive rows
    negative: NDArray[np.int64]  # (Q,) users of the others, by ascending score
    below: NDArray[np.int64]  # (P,) how many of them score less than the positive row
    through: NDArray[np.int64]  # (P,) how many score as much at most

    def metrics(self, counts: Counts) -> dict[str, Counts]:
        """Each of `METRICS` (b,), users counting as `counts` (b, U) says; NaN where there is nothing to rank."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "auc": self._auc(counts),
                "gauc": counts @ (self.ranked * self.auc) / (counts @ self.ranked),
                "logloss": counts @ self.loss / (counts @ self.rows),
                "ece": np.abs(counts @ self.gap).sum(1) / (counts @ self.rows),  # (b, K) -> (b,)
                "ndcg": counts @ self.gain / (counts @ (self.ranked > 0)),
            }

    def _auc(self, counts: Counts) -> Counts:
        """Share (b,) of the pairs of a positive and a negative row that are in order, equal scores counting half."""
        beaten = np.zeros((len(counts), len(self.negative) + 1))  # (b, Q + 1)
        np.cumsum(counts[:, self.negative], 1, out=beaten[:, 1:])
        weight = counts[:, self.positive]  # (b, P)
        wins = np.einsum("bp,bp->b", weight, beaten[:, self.below] + beaten[:, self.through]) / 2
        auc: Counts = wins / (weight.sum(1) * beaten[:, -1])
        return auc


def make_sums(label: NDArray[Any], score: NDArray[Any], user: NDArray[np.int64]) -> UserSums:
    """Sum up the rows (N,) of one scorer by user; users come in ascending order."""
    user = np.unique(user, return_inverse=True)[1]
    label, score = label.astype(np.float64), score.astype(np.float64)
    rows = np.bincount(user).astype(np.float64)
    ranked, auc = evaluate.auc_by_user(label, score, user)
    bins = evaluate.bins(score)
    cell = user * (bins.max() + 1) + bins
    gap = _totals(cell, score - label, len(rows) * (bins.max() + 1)).reshape(len(rows), -1)  # (U, K)
    clicked = label > 0
    order = np.argsort(score[~clicked])
    ascending = score[~clicked][order]
    return UserSums(
        rows=rows,
        loss=_totals(user, evaluate.losses(label, score), len(rows)),
        ranked=ranked,
        auc=auc,
        gain=evaluate.ndcg_by_user(label, score, user) * (ranked > 0),
        gap=gap,
        positive=user[clicked],
        negative=user[~clicked][order],
        below=np.searchsorted(ascending, score[clicked], "left"),
        through=np.searchsorted(ascending, score[clicked], "right"),
    )


def _totals(place: NDArray[np.int64], weight: Counts, places: int) -> Counts:
    return np.bincount(place, weight, places).astype(np.float64)


def point(sums: UserSums) -> dict[str, float]:
    """Each metric of the rows as they are, those that are undefined left out."""
    found = sums.metrics(np.ones((1, len(sums.rows))))
    return {name: float(value[0]) for name, value in found.items() if np.isfinite(value[0])}


def drawn(sums: UserSums, seed: int, draws: int = DRAWS) -> dict[str, Counts]:
    """Each metric (draws,) on as many users drawn with replacement; the same `seed` draws the same users.

    Raises:
        DataError: there is one user only.
    """
    users = len(sums.rows)
    if users < 2:  # noqa: PLR2004 - to draw from one is to draw nothing
        raise DataError("the rows to evaluate are of one user: intervals are drawn by user and need at least two")
    at_once = max(1, MOST_CELLS // max(users, len(sums.positive) + len(sums.negative)))
    blocks = [sums.metrics(counts) for counts in _counts(users, draws, at_once, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in METRICS}


def figures(
    label: NDArray[Any], score: Floats, user: NDArray[np.int64], seed: int, draws: int = DRAWS
) -> dict[str, Figure]:
    """Each metric that is defined, with its interval."""
    sums = make_sums(label, score, user)
    sample = drawn(sums, seed, draws)
    return {name: interval(value, sample[name]) for name, value in point(sums).items()}


def interval(value: float, sample: Counts) -> Figure:
    """The percentile interval of `sample` (draws,) about `value`; draws in which it is undefined do not count."""
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(sample[np.isfinite(sample)], [tail, 100 - tail])
    return Figure(value=value, low=float(low), high=float(high))


def _counts(users: int, draws: int, at_once: int, seed: int) -> Iterator[Counts]:
    """How often each user was drawn, (b, U) at a time."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        chosen = rng.integers(0, users, (size, users)) + np.arange(size)[:, None] * users
        yield np.bincount(chosen.ravel(), minlength=size * users).reshape(size, users).astype(np.float64)
