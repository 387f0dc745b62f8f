"""Which buckets training meets, and how often: tables in training have rows for these only.

Row 0, the default, stands for every bucket that training never met, or too rarely to learn anything of. Where rows
share a part of their embeddings with their neighbours, a rare one has a row too, of that part alone.

Dimension letters: N samples, E events, B buckets, V rows, O embeddings.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.artifact import Features
from service.batch import Ids
from service.training import Samples
from service.training.blend import Blend, make_blend
from service.training.din import Inputs, Pair, Rows, pairs_of
from service.training.layers import Tensor
from service.training.recipe import Counted
from service.training.runs import covered


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """How often training meets each bucket of one feature."""

    targets: NDArray[np.int64]  # (B,) as the target of a sample
    entries: NDArray[np.int64]  # (B,) in the samples' histories
    events: NDArray[np.int64]  # (B,) the same, an event that stands in many samples' histories counted once
    clicks: NDArray[np.int64]  # (B,) as the target of a sample that was clicked

    def __add__(self, other: "Counts") -> "Counts":
        """Of both together."""
        return Counts(
            self.targets + other.targets,
            self.entries + other.entries,
            self.events + other.events,
            self.clicks + other.clicks,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """The rows of one feature's tables."""

    row: NDArray[np.int32]  # (B,) the row of each bucket
    targets: NDArray[np.int64]  # (O,) how often training meets what has this embedding as a target
    entries: NDArray[np.int64]  # (O,) and in histories
    blend: Blend | None = None  # what the rows' embeddings are made of; None: each has one of its own

    @property
    def count(self) -> NDArray[np.int64]:
        """How often training meets what has each embedding, (O,)."""
        return self.targets + self.entries

    @property
    def embeddings(self) -> int:
        """O; as many as there are rows, where nothing is shared."""
        return len(self.targets)

    def own(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """Which embedding is each row's own, of any shape."""
        return rows if self.blend is None else self.blend.own[rows]

    def replaced(self, rate: float) -> "Vocabulary":
        """The same with the counts to expect where `replace_rows` replaces at this rate."""

        def expected(count: NDArray[np.int64]) -> NDArray[np.int64]:
            kept: NDArray[np.int64] = np.rint(count * (1 - rate)).astype(np.int64)
            kept[0] += count.sum() - kept.sum()
            return kept

        return replace(self, targets=expected(self.targets), entries=expected(self.entries))


def count_buckets(samples: Samples, features: Features) -> dict[str, Counts]:
    """Count the buckets of hashed samples, by feature."""
    columns = {
        "id": (samples.target_id, samples.event_id, samples.id_start, samples.id_stop, features.id.buckets),
        "tag": (samples.target_tag, samples.event_tag, samples.tag_start, samples.tag_stop, features.tag.buckets),
    }
    return {name: _count(samples.label, *each) for name, each in columns.items()}


def make_vocabulary(
    counts: Counts,
    min_count: int = 1,
    counted: Counted = "met",
    place: NDArray[np.float64] | None = None,
    knots: int = 0,
) -> Vocabulary:
    """Give an embedding to each bucket met at least `min_count` times, as a target or as an event of a history.

    Where negatives were drawn, being met as one tells nothing of an item, and a training row never is of an item that
    nobody clicked but held-out rows are: `counted` "clicks" counts a bucket as the target of clicked samples only.
    With the place (B,) of each bucket in some order, from 0 to 1 or NaN, and two knots or more, embeddings are blends.
    """
    met = counts.targets + counts.events  # (B,)
    own = _numbered((counts.clicks if counted == "clicks" else met) >= max(min_count, 1))  # (B,)
    if place is None or knots < 2:  # noqa: PLR2004 - a place is between two
        return _vocabulary(counts, own)
    row, bucket = _numbered(met > 0), np.flatnonzero(met > 0)  # (B,) (V - 1,)
    blend = make_blend(np.append(np.int32(0), own[bucket]), np.append(np.nan, place[bucket]), knots)
    return replace(_vocabulary(counts, own), row=row, blend=blend)


def make_vocabularies(
    parts: Iterable[Samples],
    features: Features,
    min_count: int = 1,
    counted: Counted = "met",
    id_place: Callable[[], NDArray[np.float64] | None] = lambda: None,
    id_knots: int = 0,
) -> dict[str, Vocabulary]:
    """The vocabularies of `id` and `tag` from hashed training samples, which may come in parts, at least one.

    `id_place` is asked for the place of each bucket of ids when all parts were seen.
    """
    total: dict[str, Counts] = {}
    for part in parts:
        found = count_buckets(part, features)
        total = {name: total[name] + counts if total else counts for name, counts in found.items()}
    return {
        "id": make_vocabulary(total["id"], min_count, counted, id_place(), id_knots),
        "tag": make_vocabulary(total["tag"], min_count, counted),
    }


def to_rows(samples: Samples, vocabularies: Mapping[str, Vocabulary]) -> Samples:
    """Replace the buckets of hashed samples by rows."""
    ids, tags = vocabularies["id"].row, vocabularies["tag"].row
    return replace(
        samples,
        event_id=ids[samples.event_id],
        event_tag=tags[samples.event_tag],
        target_id=ids[samples.target_id],
        target_tag=tags[samples.target_tag],
    )


def replace_rows(rows: Inputs, rate: float, seed: Tensor) -> Inputs:
    """Replace each target and history entry by row 0 with the probability `rate`, so that row 0 is trained.

    Args:
        rows: a batch of rows of tables.
        rate: from 0 to 1.
        seed: (2,) int; the same seed replaces the same entries.
    """

    def some(values: Tensor, number: int) -> Tensor:
        drawn = tf.random.stateless_uniform(tf.shape(values), tf.random.experimental.stateless_fold_in(seed, number))
        return tf.where(drawn < rate, tf.zeros_like(values), values)

    pairs = {
        name: Pair(some(pair.sequence, 2 * i), pair.length, some(pair.target, 2 * i + 1))
        for i, (name, pair) in enumerate(pairs_of(rows).items())
    }
    return Rows.of(pairs) if isinstance(rows, Rows) else pairs


def _numbered(known: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Number what is known from 1, all else 0."""
    return np.where(known, np.cumsum(known), 0).astype(np.int32)


def _vocabulary(counts: Counts, row: NDArray[np.int32]) -> Vocabulary:
    """An embedding for each row (B,)."""

    def of_rows(count: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.rint(np.bincount(row, count)).astype(np.int64)

    return Vocabulary(row, of_rows(counts.targets), of_rows(counts.entries))


def _count(
    label: NDArray[np.float32], target: Ids, event: Ids, start: NDArray[np.int64], stop: NDArray[np.int64], buckets: int
) -> Counts:
    histories = covered(start, stop, len(event))  # (E,) how many each event stands in
    return Counts(
        np.bincount(target, minlength=buckets),
        np.rint(np.bincount(event, histories, buckets)).astype(np.int64),
        np.bincount(event[histories > 0], minlength=buckets),
        np.bincount(target[label > 0], minlength=buckets),
    )
