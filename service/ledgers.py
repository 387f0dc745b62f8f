"""What a request is counted by: a row of numbers, of which each goes to a histogram, and shares that came with them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

try:
    from service._counts import Counts
except ImportError:  # installed where there was no compiler, or for another machine
    BUILT = False
else:
    BUILT = True

_NONE = np.empty(0, np.float32)


class Fed(Protocol):
    """What is read after its ledgers have told it what they counted."""

    def feed(self, ledger: "Ledger") -> None:
        """A ledger has some of it."""

    def starve(self, ledger: "Ledger") -> None:
        """A ledger has no more of it."""


class Total(Fed, Protocol):
    """A counter."""

    def inc(self, amount: float = 1) -> None:
        """Count more."""


class Column(Fed, Protocol):
    """A histogram."""

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper ones of its buckets, rising; the last is infinity."""

    def observe(self, amount: float) -> None:
        """Count a value."""

    def tell(self, counts: Sequence[int], total: float) -> None:
        """Count so many values in each bucket, which add up to `total`."""


class Shares(Column, Protocol):
    """A histogram of equal bins from 0 to 1, and one beyond."""

    def observe_all(self, values: NDArray[np.float32]) -> None:
        """Count every value (N,)."""


class Add(Protocol):
    """Takes a row."""

    def __call__(self, row: tuple[float, ...], shares: NDArray[np.float32] = ..., /) -> None:
        """Put down a value for each column, and shares (N,)."""


class Ledger(ABC):
    """Where rows are put down, by `add`, and counted before anybody reads.

    Args:
        columns: histograms.
        counter: of the rows.
        spread: of the shares.
    """

    def __init__(self, columns: Sequence[Column], counter: Total | None = None, spread: Shares | None = None) -> None:
        self.add = self._make(columns, spread)
        self._columns = columns
        self._counter = counter
        self._spread = spread
        self._counting = Lock()
        for each in self._fed:
            each.feed(self)

    def count(self) -> None:
        """Count what waits."""
        with self._counting:
            self._count()

    def close(self) -> None:
        """Count what waits for the last time."""
        for each in self._fed:
            each.starve(self)
        self.count()

    @abstractmethod
    def _make(self, columns: Sequence[Column], spread: Shares | None) -> Add:
        """Make ready to be written, and tell by what."""

    @abstractmethod
    def _count(self) -> None:
        """Count it, while no other thread does."""

    @property
    def _fed(self) -> list[Fed]:
        return [each for each in (*self._columns, self._counter, self._spread) if each is not None]


class Table(Ledger):
    """A ledger kept in C.

    A call of each histogram takes 0.8 us, and several times that on a request's way, where nothing of it is in the
    core's caches; a row and its shares take half of one here, and leave nothing behind that would be long in memory.
    """

    def _make(self, columns: Sequence[Column], spread: Shares | None) -> Add:
        self._counts = Counts(tuple([each.bounds for each in columns]), len(spread.bounds) - 1 if spread else 0)
        return self._counts.add  # with no function in Python around it

    def _count(self) -> None:
        rows, columns, shares = self._counts.take()
        for column, told in zip(self._columns, columns, strict=True):
            column.tell(*told)
        if self._counter is not None:
            self._counter.inc(rows)
        if self._spread is not None:
            self._spread.tell(*shares)


class Journal(Ledger):
    """A ledger that keeps no rows, but for shares.

    For several processes, which read each other's histograms from files at any time, and where there is no C.
    """

    _MOST = 32_768  # shares; counting them takes less than half a millisecond

    def _make(self, columns: Sequence[Column], spread: Shares | None) -> Add:
        del columns, spread
        self._shares = bytearray()
        return self._add

    def _add(self, row: tuple[float, ...], shares: NDArray[np.float32] = _NONE, /) -> None:
        for column, value in zip(self._columns, row, strict=True):
            column.observe(value)
        if self._counter is not None:
            self._counter.inc()
        with self._counting:
            self._shares += shares.tobytes()
        if len(self._shares) >= self._MOST * 4:
            self.count()

    def _count(self) -> None:
        shares, self._shares = self._shares, bytearray()
        if self._spread is not None:
            self._spread.observe_all(np.frombuffer(shares, np.float32))
