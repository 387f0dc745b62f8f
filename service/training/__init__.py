"""From events to an exported version: data, network, training, evaluation, export. Knows nothing of the server."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.batch import Ids

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: its banner says nothing of the run

_COLUMNS = ("id_start", "id_stop", "tag_start", "tag_stop", "target_id", "target_tag", "label", "user")  # one a sample


def add(total: "hashlib._Hash", values: NDArray[Any]) -> None:
    """Count an array of numbers or bytes (N,) into a digest."""
    total.update(b"\0".join(values) if values.dtype == object else np.ascontiguousarray(values).tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Labelled samples, N of them. Histories are slices of two shared arrays, so a sample costs no copy of its history.

    The history of sample n, oldest first, is `event_id[id_start[n]:id_stop[n]]` and, of its own length because one id
    may carry several tags, `event_tag[tag_start[n]:tag_stop[n]]`.
    """

    event_id: Ids  # (E,) int64, or object (bytes)
    event_tag: Ids  # (F,)
    id_start: NDArray[np.int64]  # (N,)
    id_stop: NDArray[np.int64]  # (N,)
    tag_start: NDArray[np.int64]  # (N,)
    tag_stop: NDArray[np.int64]  # (N,)
    target_id: Ids  # (N,)
    target_tag: Ids  # (N,)
    label: NDArray[np.float32]  # (N,) 0 or 1
    user: NDArray[np.int64]  # (N,) users numbered from 0; who they are does not matter any more

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: NDArray[Any]) -> "Samples":
        """The samples that `index` names: positions (n,), or a mask (N,). The event arrays stay shared."""
        return replace(self, **{name: getattr(self, name)[index] for name in _COLUMNS})

    def digest(self) -> str:
        """sha256 of who was shown what and whether it was clicked: tells rows from others, whatever their histories."""
        total = hashlib.sha256()
        for values in (self.label, self.user, self.target_id, self.target_tag):
            add(total, values)
        return total.hexdigest()

    def joined(self, other: "Samples") -> "Samples":
        """These samples and, after them, those of `other`, which shares the event arrays."""
        return replace(self, **{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS})


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Samples to learn from, to choose the epoch by, and to report on once. The three share their event arrays."""

    train: Samples
    validation: Samples
    test: Samples
    source: str  # what the manifest says of the data, such as "MovieLens ml-latest-small, ratings >= 4"
    click_rate: float | None = None  # of all that negatives were drawn from; None: the labels are what happened
    negatives: int = 0  # drawn for each click
    shards: Sequence[Callable[[], Samples]] = ()  # of data that does not fit in memory, of which `train` is the first
    shard_rows: int = 0  # in all of the shards

    @property
    def train_rows(self) -> int:
        """Train rows in all parts together."""
        return self.shard_rows or len(self.train)

    @property
    def parts(self) -> Sequence[Callable[[], Samples]]:
        """The training rows in parts, at least one; each call loads one, which shares no arrays with the others."""
        return self.shards or (lambda: self.train,)

    @property
    def known(self) -> Samples:
        """Train and validation rows together, for what has no epoch to choose."""
        return self.train.joined(self.validation)
