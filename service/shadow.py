"""Runs a version on copies of requests that others have answered, and compares; nobody waits for it."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

import numpy as np

from service.batch import Floats, Sample
from service.loading import Served

MOST_WAITING = 8  # copies; more would only be older

logger = logging.getLogger(__name__)


class Report(Protocol):
    """Is told, on the event loop, what became of a copy."""

    def shadow(self, outcome: str) -> None:
        """It was `skipped`, or `failed`."""

    def compared(self, version: str, took_s: float, probabilities: Floats, difference: float) -> None:
        """A version computed probabilities (C,), in the mean so far from those of the one that answered."""


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A request that was answered, as the shadow will see it."""

    served: Served  # the shadow
    sample: Callable[[], Sample]  # made in the shadow's thread: parsing it again need not delay anybody
    answered: Floats  # (C,) probabilities


class Shadow:
    """One thread that runs copies, one after the other, and only while the executors have nothing to do.

    Args:
        spare: whether an executor is free and nothing waits.
        report: told what became of each copy.
    """

    def __init__(self, spare: Callable[[], bool], report: Report) -> None:
        self._spare = spare
        self._report = report
        self._queue: SimpleQueue[Copy | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: set[str] = set()  # versions whose first failure is in the log

    def offer(self, copy: Copy) -> None:
        """Take a copy, unless too many wait. On the event loop."""
        if self._queue.qsize() >= MOST_WAITING:
            self._report.shadow("skipped")
            return
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._serve, args=[loop], name="shadow", daemon=True)
            self._thread.start()
        self._queue.put(copy)

    def stop(self) -> None:
        """Drop what waits and end the thread after the copy it is with."""
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._queue.put(None)
        self._thread = None

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (copy := self._queue.get()) is not None:
            tell = self._compare(copy)
            del copy  # or the version could not be freed before the next one comes
            try:
                loop.call_soon_threadsafe(tell)
            except RuntimeError:  # the loop has closed
                return

    def _compare(self, copy: Copy) -> Callable[[], None]:
        """Run a copy; returns how to report what came of it."""
        if not self._spare():
            return lambda: self._report.shadow("skipped")
        served, version, started = copy.served, copy.served.version, time.perf_counter()
        try:
            batch = served.engine.pack([copy.sample()])
            (probabilities,) = batch.split(served.engine.run(batch))
            difference = float(np.abs(probabilities - copy.answered).mean())
            if not np.isfinite(difference):
                raise ValueError("answered with NaN or infinity")  # noqa: TRY301
        except Exception:
            if version not in self._failed:
                logger.exception(
                    "the shadow, version %s, failed on a request; later failures are only counted", version
                )
            self._failed.add(version)
            return lambda: self._report.shadow("failed")
        took_s = time.perf_counter() - started

        return lambda: self._report.compared(version, took_s, probabilities, difference)
