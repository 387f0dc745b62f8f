"""What a version must beat to be worth serving: scorers of a few counts. Popularity is in `evaluate`.

Dimension letters: N samples, n of one slab, F features. Training rows are left out of their own counts, as in
`evaluate.popularity`.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from service.batch import Floats
from service.training import Samples, evaluate
from service.training.evaluate import number_items

PRIOR_ROWS = 5  # an item counts as if it had been shown so often before, at the mean click rate
SLAB = 1 << 16  # samples whose histories are laid out at once: 26 MB at a history of 50

Baseline: TypeAlias = Callable[[Samples, Samples], Floats]


def item_mean(train: Samples, test: Samples) -> Floats:
    """Probability (N of `test`,): the item's click rate in `train`, drawn to the mean of all where it is rare."""
    return _rates(train, test)[1].astype(np.float32)


def logistic_regression(train: Samples, test: Samples) -> Floats:
    """Probability (N of `test`,) from a logistic regression of `features`, fitted on `train`."""
    own, other = features(train, test)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(own, train.label)
    return np.asarray(model.predict_proba(other)[:, 1], np.float32)


BASELINES: dict[str, Baseline] = {
    "popularity": evaluate.popularity,
    "item mean": item_mean,
    "logistic regression": logistic_regression,
}


def features(train: Samples, test: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as (N, F): log of the item's rows, logit of its click rate, its tag's share of the history, log length."""
    rows, rates = _rows(train, test), _rates(train, test)
    return _features(train, rows[0], rates[0]), _features(test, rows[1], rates[1])


def tag_share(samples: Samples) -> NDArray[np.float64]:
    """Share (N,) of the history's tags that are the target's, 0 where there is no history."""
    return np.concatenate([_tag_share(samples, slice(i, i + SLAB)) for i in range(0, len(samples), SLAB)])


def positives(train: Samples, test: Samples) -> NDArray[np.float64]:
    """How often the item of each row of `test` (N,) is a positive of `train`."""
    own, other, items = number_items(train, test)
    return np.bincount(own, train.label, items)[other].astype(np.float64)


def _features(samples: Samples, rows: NDArray[np.float64], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    length = samples.id_stop - samples.id_start
    columns = [np.log1p(rows), np.log(rate / (1 - rate)), tag_share(samples), np.log1p(length)]
    return np.column_stack(columns)


def _tag_share(samples: Samples, part: slice) -> NDArray[np.float64]:
    start, stop = samples.tag_start[part], samples.tag_stop[part]
    length = stop - start  # (n,)
    row = np.repeat(np.arange(len(length)), length)
    place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length) + start[row]
    same = samples.event_tag[place] == samples.target_tag[part][row]
    share: NDArray[np.float64] = np.bincount(row, same, len(length)) / np.maximum(length, 1)
    return share


def _rows(train: Samples, test: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    own, other, items = number_items(train, test)
    shown = np.bincount(own, minlength=items).astype(np.float64)
    return shown[own] - 1, shown[other]


def _rates(train: Samples, test: Samples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    own, other, items = number_items(train, test)
    label = train.label.astype(np.float64)
    prior = PRIOR_ROWS * label.mean()
    shown, clicked = np.bincount(own, minlength=items), np.bincount(own, label, items)
    rate = (clicked[own] - label + prior) / (shown[own] - 1 + PRIOR_ROWS)
    return rate, (clicked[other] + prior) / (shown[other] + PRIOR_ROWS)
