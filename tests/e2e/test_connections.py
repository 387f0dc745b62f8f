"""Clients that are slow, many, huge or wrong, against a real process with small limits."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import readme
from tests.servers import Server, run_server

MODEL = readme.ROOT / "model_artifacts" / "din"
SCORE = b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
TIMEOUT_S = 0.5
CONNECTIONS = 6

Talk = Callable[..., tuple[bytes, float]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is in a hurry."""
    log = tmp_path_factory.mktemp("connections") / "server.log"
    times: dict[str, Any] = {"header_timeout_s": TIMEOUT_S, "body_timeout_s": TIMEOUT_S, "keep_alive_s": 1}
    with run_server(log, MODEL, max_header_bytes=2000, max_connections=CONNECTIONS, **times) as server:
        yield server
    assert "Traceback" not in log.read_text()


@pytest.fixture
def talk(server: Server) -> Talk:
    """Send pieces on a connection of their own; returns what came until the server closed, and how long that took."""
    return partial(converse, server.port)


def converse(port: int, *pieces: bytes, pause_s: float = 0.0) -> tuple[bytes, float]:
    """Send pieces with pauses between them, and read to the end."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with suppress(BrokenPipeError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    return received, time.monotonic() - started


def refusal(received: bytes) -> tuple[int, str]:
    """Status and code of the last answer, whose headers and body are as they should be."""
    head, _, content = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    body = json.loads(content)
    assert body["request_id"].encode() in head
    return int(head.split()[1]), body["error"]["code"]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        pytest.param([b"GET /health/li"], (408, "request_timeout"), id="headers-stop"),
        pytest.param([b"GET /health HTTP/1.1\r\n", *[b"a: b\r\n"] * 9], (408, "request_timeout"), id="headers-trickle"),
        pytest.param(
            [SCORE + b"Content-Length: 50\r\n\r\n{", *[b" "] * 9], (408, "request_timeout"), id="body-trickles"
        ),
        pytest.param([b"GET / HTTP/1.1\r\na: " + b"x" * 2000 + b"\r\n\r\n"], (431, "headers_too_large"), id="header"),
        pytest.param(
            [b"GET / HTTP/1.1\r\n", *[b"a: %b\r\n" % (b"x" * 700)] * 3], (431, "headers_too_large"), id="headers"
        ),
        pytest.param([b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\n\r\n"], (431, "headers_too_large"), id="path"),
        pytest.param([b"\x16\x03\x01\x02\x00"], (400, "malformed_http"), id="tls"),
        pytest.param([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], (400, "malformed_http"), id="http-2"),
        pytest.param([b"GET /\xff HTTP/1.1\r\n\r\n"], (400, "malformed_http"), id="path-not-ascii"),
        pytest.param([b"CONNECT h:443 HTTP/1.1\r\n\r\n"], (400, "malformed_http"), id="connect"),
        pytest.param([SCORE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], (400, "malformed_http"), id="chunk"),
    ],
)
def test_refusal_has_the_error_body(talk: Talk, pieces: list[bytes], expected: tuple[int, str]) -> None:
    """What is too slow, too long or no HTTP is answered like every other error, and the connection closed soon."""
    received, took_s = talk(*pieces, pause_s=0.1 if len(pieces) > 1 else 0.0)
    assert refusal(received) == expected
    assert took_s < 3


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (SCORE + b"X-Deadline-Ms: 100\r\n", (504, "deadline_exceeded")),
        (SCORE.replace(b"/json", b"/x") + b"Connection: close\r\n", (415, "unsupported_media_type")),
    ],
    ids=["late", "refused"],
)
def test_answer_reaches_who_still_sends(server: Server, head: bytes, expected: tuple[int, str]) -> None:
    """A connection that ends before its request does takes what still comes: no reset overtakes the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: 50000\r\n\r\n{")
        time.sleep(0.3)
        for _ in range(20):
            connection.sendall(b" " * 1000)
            time.sleep(0.01)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert refusal(received) == expected


def test_deadline_comes_first(talk: Talk) -> None:
    """A body that is not there at its deadline is a 504, and the connection, on which the rest may come, is closed."""
    received, took_s = talk(SCORE + b"X-Deadline-Ms: 100\r\nContent-Length: 5\r\n\r\n{")
    assert refusal(received) == (504, "deadline_exceeded")
    assert took_s < TIMEOUT_S


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"], ids=["nothing", "empty-lines"])
def test_silent_connection_is_closed(talk: Talk, sent: bytes) -> None:
    """A connection on which no request begins is closed without a word."""
    received, took_s = talk(sent)
    assert received == b""
    assert TIMEOUT_S <= took_s < 3


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"GET /health HTTP/1.1\r\n", 200), (b"POST /nowhere HTTP/1.1\r\n", 404), (SCORE.replace(b"/json", b"/x"), 415)],
    ids=["health", "nowhere", "refused"],
)
def test_body_that_nobody_reads_holds_nothing(talk: Talk, head: bytes, status: int) -> None:
    """A request that is answered before its body has come does not keep the connection when the body never comes."""
    received, took_s = talk(head + b"Content-Length: 99\r\n\r\n", *[b"x"] * 5, pause_s=0.1)
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1") == 1
    assert took_s < 3


def test_garbage_does_not_harm_what_came_before(talk: Talk) -> None:
    """Requests before the garbage on a connection are answered first, each with its own answer."""
    received, _ = talk(2 * b"GET /nowhere HTTP/1.1\r\n\r\n" + b"garbage\r\n\r\n")
    assert received.count(b"HTTP/1.1 404 ") == 2
    assert refusal(received) == (400, "malformed_http")


@pytest.mark.parametrize("body", [b"", b"{}"], ids=["without-body", "with-body"])
def test_upgrade_is_ignored(talk: Talk, body: bytes) -> None:
    """A request that offers another protocol is answered in this one, and the connection goes on."""
    head = (
        b"POST /nowhere HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n"
    )
    last = b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n"
    received, _ = talk(head % len(body) + body, last, pause_s=0.1)
    assert received.count(b"HTTP/1.1 404 ") == 2
    received, _ = talk(head % len(body) + body + last)
    assert received.count(b"HTTP/1.1 404 ") == 2


def test_trailers_are_no_headers(talk: Talk) -> None:
    """What follows a body in chunks is not taken for the request's headers."""
    chunks = b"2\r\n{}\r\n0\r\nX-Request-Id: smuggled\r\n\r\n"
    received, _ = talk(SCORE + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert received.startswith(b"HTTP/1.1 422 ")
    assert b"smuggled" not in received


def test_endless_trailers_end(talk: Talk) -> None:
    """Chunks with next to nothing in them are not read for ever."""
    received, _ = talk(SCORE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"a: " + b"x" * 5_000_000)
    assert refusal(received) == (431, "headers_too_large")


def test_reader_that_does_not_read_is_cut(server: Server) -> None:
    """A client that asks and asks and takes no answer loses its connection, and with it the server's memory."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(250 * b"GET /openapi.json HTTP/1.1\r\n\r\n")  # more than the system's buffers hold
        server.poll("/metrics", lambda response: 'refused_total{reason="unread"} 1.0' in response.text)
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * 1_000_000)


def test_requests_that_come_at_once_are_bounded(talk: Talk) -> None:
    """Of very many requests in one piece the first are answered, and what is too much is refused."""
    received, _ = talk(1000 * b"GET /nowhere HTTP/1.1\r\n\r\n")
    assert 200 < received.count(b"HTTP/1.1 404 ") < 300
    assert refusal(received) == (503, "overloaded")


def test_too_many_connections_are_refused(server: Server) -> None:
    """Beyond the limit a connection is told to come back later; below it again, it is served."""
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(CONNECTIONS)]
        received, _ = converse(server.port, b"GET /health HTTP/1.1\r\n\r\n")
        assert refusal(received) == (503, "overloaded")
        assert b"retry-after: 1\r\n" in received
        opened[0].close()
        time.sleep(0.1)
        assert httpx2.get(f"{server.url}/health").status_code == 200
        assert f"din_connections {CONNECTIONS}.0" in httpx2.get(f"{server.url}/metrics").text


def test_log_has_no_traceback_and_the_server_still_scores(server: Server) -> None:
    """After all that the server is ready."""
    assert httpx2.get(f"{server.url}/health").json()["status"] == "ok"
    assert Path(server.log).read_text().count("Traceback") == 0
