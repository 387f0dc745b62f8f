"""A queue bounded in rows in front of a few executor threads, which run what waits together.

Generic: it knows jobs with a number of rows, a deadline and a key, and a function that runs several payloads of one
key. All state is in `_waiting` and `_running`, changed on the event loop only. Nothing polls: a job entering, a batch
ending and a timer each call `_pump`, which asks the pure functions of `release` what to do and does it.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic

from service.admission import Admission
from service.errors import DeadlineExceeded, Internal, NotReady, Overloaded
from service.executors import Executors, Run
from service.expiry import Expiry
from service.release import Answer, Job, Key, Payload, Policy, decide, runs_inline

logger = logging.getLogger(__name__)


class Batcher(Generic[Key, Payload, Answer]):
    """Runs jobs on `executors` threads, together where they meet in the queue.

    Args:
        run: called in an executor thread (or, see `runs_inline`, on the event loop) with a key and payloads; returns an
            answer for each, in order.
        policy: bounds of queue and batch.
        executors: how many batches run at once.
    """

    def __init__(self, run: Callable[[Key, list[Payload]], Sequence[Answer]], policy: Policy, executors: int) -> None:
        self._policy = policy
        self._executors: Executors[Key, Payload, Answer] = Executors(run, executors, self._return)
        self._waiting: deque[Job[Key, Payload, Answer]] = deque()
        self._running: list[Run[Key, Payload, Answer]] = []
        self._admission = Admission(policy.max_queue_rows, executors)
        self._busy_s = 0.0  # of all executors, with the batches that have ended
        self._due = math.inf  # when the last of the executors should be done, if all are at work
        self._expiry = Expiry(_expire)
        self._timer: asyncio.TimerHandle | None = None
        self._turning = False  # `_pump` is due with the event loop's next turn
        self._idle = asyncio.Event()
        self._open = False

    async def start(self) -> None:
        """Start the executor threads and admit jobs."""
        self._executors.start()
        self._open = True

    async def stop(self, grace_s: float) -> int:
        """Refuse new jobs, finish what is here within `grace_s`, fail the rest; returns how many were cut."""
        self._open = False
        if self._waiting or self._running:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)
        cut = self._cut()
        self._expiry.stop()
        self._executors.stop()
        return cut

    @property
    def rows(self) -> int:
        """Of the jobs that wait."""
        return self._admission.waiting

    @property
    def age_s(self) -> float:
        """How long the oldest job that waits has waited; 0 with none."""
        return time.monotonic() - self._waiting[0].entered if self._waiting else 0.0

    @property
    def busy_s(self) -> float:
        """How long executors have had a batch, all of them together, those that run now included."""
        now = time.monotonic()
        return self._busy_s + sum([now - run.released for run in self._running])

    @property
    def busy(self) -> bool:
        """Whether a job that arrives now finds others here."""
        return self._admission.ahead > 0

    def pressed(self, left_s: float) -> bool:
        """Whether jobs with `left_s` seconds to their deadline are refused, or will be if many more arrive."""
        now = time.monotonic()
        return self._admission.pressed(now, left_s, self._overdue_s(now))

    @property
    def wait_s(self) -> float:
        """How long what is here should take; 0 before the first batch has ended."""
        return self._admission.wait_s(0, self._overdue_s(time.monotonic()))

    def refusal(self, rows: int, deadline: float, room: int = 0) -> Overloaded | None:
        """Why jobs of `rows` rows in all, or any if less than `room` is left, should not enter; None if they may."""
        now = time.monotonic()
        return self._admission.refusal(rows, now, deadline - now, self._overdue_s(now), room)

    def free(self, deadline: float, room: int = 0) -> float:
        """Rows that may enter before `refusal` has to be asked, and keep `room` rows free."""
        now = time.monotonic()
        return self._admission.free(now, deadline - now, self._overdue_s(now), room)

    def expect(self, rows: int) -> None:
        """Count rows as waiting until the event loop turns, when they should be submitted.

        Between two turns many requests may arrive, none of which would see the others.
        """
        if not self._admission.coming:
            asyncio.get_running_loop().call_soon(self._forget_coming)
        self._admission.coming += rows

    def admit(self, rows: int, deadline: float) -> None:
        """Check that jobs of `rows` rows in all may enter now.

        Raises:
            NotReady: stopping, or not started.
            DeadlineExceeded: too late.
            Overloaded: the queue would hold more than `max_queue_rows`, or they would wait too long.
        """
        if not self._open:
            raise NotReady("the server is shutting down")
        if deadline <= time.monotonic():
            raise DeadlineExceeded("the deadline passed before the request could be queued")
        refusal = self.refusal(rows, deadline)
        if refusal is not None:
            raise refusal

    def submit(self, key: Key, payload: Payload, rows: int, deadline: float) -> Job[Key, Payload, Answer]:
        """Enter an admitted job; its future ends with (answer, when its batch was released) or one of our errors.

        At its deadline at the latest, with DeadlineExceeded, whether its batch runs or not.

        With time for batches on the event loop, it is released when the loop turns, with what came in the same turn.
        """
        loop = asyncio.get_running_loop()
        job = Job(key, payload, rows, deadline, time.monotonic(), loop.create_future())
        self._waiting.append(job)
        self._expiry.add(job.future, deadline)
        self._admission.waiting += rows
        if self._policy.inline_s:
            self._pump_soon(loop)
        else:
            self._pump()
        return job

    def withdraw(self, job: Job[Key, Payload, Answer]) -> None:
        """Give up on a job: it is not run if it has not started. Does nothing to a finished one."""
        self._leave(job)
        if not job.future.cancel() and not job.future.cancelled():
            job.future.exception()  # retrieved, so that the loop does not report it as lost

    @property
    def spare(self) -> bool:
        """Whether an executor is free and nothing waits."""
        return not self._waiting and len(self._running) < self._executors.number

    def stalled(self, limit_s: float) -> bool:
        """Whether an executor is gone, or has been with one batch for longer than `limit_s`."""
        gone = self._open and not self._executors.alive
        now = time.monotonic()
        return gone or any(now - run.released > limit_s for run in self._running)

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return (
            f"<Batcher {state}: {len(self._waiting)} waiting ({self.rows} rows), "
            f"{len(self._running)} of {self._executors.number} executors running>"
        )

    def _overdue_s(self, now: float) -> float:
        """How long every executor has been at its batch beyond what its rows should take; 0 if that is unknown."""
        return max(0.0, now - self._due)

    def _note_due(self) -> None:
        self._due = (
            max([run.due for run in self._running]) if len(self._running) == self._executors.number else math.inf
        )

    def _forget_coming(self) -> None:
        self._admission.coming = 0

    def _pump_soon(self, loop: asyncio.AbstractEventLoop, since: float | None = None) -> None:
        if not self._turning:
            self._turning = True
            loop.call_soon(self._turn, since)

    def _turn(self, since: float | None) -> None:
        self._turning = False
        self._pump(since)

    def _pump(self, since: float | None = None) -> None:
        """Run what waits until no executor is idle; on the event loop one batch, and the next when it has turned.

        Between two of them what has arrived is read, and what is done is answered. Where jobs wait since one ended, at
        `since`, that is a part of what the next one takes.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._running) < self._executors.number:
            now = time.monotonic()
            decision = decide(self._waiting, now, self._policy, self._admission.best_row_s)
            for job in (*decision.dropped, *decision.batch):
                self._leave(job)
            for job in decision.dropped:
                _fail(job.future, DeadlineExceeded("the deadline passed before the request was run"))
            if decision.batch:
                over = self._release(decision.batch, now, now if since is None else since)
                since = None
                if over and self._waiting:
                    self._pump_soon(asyncio.get_running_loop(), time.monotonic())
                    return
            if decision.wake_at is not None:
                self._timer = asyncio.get_running_loop().call_later(decision.wake_at - now, self._pump)
                return
        if not self._waiting and not self._running:
            self._idle.set()

    def _release(self, jobs: list[Job[Key, Payload, Answer]], now: float, began: float) -> bool:
        """Run a batch on the event loop, or have an executor run it; returns whether it is over."""
        rows, row_s = sum([job.rows for job in jobs]), self._admission.row_s
        run = Run(jobs, rows, now, began, now + rows * row_s if row_s else math.inf)
        inline = runs_inline(rows, self._admission.best_row_s, self._policy)
        self._running.append(run)
        self._admission.running += rows
        self._note_due()
        if inline:
            self._executors.execute(run)
            self._finish(run)
        else:
            self._executors.hand(run)
        return inline

    def _leave(self, job: Job[Key, Payload, Answer]) -> None:
        if job.waiting:
            job.waiting = False
            self._waiting.remove(job)  # from the front, nearly always
            self._admission.waiting -= job.rows

    def _cut(self) -> int:
        """Fail whatever is unfinished; returns how many jobs that were."""
        jobs = [*self._waiting, *(job for run in self._running for job in run.jobs)]
        left = [job for job in jobs if not job.future.done()]
        for job in jobs:
            self._leave(job)
            _fail(job.future, NotReady("the server shut down before the request was done"))
        return len(left)

    def _return(self, run: Run[Key, Payload, Answer]) -> None:
        """Back on the loop: finish a batch, then see what is next."""
        self._finish(run)
        self._pump()

    def _finish(self, run: Run[Key, Payload, Answer]) -> None:
        """Answer the members of a batch."""
        self._running.remove(run)
        self._admission.running -= run.rows
        self._note_due()
        now = time.monotonic()
        self._busy_s += now - run.released
        if run.error is not None:
            logger.error("a batch of %d failed", len(run.jobs), exc_info=run.error)
        else:
            self._admission.ran(run.rows, run.took_s, now - run.began)
        for i, job in enumerate(run.jobs):
            if run.error is not None:
                _fail(job.future, Internal("the model failed on this batch"))
            elif not job.future.done():
                job.future.set_result((run.answers[i], run.released))


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    """End a job's future with an error, if it has not ended: it is not run if it has not started."""
    if not future.done():
        future.set_exception(error)


def _expire(future: asyncio.Future[Any]) -> None:
    _fail(future, DeadlineExceeded("the deadline passed before the answer was ready"))
