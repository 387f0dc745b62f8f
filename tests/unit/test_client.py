"""Both clients against a real server that answers as the test says; what they decide by is in test_client_policy."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import numpy as np
import pytest

from service import errors
from service.client import AsyncClient, Client, Overloaded, Scores, TimedOut, UnexpectedAnswer, Unreachable
from service.client.answers import Attention, Check, Feature, Features, Health, LatencyMs, ModelInfo, ModelName
from service.client.errors import REFUSALS, ClientError, InvalidRequest, Refused
from service.errors import RequestError
from service.refusals import STATUS
from service.schema import RESPONSE_EXAMPLE, wire
from tests.servers import free_port

ARGUMENTS: dict[str, Any] = {"history": ([1, 2], [3]), "candidates": ([4, 5], [6, 7])}

Reply: TypeAlias = Callable[["Handler"], None]
Ask: TypeAlias = Callable[..., Any]
Open: TypeAlias = Callable[..., AbstractContextManager[Ask]]


class Scripted(ThreadingHTTPServer):
    """Gives each request the next reply of a script, the last one again and again, and notes what it is asked."""

    daemon_threads = True
    script: list[Reply]
    asked: list[tuple[dict[str, str], Any]]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def seen(self, header: str) -> list[str | None]:
        """What the requests said in a header."""
        return [headers.get(header.lower()) for headers, _ in self.asked]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait for its answer is what some tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Of a scripted server's requests."""

    protocol_version = "HTTP/1.1"
    server: Scripted

    def answer(self) -> None:
        """Note the request and do as the script says."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        number = len(self.server.asked)
        self.server.asked.append(({k.lower(): v for k, v in self.headers.items()}, body and json.loads(body)))
        self.server.script[min(number, len(self.server.script) - 1)](self)

    do_GET = do_POST = answer  # noqa: N815  the base class looks for these

    def say(self, status: int, content: bytes, **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class has this name
        """Say nothing."""


def good(handler: Handler) -> None:
    """Answer as the server would."""
    handler.say(200, json.dumps({**RESPONSE_EXAMPLE, "of_a_later_version": 1}).encode())


def refuse(code: str, status: int, **headers: str) -> Reply:
    """Refuse as the server would."""
    error = {"code": code, "message": "no", "field": "history.ids[0]"}
    content = json.dumps({"error": error, "request_id": "r1"}).encode()
    return lambda handler: handler.say(status, content, **headers)


def drop(handler: Handler) -> None:
    """Close the connection instead."""
    handler.close_connection = True
    handler.connection.close()


def hang(handler: Handler) -> None:
    """Answer long after every deadline."""
    time.sleep(1)
    good(handler)


def drip(handler: Handler) -> None:
    """Answer a byte at a time."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server that answers well, unless told otherwise."""
    with Scripted(("127.0.0.1", 0), Handler) as server:
        server.script, server.asked = [good], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def for_threads(url: str, **options: Any) -> Iterator[Ask]:
    """A client for threads: `ask("score", ...)`."""
    with Client(url, **options) as client:
        yield lambda method, **arguments: getattr(client, method)(**arguments)


@contextmanager
def for_coroutines(url: str, **options: Any) -> Iterator[Ask]:
    """The same with the client for asyncio."""
    with asyncio.Runner() as runner:
        client = AsyncClient(url, **options)
        runner.run(client.__aenter__())
        yield lambda method, **arguments: runner.run(getattr(client, method)(**arguments))
        runner.run(client.__aexit__(None, None, None))


@pytest.fixture(params=[for_threads, for_coroutines], ids=["threads", "asyncio"])
def client(request: pytest.FixtureRequest) -> Open:
    """Each of the two clients."""
    opened: Open = request.param
    return opened


def test_scores_are_typed(server: Scripted, client: Open) -> None:
    """A score is sent in the server's form, and its answer has names; what is not known of it is left out."""
    with client(server.url) as ask:
        scores = ask("score", **ARGUMENTS, top_k=1)
    assert isinstance(scores, Scores)
    assert (scores.probabilities, scores.ranking, scores.version) == ((0.41, 0.77), (1,), "1")
    assert server.asked[0][1] == {
        "history": {"ids": [1, 2], "tags": [3]},
        "candidates": {"ids": [4, 5], "tags": [6, 7]},
        "top_k": 1,
    }


def test_tags_may_be_left_out(server: Scripted, client: Open) -> None:
    """Tags of None are not sent, so that a catalog can know them; columns may be arrays or text."""
    with client(server.url) as ask:
        ask("score", history=(np.array([1, 2]), None), candidates=(["a", "b"], None), explain=True)
    assert server.asked[0][1] == {"history": {"ids": [1, 2]}, "candidates": {"ids": ["a", "b"]}, "explain": True}


def test_headers_go_along(server: Scripted, client: Open) -> None:
    """Token, trace context and the caller's own request id arrive, and the deadline is what the call has left."""
    with client(server.url, token="sixteen-letters-or-more", timeout_s=5) as ask:  # noqa: S106  nobody's
        ask("score", **ARGUMENTS, headers={"traceparent": "00-1-2-01", "x-request-id": "mine"})
    headers, _ = server.asked[0]
    assert headers["authorization"] == "Bearer sixteen-letters-or-more"
    assert (headers["traceparent"], headers["x-request-id"]) == ("00-1-2-01", "mine")
    assert 4000 < float(headers["x-deadline-ms"]) <= 5000


@pytest.mark.parametrize(
    "reply", [drop, refuse("overloaded", 503), refuse("not_ready", 503)], ids=["lost", "overloaded", "not-ready"]
)
def test_attempts_of_a_call_are_one_request(server: Scripted, client: Open, reply: Reply) -> None:
    """A retry has the request id of the first attempt, and less time."""
    server.script = [reply, good]
    with client(server.url) as ask:
        assert ask("score", **ARGUMENTS).version == "1"
    first, second = server.seen("X-Request-Id")
    assert first == second
    assert first
    early, late = map(float, filter(None, server.seen("X-Deadline-Ms")))
    assert late < early <= 1000


def test_retry_after_beyond_the_deadline_is_told_at_once(server: Scripted, client: Open) -> None:
    """A refusal that asks for more time than there is becomes the caller's, with when to come back."""
    server.script = [refuse("overloaded", 503, Retry_After="3")]
    with client(server.url) as ask, pytest.raises(Overloaded) as caught:
        ask("score", **ARGUMENTS)
    assert len(server.asked) == 1
    error = caught.value
    assert (error.code, error.message, error.field) == ("overloaded", "no", "history.ids[0]")
    assert (error.request_id, error.status, error.retry_after_s) == ("r1", 503, 3.0)


@pytest.mark.parametrize("reply", [hang, drip])
def test_timeout_bounds_the_call(server: Scripted, client: Open, reply: Reply) -> None:
    """A server that says nothing, or says it in drops, is waited for as long as the call may take."""
    server.script = [reply]
    with client(server.url) as ask:
        began = time.monotonic()
        with pytest.raises(TimedOut, match=r"no answer in 0\.1 s"):
            ask("score", **ARGUMENTS, timeout_s=0.1)
        assert 0.1 <= time.monotonic() - began < 0.6


def test_hedge_answers_for_a_slow_attempt(server: Scripted, client: Open) -> None:
    """When the first attempt hangs, the second one's answer is the call's, long before the first would end."""
    server.script = [hang, good]
    with client(server.url, hedge_s=0.02, timeout_s=0.8) as ask:
        began = time.monotonic()
        assert ask("score", **ARGUMENTS).version == "1"
        assert time.monotonic() - began < 0.5
    assert len(set(server.seen("X-Request-Id"))) == 1


def test_hedge_is_not_sent_for_a_fast_answer(server: Scripted, client: Open) -> None:
    """An answer in time leaves the hedge unsent."""
    with client(server.url, hedge_s=0.5, timeout_s=2) as ask:
        ask("score", **ARGUMENTS)
    assert len(server.asked) == 1


def test_nobody_there_is_unreachable(client: Open) -> None:
    """A port that nobody listens on is an error that names the server, when the retries are used up."""
    url = f"http://127.0.0.1:{free_port()}"
    with client(url) as ask, pytest.raises(Unreachable, match=url):
        ask("score", **ARGUMENTS)


@pytest.mark.parametrize("content", [b"<html>", b"{}", b"[]", b'{"error": 1}'])
@pytest.mark.parametrize("status", [200, 404])
def test_somebody_else_is_unexpected(server: Scripted, client: Open, status: int, content: bytes) -> None:
    """What is no answer of a dinserve says so, with its status."""
    server.script = [lambda handler: handler.say(status, content)]
    with client(server.url) as ask, pytest.raises(UnexpectedAnswer) as caught:
        ask("score", **ARGUMENTS)
    assert caught.value.status == status


def test_health_that_is_bad_is_an_answer(server: Scripted, client: Open) -> None:
    """A server that is not ready is a health, not an error."""
    check = {"model": {"ok": False, "detail": "reading"}}
    body = {"status": "loading", "model": None, "version": None, "engine": None, "uptime_s": 1.5, "checks": check}
    server.script = [lambda handler: handler.say(503, json.dumps(body).encode())]
    with client(server.url) as ask:
        health = ask("health")
    assert (health.ready, health.checks["model"].detail) == (False, "reading")


@pytest.mark.parametrize("error", RequestError.__subclasses__(), ids=lambda error: error.code)
def test_every_code_has_its_exception(server: Scripted, error: type[RequestError]) -> None:
    """The exception of a code is named as the server's, and is what a caller of either client catches."""
    server.script = [refuse(error.code, STATUS[error])]
    with Client(server.url, retries=0) as client, pytest.raises(Refused) as caught:
        client.score(**ARGUMENTS)
    assert type(caught.value) is REFUSALS[error.code]
    assert type(caught.value).__name__ == error.__name__
    assert caught.value.code == error.code
    assert isinstance(caught.value, ClientError)


def test_no_code_is_left_over() -> None:
    """The client knows no code that the server does not have."""
    assert set(REFUSALS) == {error.code for error in errors.RequestError.__subclasses__()}


def test_unknown_code_is_a_refusal(server: Scripted) -> None:
    """A code of a later version is a `Refused` with that code."""
    server.script = [refuse("of_a_later_version", 418)]
    with Client(server.url) as client, pytest.raises(Refused, match="of_a_later_version: history") as caught:
        client.score(**ARGUMENTS)
    assert (type(caught.value), caught.value.status) == (Refused, 418)


def test_wrong_values_are_told_by_place(server: Scripted) -> None:
    """What JSON can carry is for the server to judge, and its field comes back; what it cannot carry is a TypeError."""
    server.script = [refuse("invalid_request", 422)]
    with Client(server.url) as client:
        with pytest.raises(InvalidRequest, match=r"history\.ids\[0\]"):
            client.score(([1.5], [2]), ([3], [4]))  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            client.score(([2**64], [2]), ([3], [4]))


@pytest.mark.parametrize(
    "options",
    [{"url": "127.0.0.1:8000"}, {"url": ""}, {"url": "http://a", "token": "a\nb"}, {"url": "http://a", "retries": -1}],
    ids=["no-scheme", "empty", "token", "retries"],
)
def test_wrong_option_is_refused(options: dict[str, Any]) -> None:
    """An option that makes no sense is an error when the client is made."""
    with pytest.raises(ValueError, match=r"must|not the URL"):
        Client(**options)


def test_threads_share_a_client(server: Scripted) -> None:
    """Calls from several threads are answered over the connections of one client."""
    with Client(server.url, connections=2, timeout_s=10) as client:
        threads = [threading.Thread(target=client.score, kwargs=ARGUMENTS) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.asked) == 8


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Scores, wire.ScoreResponse),
        (Attention, wire.Attention),
        (LatencyMs, wire.LatencyMs),
        (ModelName, wire.ModelName),
        (Health, wire.HealthResponse),
        (Check, wire.Check),
    ],
    ids=lambda model: model.__name__,
)
def test_answers_have_the_wires_fields(ours: Any, theirs: Any) -> None:
    """The client's answers have every field that the server documents."""
    assert set(theirs.model_fields) <= set(ours.model_fields)


def test_model_is_part_of_the_manifest() -> None:
    """What the client tells of the model are fields of GET /model."""
    manifest = wire.ModelResponse.model_fields
    assert set(ModelInfo.model_fields) <= set(manifest)
    assert set(Features.model_fields) == {"id", "tag"}
    assert set(Feature.model_fields) == {"dtype", "max_history"}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(
            "import service.client, sys\n"
            "print({'fastapi', 'starlette', 'uvicorn', 'tensorflow', 'numpy', 'prometheus_client'} & set(sys.modules))",
            "set()",
            id="light",
        ),
        pytest.param(
            "import sys\nsys.modules['httpx2'] = None\ntry:\n    import service.client\n"
            "except ImportError as error:\n    print(error)",
            "service.client needs httpx2: pip install 'dinserve[client]'",
            id="missing",
        ),
    ],
)
def test_import_is_light(code: str, expected: str) -> None:
    """Importing the client loads nothing of the server, and says which extra it needs where that is missing."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
