"""Traces, the access log, the slow log and exemplars of the whole application."""

import asyncio
import logging
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from service.app import create_app
from service.config import Settings
from service.loading import Opener
from service.tracing import Tracing
from tests.collector import TRACE, kept, traceparent
from tests.fakes import FakeEngine

Body = dict[str, Any]

pytestmark = pytest.mark.anyio

STAGES = ["parse", "queue", "pack", "infer", "respond"]
SAMPLED = {"traceparent": traceparent()}
OPEN = {"accept": "application/openmetrics-text"}


@pytest.fixture
def update() -> dict[str, Any]:
    """Settings that a test changes."""
    return {}


@pytest.fixture
def settings(settings: Settings, update: dict[str, Any]) -> Settings:
    """Batches of five candidates, so that a request may be larger."""
    return settings.model_copy(update={"max_batch_rows": 5, **update})


@pytest.fixture
def traced() -> tuple[Tracing, InMemorySpanExporter]:
    """A tracer that follows its callers, and its spans."""
    return kept()


@pytest.fixture
def app(settings: Settings, engine: FakeEngine, traced: tuple[Tracing, InMemorySpanExporter]) -> FastAPI:
    """The application, traced."""
    return create_app(settings, Opener(lambda *_: engine), tracing=traced[0])


@pytest.fixture
def spans(traced: tuple[Tracing, InMemorySpanExporter]) -> InMemorySpanExporter:
    """Where they are."""
    return traced[1]


def roots(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """Those of requests."""
    return [span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER]


def logged(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    """The fields of each line with a message."""
    return [vars(each)["fields"] for each in caplog.records if each.message == message]


async def test_traced_request_has_its_stages(
    client: httpx2.AsyncClient, spans: InMemorySpanExporter, good: Body
) -> None:
    """A traced request has a child for each stage, and says what it was about; another has nothing."""
    assert (await client.post("/score", json=good)).status_code == 200
    assert spans.get_finished_spans() == ()
    response = await client.post("/score", json=good, headers=SAMPLED)
    (root,) = roots(spans)
    assert [span.name for span in spans.get_finished_spans()] == [*STAGES, "batch", "POST /score"]
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/score",
        "url.path": "/score",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "din.request_id": response.headers["x-request-id"],
        "din.version": "1",
        "din.candidates": 3,
        "din.history.ids": 3,
        "din.history.tags": 2,
    }


async def test_request_in_several_batches_links_to_each(
    client: httpx2.AsyncClient, spans: InMemorySpanExporter, good: Body
) -> None:
    """A request larger than a batch has pack and infer of each, and a link to each."""
    large = {**good, "candidates": {"ids": list(range(8)), "tags": list(range(8))}}
    assert (await client.post("/score", json=large, headers=SAMPLED)).status_code == 200
    names = [span.name for span in spans.get_finished_spans()]
    assert names == ["parse", "queue", *["pack", "infer"] * 2, "respond", *["batch"] * 2, "POST /score"]
    assert len({link.context.span_id for link in roots(spans)[0].links}) == 2


async def test_members_of_a_batch_link_to_one_span(
    app: FastAPI, client: httpx2.AsyncClient, engine: FakeEngine, spans: InMemorySpanExporter, good: Body
) -> None:
    """Two traced requests that ran together link to the same span, which names both."""
    small = {**good, "candidates": {"ids": [1], "tags": [1]}}
    engine.gate.clear()
    tasks = [asyncio.create_task(client.post("/score", json=good))]
    await asyncio.to_thread(engine.entered.acquire)
    tasks += [
        asyncio.create_task(client.post("/score", json=small, headers={"traceparent": traceparent(trace * 32)}))
        for trace in "ab"
    ]
    while app.state.service.scorer.queue_rows < 2:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0)
    engine.gate.set()
    assert [(await task).status_code for task in tasks] == [200] * 3
    (batch,) = [span for span in spans.get_finished_spans() if span.name == "batch"]
    assert batch.attributes == {"din.engine": "fake", "din.batch.rows": 2, "din.batch.requests": 2}
    assert [[link.context for link in root.links] for root in roots(spans)] == [[batch.context]] * 2


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        pytest.param({}, {}, (422, "invalid_request", [], True), id="client"),
        pytest.param(None, {"x-deadline-ms": "60"}, (504, "deadline_exceeded", ["parse", "wait"], False), id="server"),
    ],
)
async def test_failed_request_is_traced(
    client: httpx2.AsyncClient,
    engine: FakeEngine,
    spans: InMemorySpanExporter,
    good: Body,
    body: Body | None,
    headers: dict[str, str],
    expected: tuple[int, str, list[str], bool],
) -> None:
    """A request that fails has the stages it came to, its code, and where the server is to blame an error's status."""
    engine.gate.clear()
    await client.post("/score", json=good if body is None else body, headers=SAMPLED | headers)
    engine.gate.set()
    (root,) = roots(spans)
    attributes = root.attributes or {}
    names = [span.name for span in spans.get_finished_spans() if span is not root]
    found = attributes["http.response.status_code"], attributes["error.type"], names, root.status.is_unset
    assert found == expected


async def test_other_routes_are_not_traced(client: httpx2.AsyncClient, spans: InMemorySpanExporter) -> None:
    """Probes and scrapes make no spans, whatever their callers ask for."""
    for path in ("/health", "/metrics", "/score"):
        await client.get(path, headers=SAMPLED)
    assert spans.get_finished_spans() == ()


async def test_buckets_name_the_last_trace(client: httpx2.AsyncClient, good: Body) -> None:
    """In OpenMetrics, and there only, the latency histograms have the trace that came last in its bucket."""
    await client.post("/score", json=good, headers=SAMPLED)
    await client.post("/score", json=good)
    text = (await client.get("/metrics", headers=OPEN)).text
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    named = [
        (family.name, sample.labels.get("stage"), sample.exemplar.labels)
        for family in families
        for sample in family.samples
        if sample.exemplar
    ]
    trace = {"trace_id": TRACE}
    assert named == [
        ("din_request_duration_seconds", None, trace),
        *(("din_stage_duration_seconds", stage, trace) for stage in STAGES),
    ]
    assert TRACE not in (await client.get("/metrics")).text


@pytest.mark.parametrize("update", [{"access_log": 1.0}])
async def test_every_request_is_logged(
    client: httpx2.AsyncClient, good: Body, caplog: pytest.LogCaptureFixture
) -> None:
    """With a share of 1 each request has a line, with what is known of it."""
    caplog.set_level(logging.INFO)
    await client.post("/score", json=good, headers={"x-request-id": "one"} | SAMPLED)
    await client.post("/score", json={}, headers={"x-request-id": "two"})
    await client.get("/nowhere", headers={"x-request-id": "three"})
    lines = logged(caplog, "request")
    assert all(line.pop("ms") > 0 and line.pop("client") == "127.0.0.1" for line in lines)
    score = {"method": "POST", "path": "/score"}
    of_one = {"trace_id": TRACE, "status": 200, "code": "ok", "candidates": 3, "version": "1"}
    assert lines == [
        {"request_id": "one", **score, **of_one},
        {"request_id": "two", **score, "status": 422, "code": "invalid_request"},
        {"request_id": "three", "method": "GET", "path": "/nowhere", "status": 404, "code": "not_found"},
    ]


@pytest.mark.parametrize("update", [{"access_log": 0.5}])
async def test_share_of_requests_is_logged(client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """With a share of a half about half of the requests have a line."""
    caplog.set_level(logging.INFO)
    for _ in range(200):
        await client.get("/health/live")
    assert 60 < len(logged(caplog, "request")) < 140


async def test_nothing_is_logged_by_default(
    client: httpx2.AsyncClient, good: Body, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a share and a limit a request leaves no line."""
    caplog.set_level(logging.INFO)
    await client.post("/score", json=good)
    assert [each for each in caplog.records if each.name.startswith("service")] == []


@pytest.mark.parametrize("update", [{"slow_ms": 50}])
async def test_slow_request_is_logged(
    client: httpx2.AsyncClient, engine: FakeEngine, good: Body, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that took longer than the limit leaves a warning with its stages."""
    engine.gate.clear()
    task = asyncio.create_task(client.post("/score", json=good, headers={"x-request-id": "one"}))
    await asyncio.to_thread(engine.entered.acquire)
    await asyncio.sleep(0.06)
    engine.gate.set()
    assert (await task).status_code == 200
    (line,) = logged(caplog, "slow request")
    spent = {stage: line.pop(f"{stage}_ms") for stage in STAGES}
    assert 50 < spent["infer"] <= line["ms"]
    assert sum(spent.values()) <= line.pop("ms")
    of_one = {"code": "ok", "candidates": 3, "history_ids": 3, "history_tags": 2, "batch_rows": 3, "version": "1"}
    assert line == {"request_id": "one", **of_one}


@pytest.mark.parametrize("update", [{"slow_ms": 60_000}])
async def test_fast_request_is_not_slow(
    client: httpx2.AsyncClient, good: Body, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that took less than the limit leaves no line."""
    await client.post("/score", json=good)
    assert logged(caplog, "slow request") == []


@pytest.mark.parametrize("update", [{"slow_ms": 50}])
async def test_slow_failure_is_logged(
    client: httpx2.AsyncClient, engine: FakeEngine, good: Body, caplog: pytest.LogCaptureFixture
) -> None:
    """A request whose deadline passed says how long it waited, and what it was."""
    engine.gate.clear()
    await client.post("/score", json=good, headers={"x-deadline-ms": "60", "x-request-id": "one"})
    engine.gate.set()
    (line,) = logged(caplog, "slow request")
    assert 40 < line.pop("wait_ms") < line.pop("ms")
    assert line.pop("parse_ms") >= 0
    of_one = {"candidates": 3, "history_ids": 3, "history_tags": 2, "version": "1"}
    assert line == {"request_id": "one", "code": "deadline_exceeded", **of_one}


@pytest.mark.parametrize("update", [{"slow_ms": 0}])
async def test_storm_of_slow_requests_is_rationed(
    client: httpx2.AsyncClient, good: Body, caplog: pytest.LogCaptureFixture
) -> None:
    """However many are slow, ten a second are logged, and the next line says how many were not."""
    sent = 40
    for _ in range(sent):
        await client.post("/score", json=good)
    soon = len(logged(caplog, "slow request"))
    assert soon < sent
    while len(logged(caplog, "slow request")) == soon:
        await client.post("/score", json=good)
        sent += 1
    lines = logged(caplog, "slow request")
    assert len(lines) + sum(line.get("left_out", 0) for line in lines) == sent
