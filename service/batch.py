"""Lay requests out the way an engine takes them, and split its answer back.

Dimension letters, here and in the engines: R requests, C candidates of one request, T and U history lengths (ids,
tags), K blocks, B candidates in a block. A block holds candidates of one request only, so that it sees one history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[Any]  # int64, or object (of bytes) where the manifest says string
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One request as arrays: a history, oldest first, and the candidates to score against it."""

    seq_id: Ids  # (T,)
    seq_tag: Ids  # (U,)
    target_id: Ids  # (C,)
    target_tag: Ids  # (C,)

    @property
    def rows(self) -> int:
        """Number of candidates."""
        return len(self.target_id)

    def parts(self, most_rows: int) -> list["Sample"]:
        """Split into samples of at most `most_rows` candidates, in order, each with the whole history."""
        if self.rows <= most_rows:
            return [self]
        return [
            Sample(self.seq_id, self.seq_tag, self.target_id[i : i + most_rows], self.target_tag[i : i + most_rows])
            for i in range(0, self.rows, most_rows)
        ]


class Batch(Protocol):
    """What an engine runs at once: several samples, as that engine takes them."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Candidates of each sample, in order."""

    @property
    def padding(self) -> float:
        """Share of the (candidate, history entry) pairs laid out here that hold padding, 0 to 1."""

    def split(self, answer: NDArray[Any]) -> list[NDArray[Any]]:
        """Give each sample its own rows of an engine's answer, in the order packed: one (C, ...) array a sample.

        Raises:
            ValueError: the answer does not have a row for each row of the batch.
        """


@dataclass(frozen=True, slots=True, eq=False)
class RaggedBatch:
    """Several samples as they came; an engine answers (N, ...), their candidates one after the other."""

    samples: tuple[Sample, ...]

    @property
    def rows(self) -> tuple[int, ...]:
        """Candidates of each sample, in order."""
        return tuple([sample.rows for sample in self.samples])

    @property
    def padding(self) -> float:
        """Nothing is padded."""
        return 0.0

    def split(self, answer: NDArray[Any]) -> list[NDArray[Any]]:
        """Give each sample its own rows of `answer` (N, ...): one (C, ...) array a sample.

        Raises:
            ValueError: `answer` does not have a row for each row of the batch.
        """
        rows = self.rows
        if len(answer) != sum(rows):
            raise ValueError(f"the engine answered {len(answer)} rows for a batch of {sum(rows)}")
        ends = list(accumulate(rows, initial=0))
        return [answer[start:end] for start, end in pairwise(ends)]


@dataclass(frozen=True, slots=True, eq=False)
class BlockBatch:
    """Several samples in the arrays of the `score` signature; whatever is padding is zero (or empty bytes)."""

    seq_id: Ids  # (R, T)
    seq_tag: Ids  # (R, U)
    seq_id_length: NDArray[np.int32]  # (R,)
    seq_tag_length: NDArray[np.int32]  # (R,)
    target_id: Ids  # (K, B)
    target_tag: Ids  # (K, B)
    block_request: NDArray[np.int32]  # (K,) index of the block's request
    rows: tuple[int, ...]  # candidates of each sample, in order

    @property
    def padding(self) -> float:
        """Share of the (candidate, history entry) pairs laid out here that hold padding, 0 to 1."""
        laid_out: int = self.target_id.size * (self.seq_id.shape[1] + self.seq_tag.shape[1])
        used = int(np.dot(self.rows, self.seq_id_length + self.seq_tag_length))
        return 1.0 - used / laid_out

    def split(self, answer: NDArray[Any]) -> list[NDArray[Any]]:
        """Give each sample its own rows of `answer` (K, B, ...): one (C, ...) array a sample.

        Raises:
            ValueError: `answer` does not have a row for each row of the batch.
        """
        width = self.target_id.shape[1]
        if answer.shape[:2] != self.target_id.shape:
            raise ValueError(f"the engine answered {answer.shape[:2]} for a batch of {self.target_id.shape}")
        flat = answer.reshape(-1, *answer.shape[2:])  # (K*B, ...)
        answers, start = [], 0
        for rows in self.rows:
            answers.append(flat[start : start + rows])
            start += -(-rows // width) * width
        return answers


def pack_blocks(samples: Sequence[Sample], block: int) -> BlockBatch:
    """Lay out `samples` (at least one, each with at least one candidate) in blocks of `block` candidates."""
    counts = [-(-sample.rows // block) for sample in samples]
    seq_id, id_length = _stack([sample.seq_id for sample in samples])
    seq_tag, tag_length = _stack([sample.seq_tag for sample in samples])
    return BlockBatch(
        seq_id,
        seq_tag,
        id_length,
        tag_length,
        _blocks([sample.target_id for sample in samples], counts, block),
        _blocks([sample.target_tag for sample in samples], counts, block),
        np.repeat(np.arange(len(samples), dtype=np.int32), counts),
        tuple(sample.rows for sample in samples),
    )


def _zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Ids:
    return np.full(shape, b"", object) if dtype.hasobject else np.zeros(shape, dtype)


def _stack(sequences: list[Ids]) -> tuple[Ids, NDArray[np.int32]]:
    """Pad sequences to the longest, (R, T), and say how long each really is, (R,)."""
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    stacked = _zeros((len(sequences), max(1, int(lengths.max()))), sequences[0].dtype)
    for row, sequence in enumerate(sequences):
        stacked[row, : len(sequence)] = sequence
    return stacked, lengths


def _blocks(targets: list[Ids], counts: list[int], block: int) -> Ids:
    """Lay each sample's targets (C,) at the start of its own blocks, (K, block)."""
    flat = _zeros((sum(counts) * block,), targets[0].dtype)
    start = 0
    for target, own in zip(targets, counts, strict=True):
        flat[start : start + len(target)] = target
        start += own * block
    return flat.reshape(-1, block)
