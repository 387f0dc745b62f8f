"""Who is not let in, by what is known of a request before it is parsed."""

import time

import pytest
from prometheus_client import CollectorRegistry

from service.heads import Head
from service.metrics import Metrics
from service.release import Policy
from service.scorer import Scorer
from service.shedding import Gate


@pytest.fixture
def scorer() -> Scorer:
    """One executor and a queue of 100 candidates, half full, at a pace of 10 ms a candidate."""
    scorer = Scorer(Policy(10, 100), 1, lambda *_: None)
    admission = scorer._batcher._admission
    admission.ran(10, 0.1, 0.1)
    admission.waiting = 50
    return scorer


@pytest.fixture
def gate(scorer: Scorer) -> Gate:
    """In front of `scorer`; it knows that a candidate takes 20 bytes and that deadlines are 1.375 s away."""
    gate = Gate(scorer, Metrics(CollectorRegistry()), 1375.0, 50)
    gate.learn(10, 200)
    return gate


def refused(gate: Gate, head: Head, now: float) -> bool:
    """Whether a request of such a head is refused."""
    return gate.refuse(head, now, [(b"date", b"today")]) is not None


@pytest.mark.anyio
async def test_refusal_holds_for_a_moment(gate: Gate, scorer: Scorer) -> None:
    """A refusal is given again, within a millisecond, to requests as large that say nothing of their time, only."""
    now = time.monotonic()
    assert refused(gate, (200, None, None), now)  # ten candidates, which makes 0.6 s where 0.55 are promised
    scorer._batcher._admission.waiting = 0
    scorer._batcher._admission.running = 1
    assert refused(gate, (200, None, None), now + 0.0005)
    assert not refused(gate, (180, None, None), now + 0.0005)
    assert not refused(gate, (200, 1375.0, None), now + 0.0005)
    assert not refused(gate, (200, None, None), now + 0.0015)


@pytest.mark.anyio
async def test_no_more_are_let_in_than_there_is_room_for(gate: Gate, scorer: Scorer) -> None:
    """What was let in a moment ago counts, whether or not the event loop has turned; what has left since does not."""
    admission = scorer._batcher._admission
    admission.waiting = 45  # ten more are in time
    now = time.monotonic()
    assert [refused(gate, (60, None, None), now) for _ in range(5)] == [False, False, False, True, True]
    assert admission.coming == 9
    admission.coming, admission.waiting = 0, 54  # the loop has turned
    assert refused(gate, (60, None, None), now + 0.0005)
    admission.waiting = 45
    assert not refused(gate, (60, None, None), now + 0.0015)


@pytest.mark.anyio
async def test_body_too_long_counts_as_the_longest_allowed(scorer: Scorer) -> None:
    """However many bytes come in, no more candidates are expected than a request may have."""
    scorer._batcher._admission.waiting = 0
    gate = Gate(scorer, Metrics(CollectorRegistry()), 60_000.0, 50)
    gate.learn(10, 200)
    assert not refused(gate, (1_800, None, None), time.monotonic())
    assert scorer._batcher._admission.coming == 50


@pytest.mark.anyio
async def test_empty_body_is_no_reason(scorer: Scorer) -> None:
    """A body without a byte, before anything is known of bodies, is for the parser to refuse."""
    gate = Gate(scorer, Metrics(CollectorRegistry()), 60_000.0, 50)
    assert not refused(gate, (0, None, None), time.monotonic())


@pytest.mark.anyio
async def test_own_deadline_decides(gate: Gate) -> None:
    """Behind the same queue a request with more time is let in, and one with less is refused."""
    now = time.monotonic()
    assert not refused(gate, (20, 5000.0, None), now)
    assert refused(gate, (20, 500.0, None), now)
    assert not refused(gate, (20, None, None), now)


def test_candidates_are_guessed_from_bytes(gate: Gate) -> None:
    """A body is taken to ask about as many candidates as others of its length did, from one to the most allowed."""
    assert [gate.guess_rows(size) for size in (0, 20, 210, 10**9)] == [1, 1, 10, 50]
    assert Gate(Scorer(Policy(10, 100), 1, lambda *_: None), Metrics(CollectorRegistry()), 1.0, 50).guess_rows(999) == 1
