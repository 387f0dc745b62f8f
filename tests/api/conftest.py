"""The whole application over ASGI with an engine whose answers betray any mix-up."""

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from service.app import create_app
from service.artifact import Feature, Features, Manifest, write_manifest
from service.batch import Batch, Floats, Sample, pack
from service.config import Settings

Expected: TypeAlias = Callable[[dict[str, Any]], list[float]]

BLOCK = 4  # candidates
MODEL_HISTORY = 4  # what the model reads of a history; below what a request may hold


def probability(ids: Sequence[Any], tags: Sequence[Any], target_id: object, target_tag: object) -> np.float32:
    """The one answer to one candidate of one history: a hash of all of them."""
    return np.float32(zlib.crc32(repr((list(ids), list(tags), target_id, target_tag)).encode()) / 2**32)


class FakeEngine:
    """An engine that hashes instead of scoring; it waits at a gate that tests may close, and fails when told to."""

    name = "fake"
    explains = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.rows: list[tuple[int, ...]] = []

    def pack(self, samples: Sequence[Sample]) -> Batch:
        """Lay out samples in small blocks."""
        return pack(samples, BLOCK)

    def run(self, batch: Batch) -> Floats:
        """Hash each row, padding too."""
        self.entered.release()
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.rows.append(batch.rows)
        return np.array([self._block(batch, k) for k in range(len(batch.block_request))], np.float32)

    def explain(self, batch: Batch) -> tuple[Floats, Floats, Floats]:
        """Hash each row, and pay each element of the history an attention of one part of its length."""
        blocks = batch.target_id.shape
        return self.run(batch), np.full((*blocks, batch.seq_id.shape[1]), 0.25, np.float32), self._tags(batch)

    def warm(self) -> None:
        """Nothing to compile."""

    def close(self) -> None:
        """Nothing to free."""

    def _block(self, batch: Batch, k: int) -> list[np.float32]:
        r = batch.block_request[k]
        ids = _plain(batch.seq_id[r, : batch.seq_id_length[r]])
        tags = _plain(batch.seq_tag[r, : batch.seq_tag_length[r]])
        targets = zip(_plain(batch.target_id[k]), _plain(batch.target_tag[k]), strict=True)
        return [probability(ids, tags, target_id, target_tag) for target_id, target_tag in targets]

    def _tags(self, batch: Batch) -> Floats:
        return np.full((*batch.target_id.shape, batch.seq_tag.shape[1]), 0.5, np.float32)


def _plain(values: NDArray[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]


@pytest.fixture
def anyio_backend() -> str:
    """Only asyncio: uvicorn and the batcher run on nothing else."""
    return "asyncio"


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
    return create_app(settings, lambda *_: engine)


@pytest.fixture
async def client(app: FastAPI, engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the started application, its model loaded."""
    async with app.router.lifespan_context(app):
        await app.state.service.loaded()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client
        engine.gate.set()  # a test that failed must not leave the executor waiting


@pytest.fixture
def good() -> dict[str, Any]:
    """A request body that nothing is wrong with."""
    return {"history": {"ids": [11, 12, 13], "tags": [1, 2]}, "candidates": {"ids": [21, 22, 23], "tags": [3, 4, 5]}}


@pytest.fixture
async def neighbour(
    client: httpx.AsyncClient,
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
