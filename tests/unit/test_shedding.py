"""What is known of a request before it is parsed, from its bytes."""

import pytest

from service.shedding import Head, read_head

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
