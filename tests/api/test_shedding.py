"""Refusals at the connection: a real server behind uvicorn, whose queue is full while its engine waits at the gate."""

import http.client
import json
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

from service.config import Settings
from service.shedding import Gate, Shedding

Body = dict[str, Any]
Samples = Callable[[str], float]


@pytest.fixture
def access_log() -> float:
    """Share of requests that are logged."""
    return 0.0


@pytest.fixture
def settings(settings: Settings, access_log: float) -> Settings:
    """A queue of eight candidates, which one request fills."""
    return settings.model_copy(update={"max_queue_rows": 8, "access_log": access_log})


@pytest.fixture
def options() -> dict[str, Any]:
    """Our own protocol, and connections that may not be idle for long."""
    return {"http": Shedding, "timeout_keep_alive": 1}


@pytest.fixture
def address(server: Any) -> tuple[str, int]:
    """Where it listens."""
    host, port = server.address
    return host, port


def message(body: Body, *lines: str) -> bytes:
    """A whole request."""
    content = json.dumps(body).encode()
    head = ["POST /score HTTP/1.1", "Host: h", "Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*head, *lines, "", ""]).encode() + content


def answer(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """Read one answer: status, headers, content."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, json.load(response)


@pytest.fixture
def connect(address: tuple[str, int]) -> Iterator[Callable[[], socket.socket]]:
    """Open connections that are closed after the test."""
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        opened.append(socket.create_connection(address, timeout=20))
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


@pytest.fixture
def full(app: FastAPI, engine: Any, good: Body, connect: Callable[[], socket.socket]) -> list[socket.socket]:
    """Two connections whose requests fill executor and queue until the gate opens."""
    eight = good | {"candidates": {"ids": [1] * 8, "tags": [1] * 8}}
    engine.gate.clear()
    inside = [connect(), connect()]
    inside[0].sendall(message(good))
    engine.entered.acquire()
    inside[1].sendall(message(eight))
    while app.state.service.scorer.queue_rows < 8:
        pass  # nothing tells from outside that it has been parsed
    return inside


def test_refusal_is_a_whole_answer(
    full: list[socket.socket], connect: Callable[[], socket.socket], good: Body, engine: Any, samples: Samples
) -> None:
    """A refusal looks like any error, is counted, and leaves its connection usable and the others alone."""
    late = connect()
    for _ in range(3):
        late.sendall(message(good, "X-Request-Id: mine"))
        status, headers, content = answer(late)
        assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "mine")
        assert {"date", "content-type"} <= set(headers)
        assert content["request_id"] == "mine"
        assert content["error"]["code"] == "overloaded"
        assert content["error"]["field"] is None
    assert samples('din_requests_total{code="overloaded"}') == 3
    assert samples('din_shed_total{reason="queue"}') == 3
    assert samples("din_in_flight_requests") == 2
    engine.gate.set()
    assert [answer(each)[0] for each in full] == [200, 200]
    late.sendall(message(good))
    assert answer(late)[0] == 200


@pytest.mark.parametrize("access_log", [1.0])
def test_refusal_at_the_connection_is_counted_and_not_logged(
    full: list[socket.socket],
    connect: Callable[[], socket.socket],
    good: Body,
    engine: Any,
    samples: Samples,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With every request logged, those that are let in have a line, and the others take the short way without one."""
    caplog.set_level(logging.INFO, "service.watch")
    late = connect()
    late.sendall(message(good, "X-Request-Id: late"))
    assert answer(late)[0] == 503
    assert samples('din_shed_total{reason="queue"}') == 1
    engine.gate.set()
    assert [answer(each)[0] for each in full] == [200, 200]
    late.sendall(message(good, "X-Request-Id: last"))
    assert answer(late)[0] == 200
    while len(logged := [vars(each)["fields"] for each in caplog.records if each.name == "service.watch"]) < 3:
        pass  # a line is written when its answer has been sent
    assert [line["code"] for line in logged] == ["ok"] * 3
    assert "late" not in [line["request_id"] for line in logged]


@pytest.mark.usefixtures("full")
def test_what_is_not_plain_is_refused_too(connect: Callable[[], socket.socket], good: Body) -> None:
    """A request that comes in pieces, two at once, or that wants to close takes the normal way to the same refusal."""
    whole = message(good)
    pieces, pair = connect(), connect()
    pieces.sendall(whole[:-5])
    status, headers, content = answer(pieces)  # before the body is read
    assert (status, headers["retry-after"], content["error"]["code"]) == (503, "1", "overloaded")
    pair.sendall(whole + whole)
    with pair.makefile("rb") as received:  # until the idle connection is closed
        assert received.read().count(b"HTTP/1.1 503 ") == 2
    closing = connect()
    closing.sendall(message(good, "Connection: close"))
    assert answer(closing)[0] == 503
    assert closing.recv(1) == b""


def test_who_is_let_in_at_the_connection_is_not_asked_again(
    full: list[socket.socket],
    connect: Callable[[], socket.socket],
    good: Body,
    engine: Any,
    app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plain request is looked at once; one in pieces is when its headers are here, before the rest is read."""
    engine.gate.set()
    assert [answer(each)[0] for each in full] == [200, 200]
    checked: list[bytes] = []
    monkeypatch.setattr(Gate, "check", lambda _, headers, __: checked.append(headers[b"x-request-id"]))
    monkeypatch.setattr(Gate, "pressed", lambda *_: True)
    assert not app.state.service.scorer.busy
    whole, pieces = message(good, "X-Request-Id: whole"), message(good, "X-Request-Id: pieces")
    connection = connect()
    connection.sendall(whole)
    assert answer(connection)[0] == 200
    connection.sendall(pieces[:-5])
    while not checked:
        pass  # the rest would come too early
    connection.sendall(pieces[-5:])
    assert answer(connection)[0] == 200
    assert checked == [b"pieces"]


@pytest.mark.usefixtures("full")
def test_body_that_looks_like_a_request_is_a_body(connect: Callable[[], socket.socket], good: Body) -> None:
    """The rest of a body that another route left unread is never taken for a request, whatever it looks like."""
    connection, inner = connect(), message(good)
    connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(inner))
    assert answer(connection)[0] == 404
    connection.sendall(inner)
    connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n")
    status, _, content = answer(connection)
    assert (status, "uptime_s" in content) == (200, True)


@pytest.mark.usefixtures("full")
def test_refused_connection_is_kept_as_long_as_any(connect: Callable[[], socket.socket], good: Body) -> None:
    """A connection that was only ever refused is closed when it has been idle for the keep-alive time."""
    connection = connect()
    connection.sendall(message(good))
    assert answer(connection)[0] == 503
    assert connection.recv(1) == b""


@pytest.mark.usefixtures("full")
def test_queue_is_in_the_metrics(address: tuple[str, int]) -> None:
    """Candidates that wait and the wait that is predicted are set when the metrics are read."""
    connection = http.client.HTTPConnection(*address, timeout=20)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    assert "\ndin_queue_rows 8.0\n" in text
    assert "\ndin_predicted_wait_seconds 0.0\n" in text  # no batch has ended, so nothing is known
