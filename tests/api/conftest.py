"""The whole application over ASGI with a fake engine."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.artifact import Feature, Features, Manifest, write_manifest
from service.config import Settings
from service.loading import Opener
from tests.fakes import FakeEngine, probability

Expected: TypeAlias = Callable[[dict[str, Any]], list[float]]

MODEL_HISTORY = 4  # what the model reads of a history; below what a request may hold


@pytest.fixture
def expected() -> Expected:
    """What the fake engine answers to a request body, computed from nothing but the body."""

    def compute(body: dict[str, Any]) -> list[float]:
        history, candidates = body["history"], body["candidates"]
        ids, tags = history["ids"][-MODEL_HISTORY:], history["tags"][-MODEL_HISTORY:]
        pairs = zip(candidates["ids"], candidates["tags"], strict=True)
        return [float(probability(ids, tags, target_id, target_tag)) for target_id, target_tag in pairs]

    return compute


@pytest.fixture
def dtypes() -> tuple[str, str]:
    """Of ids and tags; tests of string models parametrize it."""
    return "int64", "int64"


@pytest.fixture
def manifest(dtypes: tuple[str, str]) -> Manifest:
    """The manifest of the one version there is."""
    kinds = [
        Feature.model_validate({"dtype": dtype, "buckets": 8, "dimension": 2, "max_history": MODEL_HISTORY})
        for dtype in dtypes
    ]
    return Manifest(version="1", created="2026-01-01T00:00:00Z", features=Features(id=kinds[0], tag=kinds[1]))


@pytest.fixture
def model_dir(tmp_path: Path, manifest: Manifest) -> Path:
    """A model folder whose version 1 is a manifest and nothing more."""
    (tmp_path / "din" / "1").mkdir(parents=True)
    write_manifest(tmp_path / "din" / "1", manifest)
    return tmp_path / "din"


@pytest.fixture
def settings(model_dir: Path) -> Settings:
    """Limits small enough to reach, one executor, and a deadline that no test meets by accident."""
    return Settings(
        model_dir=model_dir, max_candidates=8, max_history=6, max_body_bytes=2000, executors=1, deadline_ms=60_000
    )


@pytest.fixture
def engine() -> FakeEngine:
    """The engine behind `app`."""
    return FakeEngine()


@pytest.fixture
def app(settings: Settings, engine: FakeEngine) -> FastAPI:
    """The application, not started."""
    return create_app(settings, Opener(lambda *_: engine))


@pytest.fixture
async def client(app: FastAPI, engine: FakeEngine) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the started application, its model loaded."""
    async with app.router.lifespan_context(app):
        await app.state.service.loaded()
        engine.forget()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
            yield client
        engine.gate.set()  # a test that failed must not leave the executor waiting


class Server(uvicorn.Server):
    """A server in a thread that says when it is ready.

    Args:
        app: what it serves.
        options: of uvicorn.
    """

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_config=None, **options))
        self._app = app
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and wait for the model."""
        await super().startup(sockets)
        await self._app.state.service.loaded()
        self.ready.set()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.servers[0].sockets[0].getsockname()
        return host, port


@pytest.fixture
def options() -> dict[str, Any]:
    """Of uvicorn; tests of sockets choose their protocol."""
    return {"lifespan": "on", "http": "httptools"}


@pytest.fixture
def server(app: FastAPI, engine: FakeEngine, options: dict[str, Any]) -> Iterator[Server]:
    """The application behind uvicorn."""
    server = Server(app, **options)
    thread = threading.Thread(target=server.run)
    thread.start()
    server.ready.wait()
    engine.forget()
    yield server
    engine.gate.set()
    server.should_exit = True
    thread.join()


@pytest.fixture
def good() -> dict[str, Any]:
    """A request body that nothing is wrong with."""
    return {"history": {"ids": [11, 12, 13], "tags": [1, 2]}, "candidates": {"ids": [21, 22, 23], "tags": [3, 4, 5]}}


@pytest.fixture
async def neighbour(
    client: httpx2.AsyncClient,
    engine: FakeEngine,
    good: dict[str, Any],
    expected: Callable[[dict[str, Any]], list[float]],
) -> AsyncIterator[None]:
    """A good request in flight for the length of a test, which must be answered as if it were alone."""
    engine.gate.clear()
    task = asyncio.create_task(client.post("/score", json=good))
    await asyncio.to_thread(engine.entered.acquire)
    yield
    engine.gate.set()
    response = await task
    assert response.status_code == 200
    assert response.json()["probabilities"] == pytest.approx(expected(good), abs=1e-7)


@pytest.fixture
def samples(app: FastAPI) -> Callable[[str], float]:
    """Read a metric of the running application by its exposed name, such as `din_requests_total{code="ok"}`."""

    def read(name: str) -> float:
        text = app.state.service.metrics.exposition("")[0].decode()
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)

    return read
