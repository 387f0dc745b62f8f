"""What is known of a request from its bytes, by C and by regular expressions."""

import os
from collections.abc import Callable
from typing import TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.heads import BUILT, Head, match_head, read_head

Read: TypeAlias = Callable[[bytes], Head | None]

EXAMPLES = int(os.environ.get("DIN_TEST_EXAMPLES", "1000"))
NOT_BUILT = pytest.mark.skipif(not BUILT, reason="the reading in C is not built")
BODY = b'{"a": 1}'
USUAL = (b"Host: h", b"Content-Type: application/json", b"Content-Length: 8")


def request(*lines: bytes, line: bytes = b"POST /score HTTP/1.1", body: bytes = BODY) -> bytes:
    """One request as it is received."""
    return b"\r\n".join((line, *lines, b"", body))


@pytest.fixture(params=[pytest.param(read_head, marks=NOT_BUILT, id="c"), pytest.param(match_head, id="python")])
def read(request: pytest.FixtureRequest) -> Read:
    """Each of the two that read."""
    chosen: Read = request.param
    return chosen


@pytest.mark.parametrize(
    ("received", "head"),
    [
        pytest.param(request(*USUAL), (8, None, None), id="usual"),
        pytest.param(request(b"host:h", b"CONTENT-LENGTH:8 "), (8, None, None), id="other-spelling"),
        pytest.param(request(*USUAL, b"Connection: Keep-Alive"), (8, None, None), id="keep-alive"),
        pytest.param(request(*USUAL, b"X-Deadline-Ms: 12.5"), (8, 12.5, None), id="deadline"),
        pytest.param(request(*USUAL, b"x-request-id: Abc"), (8, None, b"Abc"), id="request-id"),
    ],
)
def test_plain_request_is_read(read: Read, received: bytes, head: Head) -> None:
    """Of a plain request the length, the deadline and the request id are known from its headers."""
    assert read(received) == head


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
def test_anything_else_is_left_to_the_parser(read: Read, received: bytes) -> None:
    """What is incomplete, unusual, ambiguous or wrong is not touched."""
    assert read(received) is None


NAMES = st.sampled_from(
    b"Content-Length content-lengtH X-Deadline-Ms X-Request-Id Connection Expect Upgrade Transfer-Encoding Host "
    b"Content-Lengt A-1 A_b \xc3".split(b" ")
)
VALUES = st.sampled_from(
    b"8 08 0 123456789 1234567890 1.5 1. .5 1.123456789 1.1234567890 1..2 -1 1e3 keep-alive Keep-Alive close ~ \t \x7f "
    b"\xff a\rb a\nb".split(b" ")
)
LINES = st.builds(
    lambda name, colon, before, value, after, end: name + colon + before + value + after + end,
    NAMES,
    st.sampled_from([b":", b":", b":", b":", b" :", b""]),
    st.sampled_from([b"", b" ", b"   ", b"\t"]),
    VALUES | st.binary(max_size=4),
    st.sampled_from([b"", b" ", b"  "]),
    st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"", b"\r\n\r\n"]),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Bytes that are a plain request, or not quite."""
    line = draw(st.sampled_from([b"POST /score HTTP/1.1\r\n"] * 8 + [b"POST /score HTTP/1.1\n", b"POST /score"]))
    body = draw(st.binary(max_size=12))
    lines = [b"Content-Length: %d\r\n" % len(body)] if draw(st.booleans()) else []
    lines += draw(st.lists(LINES, max_size=4))
    received = line + b"".join(draw(st.permutations(lines))) + b"\r\n" + body
    return received[: draw(st.integers(0, len(received)))] if draw(st.booleans()) else received


@NOT_BUILT
@settings(max_examples=EXAMPLES, deadline=None)
@given(received=requests() | st.binary(max_size=60))
@example(received=request(*USUAL, b"X-Deadline-Ms: 999999999.999999999"))
@example(received=request(*USUAL, b"X-Request-Id:"))
def test_both_read_alike(received: bytes) -> None:
    """Whatever is received, C says of it what the regular expressions say."""
    assert read_head(received) == match_head(received)


@NOT_BUILT
@pytest.mark.parametrize("given", [None, "POST /score HTTP/1.1", bytearray(b"x"), 1], ids=repr)
def test_what_is_no_bytes_is_an_error(given: object) -> None:
    """Nothing but bytes is read."""
    with pytest.raises(TypeError):
        read_head(given)  # type: ignore[arg-type]
