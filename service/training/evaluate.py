"""How well scores rank and predict: the numbers that travel with a version, and the baseline that needs no model."""

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

    A user's AUC is the Mann-Whitney U of the positives' ranks over the number of pairs; equal scores share their rank.

    Raises:
        DataError: no user has both classes.
    """
    order = np.lexsort((score, user))
    label, score, user = label[order], score[order], user[order]
    first, stop = runs(user, score)
    own = runs(user)[0]
    rank = (first + stop + 1) / 2 - own  # (N,) from 1 within the user, mean over ties
    number = np.cumsum(np.arange(len(user)) == own) - 1  # (N,) users without gaps
    impressions = np.bincount(number)
    positives = np.bincount(number, label)
    pairs = positives * (impressions - positives)
    mixed = pairs > 0
    if not mixed.any():
        raise DataError("no user has both a positive and a negative row, so GAUC is undefined")
    wins = np.bincount(number, rank * label) - positives * (positives + 1) / 2
    return float(np.average(wins[mixed] / pairs[mixed], weights=impressions[mixed]))


def popularity(train: Samples, test: Samples) -> Floats:
    """Probability (N of `test`,) from how often the item is a positive of `train`, the baseline without a user.

    A logistic regression of one feature, log(1 + count), fitted on `train` (validation rows included: there is no epoch
    to choose), so it ranks as the count does.
    """
    items, item = np.unique(np.concatenate([train.target_id, test.target_id]), return_inverse=True)
    own, other = item[: len(train)], item[len(train) :]
    count = np.bincount(own, train.label, len(items))  # (items,)
    # A positive is left out of its own count. A test row never counts itself; if train rows did, a count of zero would
    # mean "surely negative" in training and the fit would trust small counts far too much.
    feature = np.log1p(count[own] - train.label)[:, None]  # (N of train, 1)
    model = LogisticRegression().fit(feature, train.label)
    return np.asarray(model.predict_proba(np.log1p(count[other])[:, None])[:, 1], np.float32)
