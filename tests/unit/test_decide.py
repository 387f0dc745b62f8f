"""When to release a batch, decided by a pure function: jobs here have futures that no event loop knows."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.release import Decision, Job, Policy, decide, runs_inline

FakeJob: TypeAlias = Job[str, int, int]

NOW = 100.0
POLICY = Policy(max_batch_rows=10, max_queue_rows=100)
INLINE = Policy(max_batch_rows=10, max_queue_rows=100, inline_s=0.5)
PATIENT = Policy(max_batch_rows=10, max_queue_rows=100, max_delay_s=5.0)


class Future:
    """As much of a future as the decision needs."""

    def __init__(self, done: bool) -> None:
        self._done = done

    def done(self) -> bool:
        """Whether there is an answer, an error or a cancellation."""
        return self._done


def job(
    rows: int = 1, key: str = "a", *, deadline: float = NOW + 50, entered: float = NOW, done: bool = False
) -> FakeJob:
    """Make a waiting job."""
    future: Any = Future(done)
    return Job(key, 0, rows, deadline, entered, future)


@st.composite
def queues(draw: st.DrawFn) -> list[FakeJob]:
    """Draw a queue of jobs of two keys, some of them expired, cancelled or larger than a batch."""
    rows, deadlines = st.integers(1, 13), st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 60])
    fields = st.tuples(rows, st.sampled_from("ab"), deadlines, st.floats(NOW - 9, NOW), st.booleans())
    drawn = draw(st.lists(fields, min_size=1, max_size=12))
    return [
        job(rows, key, deadline=deadline, entered=entered, done=done) for rows, key, deadline, entered, done in drawn
    ]


def of(decision: Decision[str, int, int], queue: Sequence[FakeJob]) -> tuple[list[int], list[int]]:
    """Places in the queue of what is dropped and what runs."""
    return [queue.index(each) for each in decision.dropped], [queue.index(each) for each in decision.batch]


def test_nothing_waits() -> None:
    """Of an empty queue nothing is run, and nothing is to be done later."""
    assert decide([], NOW, POLICY) == Decision([], [], None)


@pytest.mark.parametrize(
    ("queue", "batch"),
    [
        pytest.param([job(3), job(3), job(3)], [0, 1, 2], id="all-fit"),
        pytest.param([job(4), job(4), job(4)], [0, 1], id="the-last-does-not-fit"),
        pytest.param([job(6), job(6), job(1)], [0], id="no-overtaking-by-the-small"),
        pytest.param([job(5), job(5), job(1)], [0, 1], id="exactly-full"),
        pytest.param([job(25), job(1)], [0], id="larger-than-a-batch-runs-alone"),
        pytest.param([job(1), job(25)], [0], id="larger-than-a-batch-waits-its-turn"),
        pytest.param([job(key="a"), job(key="b"), job(key="a")], [0], id="keys-never-mix"),
        pytest.param([job(key="b"), job(key="b"), job(key="a")], [0, 1], id="same-keys-meet"),
    ],
)
def test_batch_is_the_head_of_the_queue(queue: list[FakeJob], batch: list[int]) -> None:
    """The oldest jobs of one key that fit leave together, in order of arrival."""
    assert of(decide(queue, NOW, POLICY), queue) == ([], batch)


@pytest.mark.parametrize(
    ("queue", "dropped", "batch"),
    [
        pytest.param([job(done=True), job()], [0], [1], id="cancelled"),
        pytest.param([job(deadline=NOW - 1), job()], [0], [1], id="expired"),
        pytest.param([job(deadline=NOW), job()], [0], [1], id="expiring-now"),
        pytest.param([job(), job(done=True), job()], [1], [0, 2], id="in-the-middle"),
        pytest.param([job(9), job(9, done=True), job(1)], [1], [0, 2], id="takes-no-room"),
        pytest.param([job(), job(key="b", done=True), job()], [1], [0, 2], id="separates-nothing"),
        pytest.param([job(done=True), job(deadline=NOW)], [0, 1], [], id="nothing-left"),
        pytest.param([job(), job(key="b"), job(done=True)], [], [0], id="behind-the-batch-later"),
    ],
)
def test_cancelled_and_expired_never_run(queue: list[FakeJob], dropped: list[int], batch: list[int]) -> None:
    """Jobs that nobody waits for leave without running, and the others run as if those were not there."""
    assert of(decide(queue, NOW, POLICY), queue) == (dropped, batch)


def test_no_delay_holds_nothing() -> None:
    """Without a delay a lone job leaves at once."""
    queue = [job()]
    assert decide(queue, NOW, POLICY) == Decision([], queue, None)


def test_delay_holds_then_releases() -> None:
    """A batch that could grow waits until its oldest job has waited the delay, and not longer."""
    queue = [job(entered=NOW - 2), job(entered=NOW - 1)]
    assert decide(queue, NOW, PATIENT) == Decision([], [], NOW + 3)
    assert decide(queue, NOW + 2.9, PATIENT) == Decision([], [], NOW + 3)
    assert decide(queue, NOW + 3, PATIENT) == Decision([], queue, None)


@pytest.mark.parametrize(
    ("queue", "batch"),
    [
        pytest.param([job(10)], [0], id="full"),
        pytest.param([job(11)], [0], id="larger-than-a-batch"),
        pytest.param([job(9), job(2)], [0], id="the-next-does-not-fit"),
        pytest.param([job(), job(key="b")], [0], id="the-next-has-another-key"),
        pytest.param([job(), job(deadline=NOW + 5)], [0, 1], id="would-expire-while-held"),
    ],
)
def test_delay_holds_nothing_in_vain(queue: list[FakeJob], batch: list[int]) -> None:
    """A batch that cannot grow, or one of whose deadlines comes before its release, leaves at once."""
    assert of(decide(queue, NOW, PATIENT), queue) == ([], batch)


def test_expired_leave_while_others_are_held() -> None:
    """Expired jobs do not wait for the release of the batch behind them, nor shorten its delay."""
    queue = [job(deadline=NOW, entered=NOW - 4), job()]
    assert decide(queue, NOW, PATIENT) == Decision(queue[:1], [], NOW + 5)


@given(queues(), st.sampled_from([POLICY, PATIENT]))
def test_any_queue(queue: list[FakeJob], policy: Policy) -> None:
    """Of any queue, a decision runs a full or growing batch of living jobs of one key, or says when to ask again."""
    decision = decide(queue, NOW, policy)
    dropped, batch = of(decision, queue)
    assert all(queue[i].future.done() or queue[i].deadline <= NOW for i in dropped)
    assert not any(queue[i].future.done() or queue[i].deadline <= NOW for i in batch)
    assert len({queue[i].key for i in batch}) <= 1
    assert len(batch) <= 1 or sum(queue[i].rows for i in batch) <= policy.max_batch_rows
    assert sorted(dropped + batch) == list(range(len(dropped + batch))) or decision.wake_at
    assert dropped or batch or decision.wake_at


@pytest.mark.parametrize(
    ("rows", "row_s", "inline"),
    [
        pytest.param(5, 0.1, True, id="just-short-enough"),
        pytest.param(6, 0.1, False, id="too-long"),
        pytest.param(1, math.inf, False, id="nothing-known"),
    ],
)
def test_short_batch_runs_inline(rows: int, row_s: float, inline: bool) -> None:
    """A batch runs on the event loop when it should be short."""
    assert runs_inline(rows, row_s, INLINE) is inline
    assert not runs_inline(rows, row_s, POLICY)  # which allows no time


@pytest.mark.parametrize(
    ("policy", "row_s", "sizes", "taken"),
    [
        pytest.param(INLINE, 0.1, [2, 3, 1], 2, id="as-long-as-allowed"),
        pytest.param(INLINE, 0.1, [2, 4], 1, id="next-one-too-long"),
        pytest.param(INLINE, 0.1, [8, 1], 1, id="too-long-by-itself"),
        pytest.param(INLINE, 9.0, [1, 1], 1, id="no-row-is-short-enough"),
        pytest.param(INLINE, 0.001, [5, 5, 1], 2, id="never-more-than-a-batch"),
        pytest.param(INLINE, math.inf, [5, 5, 1], 2, id="nothing-known"),
        pytest.param(INLINE, 0.0, [5, 5, 1], 2, id="takes-no-time"),
        pytest.param(POLICY, 0.1, [5, 5, 1], 2, id="not-on-the-event-loop"),
    ],
)
def test_batch_is_as_long_as_the_event_loop_may_run(policy: Policy, row_s: float, sizes: list[int], taken: int) -> None:
    """Where batches may run on the event loop, one has no more jobs than should be done in the time for that."""
    queue = [job(rows) for rows in sizes]
    decision = decide(queue, NOW, policy, row_s)
    assert of(decision, queue) == ([], list(range(taken)))
