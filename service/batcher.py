"""A queue bounded in rows in front of a few executor threads, which run what waits together.

Generic: it knows jobs with a number of rows, a deadline and a key, and a function that runs several payloads of one
key. All state is in `_waiting` and `_running`, changed on the event loop only. Nothing polls: a job entering, a batch
ending and a timer each call `_pump`, which asks the pure functions `decide` and `runs_inline` what to do and does it.
"""

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded, Internal, NotReady, Overloaded

Key = TypeVar("Key")
Payload = TypeVar("Payload")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How much waits, and what leaves together."""

    max_batch_rows: int
    max_queue_rows: int
    max_delay_s: float = 0.0  # how long a job waits for company while an executor is idle
    inline_s: float = 0.0  # a batch that should take no longer may run on the event loop itself


@dataclass(slots=True, eq=False)
class Job(Generic[Key, Payload, Answer]):
    """One payload on its way through; `future` carries its answer and when its batch was released."""

    key: Key
    payload: Payload
    rows: int
    deadline: float  # monotonic seconds
    entered: float  # monotonic seconds
    future: asyncio.Future[tuple[Answer, float]]
    waiting: bool = True


@dataclass(frozen=True, slots=True)
class Decision(Generic[Key, Payload, Answer]):
    """What to do now: `dropped` leave without running, `batch` runs."""

    dropped: list[Job[Key, Payload, Answer]]  # cancelled or expired
    batch: list[Job[Key, Payload, Answer]]
    wake_at: float | None  # ask again then; None: when something happens


def decide(waiting: Iterable[Job[Key, Payload, Answer]], now: float, policy: Policy) -> Decision[Key, Payload, Answer]:
    """Choose what an idle executor runs next: the oldest jobs of one key that fit a batch, in order of arrival.

    Jobs whose future is done (cancelled) or whose deadline has passed are never run. A batch that could still grow is
    held until its oldest job has waited `max_delay_s`, unless a deadline in it comes first.
    """
    dropped: list[Job[Key, Payload, Answer]] = []
    batch: list[Job[Key, Payload, Answer]] = []
    rows, full = 0, False
    for job in waiting:
        if job.future.done() or job.deadline <= now:
            dropped.append(job)
            continue
        full = bool(batch) and (job.key != batch[0].key or rows + job.rows > policy.max_batch_rows)
        if full:
            break
        batch.append(job)
        rows += job.rows
    if batch and not full and rows < policy.max_batch_rows:
        wake_at = batch[0].entered + policy.max_delay_s
        if now < wake_at < min(job.deadline for job in batch):
            return Decision(dropped, [], wake_at)
    return Decision(dropped, batch, None)


def runs_inline(rows: int, others: int, row_s: float, policy: Policy) -> bool:
    """Whether a batch should run on the event loop, as handing it over and back would cost more than it holds up.

    Never beside `others`, jobs that wait or batches that run: many short batches in a row are a long one.
    """
    return not others and rows * row_s <= policy.inline_s


def learn(row_s: float, rows: int, took_s: float) -> float:
    """What a row takes, given what was thought so far and what one batch took.

    Faster is believed at once, slower by half a step: a thread that waits for its turn makes a batch look slow.
    """
    return min(took_s / rows, row_s * 1.5)


@dataclass(slots=True, eq=False)
class _Run(Generic[Key, Payload, Answer]):
    """A batch with an executor."""

    jobs: list[Job[Key, Payload, Answer]]
    released: float
    took_s: float = 0.0
    answers: Sequence[Answer] = field(default_factory=list)
    error: BaseException | None = None

    @property
    def rows(self) -> int:
        """Of all its jobs."""
        return sum([job.rows for job in self.jobs])


class Batcher(Generic[Key, Payload, Answer]):
    """Runs jobs on `executors` threads, together where they meet in the queue.

    Args:
        run: called in an executor thread (or, see `runs_inline`, on the event loop) with a key and payloads; returns an
            answer for each, in order.
        policy: bounds of queue and batch.
        executors: how many batches run at once.
    """

    def __init__(self, run: Callable[[Key, list[Payload]], Sequence[Answer]], policy: Policy, executors: int) -> None:
        self._call = run
        self._policy = policy
        self._executors = executors
        self._waiting: deque[Job[Key, Payload, Answer]] = deque()
        self._running: list[_Run[Key, Payload, Answer]] = []
        self._rows = 0  # of waiting jobs
        self._row_s = math.inf  # what a row takes: unknown, so the first batch goes to an executor
        self._inbox: SimpleQueue[_Run[Key, Payload, Answer] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turning = False  # `_pump` is due with the event loop's next turn
        self._idle = asyncio.Event()
        self._open = False

    async def start(self) -> None:
        """Start the executor threads and admit jobs."""
        loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._serve, args=[loop], name=f"executor-{i}", daemon=True)
            for i in range(self._executors)
        ]
        for thread in self._threads:
            thread.start()
        self._open = True

    async def stop(self, grace_s: float) -> int:
        """Refuse new jobs, finish what is here within `grace_s`, fail the rest; returns how many were cut."""
        self._open = False
        if self._waiting or self._running:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)
        cut = self._cut()
        for _ in self._threads:
            self._inbox.put(None)
        return cut

    def admit(self, rows: int) -> None:
        """Check that jobs of `rows` rows in all may enter now.

        Raises:
            NotReady: stopping, or not started.
            Overloaded: the queue would hold more than `max_queue_rows`.
        """
        if not self._open:
            raise NotReady("the server is shutting down")
        if self._rows + rows > self._policy.max_queue_rows:
            raise Overloaded("too many candidates are waiting")

    def submit(self, key: Key, payload: Payload, rows: int, deadline: float) -> Job[Key, Payload, Answer]:
        """Enter an admitted job; its future ends with (answer, when its batch was released) or one of our errors.

        With time for batches on the event loop, it is released when the loop turns, with what came in the same turn.
        """
        loop = asyncio.get_running_loop()
        job = Job(key, payload, rows, deadline, time.monotonic(), loop.create_future())
        self._waiting.append(job)
        self._rows += rows
        if not self._policy.inline_s:
            self._pump()
        elif not self._turning:
            self._turning = True
            loop.call_soon(self._turn)
        return job

    def withdraw(self, job: Job[Key, Payload, Answer]) -> None:
        """Give up on a job: it is not run if it has not started. Does nothing to a finished one."""
        self._leave(job)
        if not job.future.cancel() and not job.future.cancelled():
            job.future.exception()  # retrieved, so that the loop does not report it as lost

    @property
    def spare(self) -> bool:
        """Whether an executor is free and nothing waits."""
        return not self._waiting and len(self._running) < self._executors

    def stalled(self, limit_s: float) -> bool:
        """Whether an executor is gone, or has been with one batch for longer than `limit_s`."""
        gone = self._open and not all(thread.is_alive() for thread in self._threads)
        now = time.monotonic()
        return gone or any(now - run.released > limit_s for run in self._running)

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return (
            f"<Batcher {state}: {len(self._waiting)} waiting ({self._rows} rows), "
            f"{len(self._running)} of {self._executors} executors running>"
        )

    def _turn(self) -> None:
        self._turning = False
        self._pump()

    def _pump(self) -> None:
        """Hand batches to idle executors until there is none idle or nothing to run."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._running) < self._executors:
            now = time.monotonic()
            decision = decide(self._waiting, now, self._policy)
            for job in (*decision.dropped, *decision.batch):
                self._leave(job)
            for job in decision.dropped:
                self.fail(job, DeadlineExceeded("the deadline passed before the request was run"))
            if decision.batch:
                self._release(_Run(decision.batch, now))
            if decision.wake_at is not None:
                self._timer = asyncio.get_running_loop().call_later(decision.wake_at - now, self._pump)
                return
        if not self._waiting and not self._running:
            self._idle.set()

    def _release(self, run: _Run[Key, Payload, Answer]) -> None:
        others = len(self._waiting) + len(self._running)
        inline = runs_inline(run.rows, others, self._row_s, self._policy)
        self._running.append(run)
        if inline:
            self._execute(run)
            self._finish(run)
        else:
            self._inbox.put(run)

    def _leave(self, job: Job[Key, Payload, Answer]) -> None:
        if job.waiting:
            job.waiting = False
            self._waiting.remove(job)  # from the front, nearly always
            self._rows -= job.rows

    def fail(self, job: Job[Key, Payload, Answer], error: Exception) -> None:
        """End a job with an error, if it has not ended: it is not run if it has not started."""
        if not job.future.done():
            job.future.set_exception(error)

    def _cut(self) -> int:
        """Fail whatever is unfinished; returns how many jobs that were."""
        jobs = [*self._waiting, *(job for run in self._running for job in run.jobs)]
        left = [job for job in jobs if not job.future.done()]
        for job in jobs:
            self._leave(job)
            self.fail(job, NotReady("the server shut down before the request was done"))
        return len(left)

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """An executor thread: run batches until told to end."""
        while (run := self._inbox.get()) is not None:
            self._execute(run)
            self._report(loop, run)

    def _execute(self, run: _Run[Key, Payload, Answer]) -> None:
        started = time.perf_counter()
        try:
            run.answers = self._call(run.jobs[0].key, [job.payload for job in run.jobs])
            if len(run.answers) != len(run.jobs):
                raise ValueError(f"{len(run.answers)} answers for {len(run.jobs)} payloads")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001  a border: a thread that dies would strand its batch
            run.error = error
        run.took_s = time.perf_counter() - started

    def _report(self, loop: asyncio.AbstractEventLoop, run: _Run[Key, Payload, Answer]) -> None:
        try:
            loop.call_soon_threadsafe(self._finish, run)
        except RuntimeError:  # the loop has closed: nobody is left to tell
            logger.warning("a batch of %d ended after the event loop", len(run.jobs))

    def _finish(self, run: _Run[Key, Payload, Answer]) -> None:
        """Back on the loop: answer the members of a batch, then see what is next."""
        self._running.remove(run)
        if run.error is not None:
            logger.error("a batch of %d failed", len(run.jobs), exc_info=run.error)
        else:
            self._row_s = learn(self._row_s, run.rows, run.took_s)
        for i, job in enumerate(run.jobs):
            if run.error is not None:
                self.fail(job, Internal("the model failed on this batch"))
            elif not job.future.done():
                job.future.set_result((run.answers[i], run.released))
        self._pump()
