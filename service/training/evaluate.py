"""How well scores rank and predict: the numbers that travel with a version, and the baseline that needs no model.

Dimension letters: N rows, U users.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from service.artifact import Quality
from service.batch import Floats
from service.errors import DataError
from service.training import Samples
from service.training.runs import runs

BINS = 10
NDCG_K = 10
EPSILON = float(np.finfo(np.float32).eps)


def quality(label: NDArray[Any], score: NDArray[Any], user: NDArray[np.int64]) -> Quality:
    """AUC, GAUC and logloss of probabilities `score` (N,) for `label` (N,) 0 or 1 shown to `user` (N,).

    Raises:
        DataError: the rows, or each user's rows, are all of one class, so that nothing can be ranked.
    """
    if len(np.unique(label)) != 2:  # noqa: PLR2004 - two classes
        raise DataError("the rows to evaluate are all of one class")
    return Quality(
        auc=float(roc_auc_score(label, score)), gauc=gauc(label, score, user), logloss=float(log_loss(label, score))
    )


def gauc(label: NDArray[Any], score: NDArray[Any], user: NDArray[np.int64]) -> float:
    """AUC within each user who has both classes, averaged by impressions (Zhou et al., KDD 2018, section 6.3).

    Raises:
        DataError: no user has both classes.
    """
    ranked, auc = auc_by_user(label, score, np.unique(user, return_inverse=True)[1])
    if not ranked.any():
        raise DataError("no user has both a positive and a negative row, so GAUC is undefined")
    return float(np.average(auc, weights=ranked))


def auc_by_user(
    label: NDArray[Any], score: NDArray[Any], user: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and AUC (U,) of each user who has both classes, 0 and 0 for others; `user` (N,) counts from 0 without gaps.

    A user's AUC is the Mann-Whitney U of the positives' ranks over the number of pairs; equal scores share their rank.
    """
    order = np.lexsort((score, user))
    label, score, user = label[order], score[order], user[order]
    first, stop = runs(user, score)
    rank = (first + stop + 1) / 2 - runs(user)[0]  # (N,) from 1 within the user, mean over ties
    rows = np.bincount(user)
    positives = np.bincount(user, label)
    pairs = positives * (rows - positives)
    mixed = pairs > 0
    wins = np.bincount(user, rank * label) - positives * (positives + 1) / 2
    return np.where(mixed, rows, 0.0), np.where(mixed, wins, 0.0) / np.where(mixed, pairs, 1.0)


def ndcg_by_user(
    label: NDArray[Any], score: NDArray[Any], user: NDArray[np.int64], k: int = NDCG_K
) -> NDArray[np.float64]:
    """NDCG@k (U,) of each user's rows (Jarvelin and Kekalainen, 2002); 0 for who has no positive.

    Rows with equal scores share the mean of their discounts, as in every order that they could come in.
    """
    order = np.lexsort((-score, user))
    label, score, user = label[order], score[order], user[order]
    first, stop = runs(user, score)
    own, end = runs(user)
    longest = int((end - own).max())
    discount = np.where(np.arange(longest) < k, 1 / np.log2(np.arange(longest) + 2), 0)
    total = np.concatenate([[0], np.cumsum(discount)])  # (longest + 1,) of the first n places
    shared = (total[stop - own] - total[first - own]) / (stop - first)  # (N,)
    best = total[np.bincount(user, label).astype(np.int64)]  # (U,)
    return np.bincount(user, label * shared) / np.where(best > 0, best, 1)


def losses(label: NDArray[Any], score: NDArray[Any]) -> NDArray[np.float64]:
    """Logloss (N,) of each row; probabilities are kept float32's epsilon away from 0 and 1, as scikit-learn does."""
    p = np.clip(score.astype(np.float64), EPSILON, 1 - EPSILON)
    return -np.where(label > 0, np.log(p), np.log1p(-p))


def bins(score: NDArray[Any], count: int = BINS) -> NDArray[np.int64]:
    """The bin (N,) of each row, ascending from 0: `count` of about equally many rows, equal scores in one of them.

    Bins of equal width would leave the rare clicks of real traffic all in the first.
    """
    edges = np.unique(np.quantile(score, np.arange(1, count) / count))
    return np.unique(np.searchsorted(edges, score, "right"), return_inverse=True)[1]


def ece(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Expected calibration error (Naeini et al., AAAI 2015): mean gap of a bin's scores and labels, by rows."""
    gap = np.bincount(bins(score), score.astype(np.float64) - label)
    return float(np.abs(gap).sum() / len(score))


def number_items(train: Samples, test: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Target items of both numbered from 0, (N,) each, and how many there are."""
    items, item = np.unique(np.concatenate([train.target_id, test.target_id]), return_inverse=True)
    return item[: len(train)], item[len(train) :], len(items)


def popularity(train: Samples, test: Samples) -> Floats:
    """Probability (N of `test`,) from how often the item is a positive of `train`, the baseline without a user.

    A logistic regression of one feature, log(1 + count), fitted on `train` (validation rows included: there is no epoch
    to choose), so it ranks as the count does.
    """
    own, other, items = number_items(train, test)
    count = np.bincount(own, train.label, items)  # (items,)
    # A positive is left out of its own count. A test row never counts itself; if train rows did, a count of zero would
    # mean "surely negative" in training and the fit would trust small counts far too much.
    feature = np.log1p(count[own] - train.label)[:, None]  # (N of train, 1)
    model = LogisticRegression().fit(feature, train.label)
    return np.asarray(model.predict_proba(np.log1p(count[other])[:, None])[:, 1], np.float32)
