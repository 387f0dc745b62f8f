"""What only a real server shows: chunked bodies, unread bodies, connections that break."""

import json
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from typing import Any

import pytest
from fastapi import FastAPI

from service.middleware import CLIENT_CLOSED

Connect = Callable[[], HTTPConnection]


@pytest.fixture
def connect(server: Any) -> Iterator[Connect]:
    """Open connections that are closed after the test."""
    opened: list[HTTPConnection] = []

    def open_one() -> HTTPConnection:
        opened.append(HTTPConnection(*server.address))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


def post(connection: HTTPConnection, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """Post to /score and read the answer."""
    connection.request("POST", "/score", body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_connection_outlives_refused_bodies(connect: Connect, good: dict[str, Any]) -> None:
    """A body over the limit, announced or chunked, is refused and the next request on the connection is scored."""
    connection, body = connect(), json.dumps(good).encode()
    for refused in (b" " * 100_000, iter([body, b" " * 100_000])):
        status, answer = post(connection, refused)
        assert (status, answer["error"]["code"]) == (413, "body_too_large")
        assert post(connection, body)[0] == 200


def test_head_is_answered_at_once(connect: Connect, good: dict[str, Any]) -> None:
    """An answer that is a head alone does not wait for the next one, and leaves the connection in order."""
    connection = connect()
    for method in ("HEAD", "GET"):
        connection.request(method, "/health")
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == ((405, False) if method == "HEAD" else (200, True))
    assert post(connection, json.dumps(good))[0] == 200


def test_chunked_body_is_scored(connect: Connect, good: dict[str, Any], expected: Callable[..., list[float]]) -> None:
    """A body in chunks is put together again."""
    body = json.dumps(good).encode()
    status, answer = post(connect(), iter([body[:20], body[20:]]))
    assert status == 200
    assert answer["probabilities"] == pytest.approx(expected(good), abs=1e-7)


def test_body_that_never_comes_is_answered_at_the_deadline(connect: Connect) -> None:
    """A client that announces a body and sends none gets its 504."""
    status, answer = post(connect(), b"", **{"Content-Length": "10", "X-Deadline-Ms": "1"})
    assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")


def test_closed_connection_withdraws_its_request(
    app: FastAPI, connect: Connect, good: dict[str, Any], engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a connection closes, its queued request is never run and its neighbour does not notice."""
    closed, metrics = threading.Event(), app.state.service.metrics
    monkeypatch.setattr(metrics, "request", lambda code, *_: closed.set() if code == CLIENT_CLOSED else None)
    engine.forget()
    engine.gate.clear()
    headers = {"Content-Type": "application/json"}
    staying, leaving = connect(), connect()
    staying.request("POST", "/score", json.dumps(good), headers)
    engine.entered.acquire()
    leaving.request("POST", "/score", json.dumps(good), headers)
    leaving.close()
    assert closed.wait(30)
    engine.gate.set()
    assert staying.getresponse().status == 200
    assert engine.rows == [(3,)]
