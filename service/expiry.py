"""Ends what is late: one timer for whatever waits, as one each costs 5 us."""

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable
from typing import Any


class Expiry:
    """Futures with deadlines.

    Args:
        expire: ends a future whose deadline has passed and that is not done.
    """

    def __init__(self, expire: Callable[[asyncio.Future[Any]], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, asyncio.Future[Any]]] = []  # the earliest deadline first
        self._order = itertools.count()  # of futures with the same deadline, which do not compare
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf  # when the timer rings

    def __len__(self) -> int:
        """How many futures are held."""
        return len(self._heap)

    def add(self, future: asyncio.Future[Any], deadline: float) -> None:
        """End `future` at `deadline` (`time.monotonic()` clock, seconds), if it is not done by then."""
        heap = self._heap
        while heap and heap[0][2].done():
            heapq.heappop(heap)
        heapq.heappush(heap, (deadline, next(self._order), future))
        if deadline < self._wakes_at:
            self._wake_at(deadline)

    def stop(self) -> None:
        """End nothing any more."""
        self._heap.clear()
        self._wake_at(math.inf)

    def _wake_at(self, then: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wakes_at = then
        if then < math.inf:
            self._timer = asyncio.get_running_loop().call_later(then - time.monotonic(), self._ring)

    def _ring(self) -> None:
        heap, now = self._heap, time.monotonic()
        while heap and (heap[0][0] <= now or heap[0][2].done()):
            future = heapq.heappop(heap)[2]
            if not future.done():
                self._expire(future)
        self._wake_at(heap[0][0] if heap else math.inf)
