"""Good requests that cannot be scored: overload, deadlines, no model, defects, and clients that leave."""

import asyncio
import gc
import json
import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from service.app import create_app
from service.config import Settings
from service.connection import read_body, while_connected
from service.errors import ArtifactError, DeadlineExceeded, RequestError
from service.loading import Opener

pytestmark = pytest.mark.anyio

Body = dict[str, Any]
Samples = Callable[[str], float]
REASON = "do-not-tell-clients"
FAILED = "the server failed on this request; its log has the details under the request id"


def error_of(response: httpx2.Response) -> tuple[int, str, str | None]:
    """Status, code and Retry-After of an answer."""
    return response.status_code, response.json()["error"]["code"], response.headers.get("retry-after")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A queue that one more request of eight candidates fills."""
    return settings.model_copy(update={"max_queue_rows": 8})


async def fill_queue(app: FastAPI, client: httpx2.AsyncClient, good: Body) -> "asyncio.Task[httpx2.Response]":
    """Send a request that waits in the queue and leaves no room there."""
    full = good | {"candidates": {"ids": [1] * 8, "tags": [1] * 8}}
    inside = asyncio.create_task(client.post("/score", json=full))
    while "(8 rows)" not in app.state.service.scorer.state:  # noqa: ASYNC110 - the queue has no event
        await asyncio.sleep(0)
    return inside


@pytest.mark.usefixtures("neighbour")
async def test_full_queue_refuses_at_once(app: FastAPI, client: httpx2.AsyncClient, good: Body, engine: Any) -> None:
    """With the queue full a request is told to come back, while those inside are answered."""
    inside = await fill_queue(app, client, good)
    assert error_of(await client.post("/score", json=good)) == (503, "overloaded", "1")
    engine.gate.set()
    assert (await inside).status_code == 200


@pytest.mark.usefixtures("neighbour", "no_collector")
async def test_refused_requests_leave_no_cycles(app: FastAPI, client: httpx2.AsyncClient, good: Body) -> None:
    """What a refusal held is gone with its answer: under overload the collector would be at work all the time."""
    inside = await fill_queue(app, client, good)
    before = sum(isinstance(each, RequestError) for each in gc.get_objects())
    statuses = [(await client.post("/score", json=good)).status_code for _ in range(10)]
    statuses += [(await client.post("/score", json={})).status_code for _ in range(10)]
    inside.cancel()
    after = sum(isinstance(each, RequestError) for each in gc.get_objects())
    assert (statuses, after) == ([503] * 20, before)


@pytest.mark.usefixtures("neighbour")
async def test_deadline_ends_the_wait(client: httpx2.AsyncClient, good: Body, samples: Samples) -> None:
    """A request whose own deadline passes in the queue is answered then, without being run."""
    response = await client.post("/score", json=good, headers={"X-Deadline-Ms": "0.5"})
    assert error_of(response) == (504, "deadline_exceeded", None)
    assert samples('din_requests_total{code="deadline_exceeded"}') == 1


async def test_long_deadlines_are_harmless(client: httpx2.AsyncClient, good: Body) -> None:
    """A deadline beyond what timers can hold is cut to a day."""
    assert (await client.post("/score", json=good, headers={"X-Deadline-Ms": "1e300"})).status_code == 200


async def test_failing_engine_is_a_bland_error(
    client: httpx2.AsyncClient, good: Body, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An engine's exception reaches the log with the request id, not the client, and the next request works."""
    engine.failure = ValueError(REASON)
    response = await client.post("/score", json=good, headers={"X-Request-Id": "abc"})
    assert error_of(response) == (500, "internal", None)
    assert response.json()["error"]["message"] == FAILED
    assert "abc" in [vars(record).get("fields", {}).get("request_id") for record in caplog.records]
    assert REASON in caplog.text
    engine.failure = None
    assert (await client.post("/score", json=good)).status_code == 200


@pytest.mark.parametrize("path", ["/score", "/model"])
async def test_defect_is_a_bland_error(
    app: FastAPI, client: httpx2.AsyncClient, good: Body, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """A defect of ours is logged with its traceback and the request id, on every route, and told to nobody."""

    def fail(*_: object) -> None:
        raise RuntimeError(REASON)

    app.state.service.serving = fail
    response = await client.request("POST" if path == "/score" else "GET", path, json=good)
    assert error_of(response) == (500, "internal", None)
    assert REASON not in response.text
    assert REASON in caplog.text
    (said,) = [record for record in caplog.records if record.message == "the request failed"]
    assert vars(said)["fields"] == {"request_id": response.headers["x-request-id"]}


async def test_loading_model_is_not_ready(app: FastAPI, engine: Any, good: Body, samples: Samples) -> None:
    """Before the model is loaded the service listens, lives, and says that it is loading."""
    loading = asyncio.Event()
    app.state.service.registry.start = loading.wait
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client,
    ):
        assert error_of(await client.post("/score", json=good)) == (503, "not_ready", "1")
        assert error_of(await client.get("/model")) == (503, "not_ready", "1")
        ready, live = await client.get("/health/ready"), await client.get("/health/live")
        assert (ready.status_code, ready.json()["status"], ready.headers["retry-after"]) == (503, "loading", "1")
        assert live.status_code == 200
        assert samples('din_requests_total{code="not_ready"}') == 2
        loading.set()


@pytest.mark.parametrize("error", [ArtifactError("broken"), RuntimeError("broken")], ids=["artifact", "defect"])
async def test_failed_load_is_not_ready(settings: Settings, good: Body, error: Exception) -> None:
    """A model that cannot be loaded leaves the service alive and not ready."""

    def load(*_: object) -> Any:
        raise error

    app = create_app(settings, Opener(load))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client,
    ):
        await app.state.service.loaded()
        assert error_of(await client.post("/score", json=good)) == (503, "not_ready", "1")
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "failed")
        assert health.json()["checks"]["model"]["ok"] is False
        assert (await client.get("/health/live")).status_code == 200


async def test_stopped_service_is_draining(app: FastAPI, client: httpx2.AsyncClient, good: Body) -> None:
    """A service that stops refuses what is new and says that it is draining."""
    await app.state.service.stop()
    assert error_of(await client.post("/score", json=good)) == (503, "not_ready", "1")
    assert (await client.get("/health")).json()["status"] == "draining"


async def test_stop_finishes_what_is_in_flight(
    app: FastAPI, client: httpx2.AsyncClient, good: Body, engine: Any
) -> None:
    """A request that runs when the service stops is still answered."""
    engine.gate.clear()
    inside = asyncio.create_task(client.post("/score", json=good))
    await asyncio.to_thread(engine.entered.acquire)
    stopping = asyncio.create_task(app.state.service.stop())
    await asyncio.to_thread(engine.gate.set)
    await stopping
    assert (await inside).status_code == 200


async def test_stop_cuts_what_outlives_the_grace(settings: Settings, engine: Any, good: Body) -> None:
    """A request that outlives the grace period is refused."""
    app = create_app(settings.model_copy(update={"grace_s": 0}), Opener(lambda *_: engine))
    async with app.router.lifespan_context(app):
        await app.state.service.loaded()
        engine.forget()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
            engine.gate.clear()
            inside = asyncio.create_task(client.post("/score", json=good))
            await asyncio.to_thread(engine.entered.acquire)
            await app.state.service.stop()
            assert error_of(await inside) == (503, "not_ready", "1")
            engine.gate.set()


async def hanging() -> Any:
    """Receive from a client that sends nothing and stays."""
    await asyncio.Event().wait()


async def test_body_that_never_comes_meets_the_deadline() -> None:
    """A client that announces a body and sends none gets an answer at its deadline."""
    with pytest.raises(DeadlineExceeded):
        await read_body(hanging, time.monotonic())


async def test_cancelled_work_stays_cancelled() -> None:
    """Cancellation from elsewhere, such as shutdown, is not mistaken for a client that left."""
    task = asyncio.create_task(while_connected(hanging, hanging()))
    await asyncio.sleep(0)  # lets it start
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("path", ["/score", "/ctr/score"])
@pytest.mark.parametrize("complete", [pytest.param(False, id="while-reading"), pytest.param(True, id="while-scoring")])
@pytest.mark.usefixtures("neighbour")
async def test_client_that_leaves_is_not_scored(
    app: FastAPI,
    samples: Samples,
    engine: Any,
    caplog: pytest.LogCaptureFixture,
    path: str,
    complete: bool,
) -> None:
    """When the client leaves, its work is dropped before it runs, counted, and no traceback is logged."""
    body = b'{"history": {"ids": [], "tags": []}, "candidates": {"ids": [1], "tags": [1]}}'
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": body, "more_body": not complete},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: object) -> None:
        """The connection is gone."""

    headers = [(b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": path.removesuffix("/score"),
        "headers": headers,
        "query_string": b"",
    }
    await app(scope, receive, send)
    assert samples('din_requests_total{code="client_closed"}') == 1
    assert samples("din_in_flight_requests") == 1  # the neighbour
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert engine.rows == []  # the neighbour is still held, and nothing else has run


async def test_client_that_leaves_as_its_answer_arrives_changes_nothing() -> None:
    """A disconnect that comes together with the answer neither loses the answer nor cancels what follows."""
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def work() -> int:
        left.set()
        return 1

    assert await while_connected(receive, work()) == 1
    for _ in range(5):  # a late cancellation would arrive here
        await asyncio.sleep(0)


async def test_disconnect_is_told_from_other_messages() -> None:
    """Only a disconnect cancels the work; whatever else a server sends is passed over."""
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    with pytest.raises(ClientDisconnect):
        await while_connected(receive, hanging())
    assert messages == []


async def test_answer_that_breaks_off_is_raised(app: FastAPI, client: httpx2.AsyncClient, good: Body) -> None:
    """An exception after the answer has started goes to the server, which closes the connection."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(good).encode()}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise OSError(REASON)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/score", "headers": headers, "query_string": b""}
    with pytest.raises(OSError, match=REASON):
        await app(scope, receive, send)
    assert sent == ["http.response.start", "http.response.body"]


async def test_websocket_is_not_our_business(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """What is not HTTP passes the edge untouched and is refused by the router."""
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    await app({"type": "websocket", "path": "/score", "headers": [], "query_string": b""}, receive, send)
    assert sent == ["websocket.close"]
