"""Mini-batches for TensorFlow: gathered and padded by `tf.data`, in threads of its own, while the step before runs.

Dimension letters: N samples, n samples of one mini-batch, T longest history in it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.batch import Floats
from service.training import Samples
from service.training.din import Rows, graph
from service.training.layers import Tensor

WINDOW = 16  # batches whose rows are sorted by the length of their histories together
MULTIPLE = 8  # histories are padded to one of these, so that few shapes occur
AHEAD = 4  # batches made before they are asked for


class Batches:
    """Mini-batches of samples whose ids and tags are numbers already: buckets, or rows of tables."""

    def __init__(self, samples: Samples, rows: int) -> None:
        self.samples, self.rows = samples, rows
        self._columns = [
            (_padded(samples.event_id), _constant(samples.id_start), _constant(samples.id_stop - samples.id_start)),
            (_padded(samples.event_tag), _constant(samples.tag_start), _constant(samples.tag_stop - samples.tag_start)),
        ]
        self._targets = [_constant(samples.target_id), _constant(samples.target_tag), tf.constant(samples.label)]

    def __call__(self, order: NDArray[np.int64], first: int = 0) -> Iterator[tuple[Rows, Tensor]]:
        """The samples at `order` (N,), `rows` of them at a time, from batch `first` on, with their labels (n,)."""
        positions = tf.constant(order)
        count = -(-len(order) // self.rows)

        def make(number: Tensor) -> tuple[Rows, Tensor]:
            return self._gather(positions[number * self.rows : (number + 1) * self.rows])

        numbers = tf.data.Dataset.range(first, count)
        yield from numbers.map(graph(make), num_parallel_calls=2, deterministic=True).prefetch(AHEAD)

    def _gather(self, index: Tensor) -> tuple[Rows, Tensor]:
        """The samples at `index` (n,)."""
        (seq_id, id_length), (seq_tag, tag_length) = (_pad(*column, index) for column in self._columns)
        target_id, target_tag, label = (tf.gather(each, index) for each in self._targets)
        return Rows(seq_id, seq_tag, id_length, tag_length, target_id, target_tag), label


def shuffle(samples: Samples, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order (N,) of samples in which a mini-batch of `rows` has histories of similar length, so little is padding.

    The samples are shuffled, sorted by length within windows of some batches, and the full batches shuffled again.
    """
    order = rng.permutation(len(samples))
    length = np.maximum(samples.id_stop - samples.id_start, samples.tag_stop - samples.tag_start)[order]
    window = np.arange(len(order)) // (rows * WINDOW)
    order = order[np.lexsort((length, window))]
    full = len(order) // rows
    whole = order[: full * rows].reshape(full, rows)
    return np.concatenate([whole[rng.permutation(full)].reshape(-1), order[full * rows :]])


def by_length(samples: Samples) -> NDArray[np.int64]:
    """An order (N,) in which histories grow."""
    return np.argsort(
        np.maximum(samples.id_stop - samples.id_start, samples.tag_stop - samples.tag_start), kind="stable"
    )


def in_order(found: list[Floats], order: NDArray[np.int64]) -> Floats:
    """Put batches of numbers, of samples at `order` (N,), into the order of the samples (N,)."""
    values = np.concatenate(found)
    placed = np.empty_like(values)
    placed[order] = values
    return placed


def _constant(values: NDArray[Any]) -> Tensor:
    return tf.constant(values.astype(np.int32))  # no part of a training set has 2^31 events


def _padded(events: NDArray[Any]) -> Tensor:
    """Events (E,) and one more, which stands where there is nothing to gather."""
    return tf.constant(np.append(events, 0).astype(np.int32))


def _pad(events: Tensor, start: Tensor, length: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Histories of the samples at `index` (n,), padded with 0: (n, T), and their lengths (n,)."""
    start, length = tf.gather(start, index), tf.gather(length, index)
    longest = tf.maximum(tf.reduce_max(length), 1)
    column = tf.range((longest + MULTIPLE - 1) // MULTIPLE * MULTIPLE)  # (T,)
    real = column < length[:, None]  # (n, T)
    place = tf.where(real, start[:, None] + column, 0)
    return tf.where(real, tf.gather(events, place), 0), length
