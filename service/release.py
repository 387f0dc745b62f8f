"""When a batch is released, what is in it, and where it runs: decided by pure functions of what waits."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key")
Payload = TypeVar("Payload")
Answer = TypeVar("Answer")


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


def decide(
    waiting: Iterable[Job[Key, Payload, Answer]], now: float, policy: Policy, row_s: float = math.inf
) -> Decision[Key, Payload, Answer]:
    """Choose what an idle executor runs next: the oldest jobs of one key that fit a batch, in order of arrival.

    A row should take `row_s` seconds; where batches may run on the event loop, one is no longer than that allows.

    Jobs whose future is done (cancelled) or whose deadline has passed are never run. A batch that could still grow is
    held until its oldest job has waited `max_delay_s`, unless a deadline in it comes first.
    """
    dropped: list[Job[Key, Payload, Answer]] = []
    batch: list[Job[Key, Payload, Answer]] = []
    rows, full, most = 0, False, _most_rows(row_s, policy)
    for job in waiting:
        if job.future.done() or job.deadline <= now:
            dropped.append(job)
            continue
        full = bool(batch) and (job.key != batch[0].key or rows + job.rows > most)
        if full:
            break
        batch.append(job)
        rows += job.rows
    if batch and not full and rows < most:
        wake_at = batch[0].entered + policy.max_delay_s
        if now < wake_at < min(job.deadline for job in batch):
            return Decision(dropped, [], wake_at)
    return Decision(dropped, batch, None)


def runs_inline(rows: int, row_s: float, policy: Policy) -> bool:
    """Whether a batch should run on the event loop.

    An executor on the same core would take turns with it, which makes both late, and costs a handing over and back.
    """
    return rows * row_s <= policy.inline_s


def _most_rows(row_s: float, policy: Policy) -> int:
    """Of a batch, if it has more than one job."""
    if not policy.inline_s or not 0 < row_s < math.inf:
        return policy.max_batch_rows
    return min(policy.max_batch_rows, int(policy.inline_s / row_s))
