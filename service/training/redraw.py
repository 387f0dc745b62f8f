"""New random negatives for every epoch: the same few ones are learnt by heart.

Dimension letters: N samples, M negatives among them, I items.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.training import Samples
from service.training.runs import runs
from service.training.vocabulary import Vocabulary, to_rows

TRIES = 50  # after which an item that is not allowed stays: it takes a user who liked nearly everything


class Redraw:
    """Gives each negative of hashed samples, in order of time within each user, another target.

    An item is drawn evenly from the targets of all samples. It is none that its user liked by then: neither as the
    target of a positive up to this sample, nor in the history of the user's first one. Later ones are not looked at.

    Args:
        samples: hashed, with the negatives they came with.
        vocabularies: the rows of tables.
    """

    def __init__(self, samples: Samples, vocabularies: Mapping[str, Vocabulary]) -> None:
        self._rows = to_rows(samples, vocabularies)
        items, where, self._item = np.unique(
            samples.target_id, return_index=True, return_inverse=True
        )  # (I,) (I,) (N,)
        self._id, self._tag = self._rows.target_id[where], self._rows.target_tag[where]  # (I,)
        self._negative = np.flatnonzero(samples.label == 0)  # (M,)
        liked, at = _likes(samples, items, self._item)
        self._key, first = np.unique(liked, return_index=True)
        self._since = at[first]

    def __call__(self, rng: np.random.Generator) -> Samples:
        """The samples as rows of tables, with the negatives of one epoch."""
        user = self._rows.user[self._negative] * len(self._id)
        drawn = rng.integers(0, len(self._id), len(self._negative))
        for _ in range(TRIES):
            bad = np.flatnonzero(self._is_liked(user + drawn))
            if not len(bad):
                break
            drawn[bad] = rng.integers(0, len(self._id), len(bad))
        target_id, target_tag = self._rows.target_id.copy(), self._rows.target_tag.copy()
        target_id[self._negative], target_tag[self._negative] = self._id[drawn], self._tag[drawn]
        return replace(self._rows, target_id=target_id, target_tag=target_tag)

    def _is_liked(self, key: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the user of each negative liked the item by then, for keys user * I + item (M,)."""
        if not len(self._key):
            return np.zeros(len(key), bool)
        place = np.minimum(np.searchsorted(self._key, key), len(self._key) - 1)
        found: NDArray[np.bool_] = (self._key[place] == key) & (self._since[place] <= self._negative)
        return found


def _likes(
    samples: Samples, items: NDArray[np.int64], item: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys user * I + item of what was liked, and since which sample, -1 from the start; the earliest come first."""
    first = np.flatnonzero(runs(samples.user)[0] == np.arange(len(samples)))  # of each user
    length = (samples.id_stop - samples.id_start)[first]
    within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    event = samples.event_id[np.repeat(samples.id_start[first], length) + within]
    place = np.minimum(np.searchsorted(items, event), len(items) - 1)
    known = items[place] == event  # others are never drawn
    before = (np.repeat(samples.user[first], length) * len(items) + place)[known]
    positive = np.flatnonzero(samples.label == 1)
    keys = np.concatenate([before, samples.user[positive] * len(items) + item[positive]])
    return keys, np.concatenate([np.full(len(before), -1), positive])
