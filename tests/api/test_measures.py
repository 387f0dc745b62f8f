"""What GET /metrics tells of requests, of the ids in them and of the version that scores them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI

from service.artifact import read_manifest, write_manifest
from service.drift import BOUNDS, Scores
from service.seen import make_seen, write_seen
from tests.fakes import FakeEngine

pytestmark = pytest.mark.anyio

Body = dict[str, Any]
Samples = Callable[[str], float]


@pytest.fixture
def known() -> list[Any]:
    """The ids that training met."""
    return [11, 12, 21]


@pytest.fixture
def bounds() -> tuple[float, ...]:
    """Of the bins in which training counted its scores."""
    return BOUNDS


@pytest.fixture
def model_dir(model_dir: Path, known: list[Any], bounds: tuple[float, ...]) -> Path:
    """The version, with what training exports."""
    ids = np.array([each.encode() if isinstance(each, str) else each for each in known])
    made = make_seen(ids.astype(object) if ids.dtype.kind == "S" else ids, 1e-9)
    write_seen(model_dir / "1", made)
    shares = (1 / len(bounds),) * len(bounds)
    more = {"seen": made.seen, "scores": Scores(bounds=bounds, shares=shares, rows=10, clicks=0.25)}
    write_manifest(model_dir / "1", read_manifest(model_dir / "1").model_copy(update=more))
    return model_dir


async def test_requests_show_their_shape(client: httpx2.AsyncClient, good: Body, samples: Samples) -> None:
    """Candidates and history are observed as sent, the history that the model cuts included; bad requests are not."""
    long = good | {"history": {"ids": [1, 2, 3, 4, 5, 6], "tags": []}}
    assert (await client.post("/score", json=good)).status_code == 200
    assert (await client.post("/score", json=long)).status_code == 200
    assert (await client.post("/score", json=good | {"candidates": {"ids": [], "tags": []}})).status_code == 422
    assert (samples("din_request_candidates_count"), samples("din_request_candidates_sum")) == (2, 6)
    assert samples('din_history_length_sum{sequence="ids"}') == 3 + 6
    assert samples('din_history_length_sum{sequence="tags"}') == 2 + 0


@pytest.mark.parametrize(
    ("dtypes", "known"),
    [
        pytest.param(("int64", "int64"), [11, 12, 21], id="numbers"),
        pytest.param(("string", "int64"), ["11", "12", "21"], id="strings"),
    ],
)
async def test_unseen_ids_are_counted(
    client: httpx2.AsyncClient, good: Body, samples: Samples, dtypes: tuple[str, str]
) -> None:
    """Ids that training never met are counted by part, once for the requests of one moment."""
    if dtypes[0] == "string":
        for part in good.values():
            part["ids"] = [str(each) for each in part["ids"]]
    for _ in range(2):
        assert (await client.post("/score", json=good)).status_code == 200
    await asyncio.sleep(0)
    assert (samples('din_ids_checked_total{part="history"}'), samples('din_ids_unseen_total{part="history"}')) == (3, 1)
    assert samples('din_ids_unseen_total{part="candidates"}') == 2


async def test_version_tells_its_age(client: httpx2.AsyncClient, app: FastAPI, samples: Samples) -> None:
    """When the version was made and loaded, and the clicks of its training, are there before any request."""
    assert samples('din_model_created_timestamp_seconds{version="1"}') == 1767225600
    loaded = samples('din_model_loaded_timestamp_seconds{version="1"}')
    assert loaded == app.state.service.registry.current.loaded_at
    assert samples('din_training_click_ratio{version="1"}') == 0.25


async def test_drift_shows_when_enough_was_scored(
    client: httpx2.AsyncClient, app: FastAPI, good: Body, samples: Samples
) -> None:
    """Scores spread as evenly as in training show no drift, once there are enough of them."""
    await client.post("/score", json=good)
    assert 'din_score_drift_psi{version="1"}' not in (await client.get("/metrics")).text
    even = np.linspace(0, 1, 20_000, dtype=np.float32)
    app.state.service.metrics.compared("1", 0.1, even, 0.0)
    text = (await client.get("/metrics")).text
    assert 'din_score_drift_psi{version="1"} ' in text
    assert samples('din_score_drift_psi{version="1"}') < 0.001


@pytest.mark.parametrize("bounds", [pytest.param((0.5, 1.0), id="two-bins")])
async def test_drift_against_other_bins_is_not_told(client: httpx2.AsyncClient, app: FastAPI) -> None:
    """A version whose scores were counted in other bins serves, and no drift is made up."""
    app.state.service.metrics.compared("1", 0.1, np.zeros(20_000, np.float32), 0.0)
    text = (await client.get("/metrics")).text
    assert 'din_training_click_ratio{version="1"} 0.25' in text
    assert 'din_score_drift_psi{version="1"}' not in text


async def test_waiting_and_running_show(
    client: httpx2.AsyncClient, engine: FakeEngine, good: Body, samples: Samples
) -> None:
    """While a request runs and another waits, both show: the age of one, the executor's time of the other."""
    engine.gate.clear()
    first = asyncio.create_task(client.post("/score", json=good))
    await asyncio.to_thread(engine.entered.acquire)
    second = asyncio.create_task(client.post("/score", json=good))
    for _ in range(5):  # turns of the event loop, in which it gets to the queue
        await asyncio.sleep(0)
    text = (await client.get("/metrics")).text
    assert "din_queue_rows 3.0" in text
    assert "din_executors 1.0" in text
    assert samples("din_queue_age_seconds") > 0
    busy = samples("din_executor_busy_seconds_total")
    await client.get("/metrics")
    assert samples("din_executor_busy_seconds_total") > busy > 0
    engine.gate.set()
    assert {(await each).status_code for each in (first, second)} == {200}
    await client.get("/metrics")
    assert samples("din_queue_age_seconds") == 0


async def test_model_shows_what_training_left(client: httpx2.AsyncClient) -> None:
    """GET /model has what the manifest says of scores and seen ids."""
    described = (await client.get("/model")).json()
    assert described["seen"]["ids"] == 3
    assert described["scores"]["clicks"] == 0.25
