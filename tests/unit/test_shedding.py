"""What is known of a request before it is parsed, from its bytes."""

import time

import pytest
from prometheus_client import CollectorRegistry

from service.metrics import Metrics
from service.release import Policy
from service.scorer import Scorer
from service.shedding import Gate, Head, read_head

BODY = b'{"a": 1}'
USUAL = (b"Host: h", b"Content-Type: application/json", b"Content-Length: 8")


def request(*lines: bytes, line: bytes = b"POST /score HTTP/1.1", body: bytes = BODY) -> bytes:
    """One request as it is received."""
    return b"\r\n".join((line, *lines, b"", body))


@pytest.mark.parametrize(
    ("received", "head"),
    [
        pytest.param(request(*USUAL), Head(8, None, None), id="usual"),
        pytest.param(request(b"host:h", b"CONTENT-LENGTH:8 "), Head(8, None, None), id="other-spelling"),
        pytest.param(request(*USUAL, b"Connection: Keep-Alive"), Head(8, None, None), id="keep-alive"),
        pytest.param(request(*USUAL, b"X-Deadline-Ms: 12.5"), Head(8, 12.5, None), id="deadline"),
        pytest.param(request(*USUAL, b"x-request-id: Abc"), Head(8, None, b"Abc"), id="request-id"),
    ],
)
def test_plain_request_is_read(received: bytes, head: Head) -> None:
    """Of a plain request the length, the deadline and the request id are known from its headers."""
    assert read_head(received) == head


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(request(*USUAL, line=b"GET /score HTTP/1.1"), id="another-method"),
        pytest.param(request(*USUAL, line=b"POST /score/ HTTP/1.1"), id="another-path"),
        pytest.param(request(*USUAL, line=b"POST /score?x=1 HTTP/1.1"), id="query"),
        pytest.param(request(*USUAL, line=b"POST /score HTTP/1.0"), id="another-protocol"),
        pytest.param(b"\r\n" + request(*USUAL), id="empty-line-before"),
        pytest.param(request(*USUAL)[:-1], id="body-not-complete"),
        pytest.param(request(*USUAL)[:60], id="headers-not-complete"),
        pytest.param(request(*USUAL) + b"P", id="next-request-begins"),
        pytest.param(request(*USUAL, body=BODY + request(*USUAL)), id="pipelined"),
        pytest.param(request(b"Host: h"), id="no-length"),
        pytest.param(request(b"Content-Length: 8", b"Content-Length: 8"), id="two-lengths"),
        pytest.param(request(b"Content-Length: 8", b"content-length: 9"), id="two-different-lengths"),
        pytest.param(request(b"Content-Length: +8"), id="signed-length"),
        pytest.param(request(b"Content-Length: 8, 8"), id="length-list"),
        pytest.param(request(b"Content-Length: " + b"8" * 5000), id="endless-length"),
        pytest.param(request(*USUAL, b"Transfer-Encoding: chunked"), id="chunked"),
        pytest.param(request(*USUAL, b"Expect: 100-continue"), id="expects-continue"),
        pytest.param(request(*USUAL, b"Upgrade: h2c", b"Connection: upgrade"), id="upgrade"),
        pytest.param(request(*USUAL, b"Connection: close"), id="closing"),
        pytest.param(request(*USUAL, b"X-Deadline-Ms: soon"), id="deadline-no-number"),
        pytest.param(request(*USUAL, b"X-Deadline-Ms: -1"), id="deadline-negative"),
        pytest.param(request(*USUAL, b" folded"), id="folded-line"),
        pytest.param(request(*USUAL, b"Transfer-Encoding : chunked"), id="space-before-the-colon"),
        pytest.param(request(*USUAL, b"A: b\nTransfer-Encoding: chunked"), id="bare-line-feed"),
        pytest.param(request(*USUAL, b"A: \xff"), id="no-ascii"),
    ],
)
def test_anything_else_is_left_to_the_parser(received: bytes) -> None:
    """What is incomplete, unusual, ambiguous or wrong is not touched."""
    assert read_head(received) is None


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
    assert refused(gate, Head(200, None, None), now)  # ten candidates, which makes 0.6 s where 0.55 are promised
    scorer._batcher._admission.waiting = 0
    scorer._batcher._admission.running = 1
    assert refused(gate, Head(200, None, None), now + 0.0005)
    assert not refused(gate, Head(180, None, None), now + 0.0005)
    assert not refused(gate, Head(200, 1375.0, None), now + 0.0005)
    assert not refused(gate, Head(200, None, None), now + 0.0015)


@pytest.mark.anyio
async def test_own_deadline_decides(gate: Gate) -> None:
    """Behind the same queue a request with more time is let in, and one with less is refused."""
    now = time.monotonic()
    assert not refused(gate, Head(20, 5000.0, None), now)
    assert refused(gate, Head(20, 500.0, None), now)
    assert not refused(gate, Head(20, None, None), now)


def test_candidates_are_guessed_from_bytes(gate: Gate) -> None:
    """A body is taken to ask about as many candidates as others of its length did, from one to the most allowed."""
    assert [gate.guess_rows(size) for size in (0, 20, 210, 10**9)] == [1, 1, 10, 50]
    assert Gate(Scorer(Policy(10, 100), 1, lambda *_: None), Metrics(CollectorRegistry()), 1.0, 50).guess_rows(999) == 1
