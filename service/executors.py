"""Threads that run batches. A batch that fails is an answer like any other: it comes back with its error."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic

from service.release import Answer, Job, Key, Payload

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Run(Generic[Key, Payload, Answer]):
    """A batch with an executor. Times are monotonic seconds, `took_s` is the executor's."""

    jobs: list[Job[Key, Payload, Answer]]
    rows: int  # of all its jobs
    released: float
    began: float  # to be worked on: before, others were, or nothing waited
    due: float  # when it should be answered
    took_s: float = 0.0
    answers: Sequence[Answer] = field(default_factory=list)
    error: BaseException | None = None


class Executors(Generic[Key, Payload, Answer]):
    """A few threads, each at one batch at a time.

    Args:
        call: runs several payloads of one key; returns an answer for each, in order.
        number: of threads.
        ended: called on the event loop with each batch that a thread has run.
    """

    def __init__(
        self,
        call: Callable[[Key, list[Payload]], Sequence[Answer]],
        number: int,
        ended: Callable[[Run[Key, Payload, Answer]], None],
    ) -> None:
        self.number = number
        self._call = call
        self._ended = ended
        self._inbox: SimpleQueue[Run[Key, Payload, Answer] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads; on the event loop."""
        loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._serve, args=[loop], name=f"executor-{i}", daemon=True)
            for i in range(self.number)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Have each thread end once it has nothing to do."""
        for _ in self._threads:
            self._inbox.put(None)

    @property
    def alive(self) -> bool:
        """Whether every thread that was started is there."""
        return all(thread.is_alive() for thread in self._threads)

    def hand(self, run: Run[Key, Payload, Answer]) -> None:
        """Have a thread run a batch."""
        self._inbox.put(run)

    def execute(self, run: Run[Key, Payload, Answer]) -> None:
        """Run a batch, here and now: its answers, or its error, are in it then."""
        started = time.perf_counter()
        try:
            run.answers = self._call(run.jobs[0].key, [job.payload for job in run.jobs])
            if len(run.answers) != len(run.jobs):
                raise ValueError(f"{len(run.answers)} answers for {len(run.jobs)} payloads")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001  a border: a thread that dies would strand its batch
            run.error = error
        run.took_s = time.perf_counter() - started

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run batches until told to end."""
        while (run := self._inbox.get()) is not None:
            self.execute(run)
            self._report(loop, run)
            del run  # or else a thread with nothing to do would hold its last version

    def _report(self, loop: asyncio.AbstractEventLoop, run: Run[Key, Payload, Answer]) -> None:
        try:
            loop.call_soon_threadsafe(self._ended, run)
        except RuntimeError:  # the loop has closed: nobody is left to tell
            logger.warning("a batch of %d ended after the event loop", len(run.jobs))
