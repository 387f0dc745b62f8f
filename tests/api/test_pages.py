"""The routes for operators, and the document that describes them all."""

import json
import re
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service.artifact import Feature, Features, Manifest
from service.errors import RequestError
from service.evaluation import Evaluation, Figure
from service.metrics import Metrics
from service.refusals import STATUS
from service.schema import REQUEST_EXAMPLE, RESPONSE_EXAMPLE, HealthResponse, ScoreRequest, ScoreResponse
from tests.fakes import FakeEngine

pytestmark = pytest.mark.anyio

FEATURE = Feature(dtype="int64", buckets=8, dimension=2, max_history=4)
EVALUATED = Manifest(
    version="1",
    created="2026-01-01T00:00:00Z",
    features=Features(id=FEATURE, tag=FEATURE),
    evaluation=Evaluation(
        created="2026-01-02T00:00:00Z",
        data="drawn",
        rows=100,
        users=10,
        clicks=0.5,
        seed=1,
        level=0.95,
        draws=1000,
        figures={"auc": Figure(value=0.85, low=0.83, high=0.86)},
        rela_impr=0.1,
    ),
)


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live"])
async def test_healthy_service_says_what_it_serves(client: httpx2.AsyncClient, path: str) -> None:
    """A ready service answers 200 with its model, version and engine, and every check passed."""
    response = await client.get(path)
    health = HealthResponse.model_validate_json(response.content)
    assert response.status_code == 200
    assert (health.status, health.model, health.version, health.engine) == ("ok", "din", "1", "fake")
    assert {name: check.ok for name, check in health.checks.items()} == dict.fromkeys(
        ("model", "versions", "executors", "accepting"), True
    )


async def test_hanging_executor_fails_both_probes(
    app: FastAPI, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When an executor is lost the service is neither ready nor live."""
    monkeypatch.setattr(type(app.state.service.scorer), "alive", False)
    for path in ("/health", "/health/live"):
        response = await client.get(path)
        assert (response.status_code, response.json()["status"]) == (503, "failed")
        assert response.json()["checks"]["executors"]["ok"] is False


async def test_model_is_the_manifest(client: httpx2.AsyncClient, manifest: Manifest) -> None:
    """GET /model returns the serving version's manifest, and which engine computes it."""
    described = (await client.get("/model")).json()
    assert (described.pop("engine"), described.pop("fallback_reason")) == ("fake", None)
    assert described.pop("rollout") == {"pin": None, "canary": None, "shadow": None}
    assert Manifest.model_validate_json(json.dumps(described)) == manifest


@pytest.mark.parametrize("manifest", [pytest.param(EVALUATED, id="evaluated")])
async def test_model_shows_its_evaluation(client: httpx2.AsyncClient, manifest: Manifest) -> None:
    """GET /model has the headline of an evaluated version, as its manifest has it."""
    described = (await client.get("/model")).json()["evaluation"]
    assert described["figures"] == {"auc": {"value": 0.85, "low": 0.83, "high": 0.86}}
    assert Evaluation.model_validate(described) == manifest.evaluation


async def test_openapi_documents_the_evaluation(client: httpx2.AsyncClient) -> None:
    """The document says what an evaluation is, and that a version may have none."""
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert set(schemas["Evaluation"]["properties"]) == set(Evaluation.model_fields)
    assert set(schemas["Figure"]["properties"]) == {"value", "low", "high"}
    assert {"type": "null"} in schemas["ModelResponse"]["properties"]["evaluation"]["anyOf"]


async def test_fallback_to_another_engine_is_told(client: httpx2.AsyncClient, engine: FakeEngine) -> None:
    """An engine that serves in place of the preferred one says why in GET /model and GET /health, which stays 200."""
    engine.fallback_reason = "the other one differs"
    assert (await client.get("/model")).json()["fallback_reason"] == "the other one differs"
    health = await client.get("/health")
    assert (health.status_code, health.json()["engine"]) == (200, "fake")
    assert "the other one differs" in health.json()["checks"]["model"]["detail"]


async def test_metrics_come_in_both_formats(client: httpx2.AsyncClient, good: dict[str, Any]) -> None:
    """Prometheus text by default, OpenMetrics where it is asked for, each metric of the table in both."""
    await client.post("/score", json=good)
    text = await client.get("/metrics")
    openmetrics = await client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    names = {name.removesuffix("_total") for name, *_ in Metrics.table()}
    assert text.headers["content-type"].startswith("text/plain")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    families = parse_openmetrics(openmetrics.text)  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= names
    assert {family.name.removesuffix("_total") for family in parse_text(text.text)} >= names
    assert 'din_model_info{engine="fake",name="din",version="1"} 1.0' in text.text
    assert "process_resident_memory_bytes" in text.text


async def test_compilation_under_traffic_shows(client: httpx2.AsyncClient, engine: Any, good: dict[str, Any]) -> None:
    """What the engine compiles for a request is counted apart from what it compiled to become ready."""
    engine.compiled = 2
    await client.post("/score", json=good)
    text = (await client.get("/metrics")).text
    assert 'din_compilations_total{phase="traffic"} 2.0' in text
    assert 'din_compilations_total{phase="load"} 0.0' in text


async def test_pages_are_not_counted_as_requests(client: httpx2.AsyncClient) -> None:
    """Probes and scrapes leave the request metrics alone."""
    for path in ("/health", "/health/live", "/model", "/metrics"):
        await client.get(path)
    counted = re.findall(r"^din_requests_total.* (\S+)$", (await client.get("/metrics")).text, re.MULTILINE)
    assert counted == ["0.0"]


async def test_openapi_documents_every_error(client: httpx2.AsyncClient) -> None:
    """Every code of `service.errors` stands with its status and an example at POST /score."""
    operation = (await client.get("/openapi.json")).json()["paths"]["/score"]["post"]
    documented = {
        (code, int(status))
        for status, response in operation["responses"].items()
        for code in response["content"]["application/json"].get("examples", {})
    }
    assert documented == {(kind.code, STATUS[kind]) for kind in RequestError.__subclasses__()}


async def test_openapi_documents_body_and_answer(client: httpx2.AsyncClient) -> None:
    """The body that is read raw is documented all the same, with examples that hold."""
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/score"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["properties"]) == set(ScoreRequest.model_fields)
    assert set(body["schema"]["properties"]["history"]["properties"]) == {"ids", "tags"}
    assert body["example"] == REQUEST_EXAMPLE
    assert ScoreRequest[int, int].model_validate(REQUEST_EXAMPLE).top_k == 1
    assert ScoreResponse.model_validate(RESPONSE_EXAMPLE).ranking == [1]
    assert not re.search(r"\$defs|Union", str(document))


async def test_without_a_catalog_there_is_none(client: httpx2.AsyncClient, good: dict[str, Any]) -> None:
    """Tags are required, as the document says, there is nothing to search, and health does not speak of it."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    body = paths["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert [body[name]["required"] for name in ("history", "candidates")] == [["ids", "tags"]] * 2
    error = (await client.post("/score", json=good | {"candidates": {"ids": [21]}})).json()["error"]
    assert (error["message"], error["field"]) == ("this field is required", "candidates.tags")
    response = await client.get("/catalog?query=toy")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
    assert "catalog" not in (await client.get("/health")).json()["checks"]


async def test_docs_page_is_there(client: httpx2.AsyncClient) -> None:
    """GET /docs shows the document."""
    response = await client.get("/docs")
    assert response.status_code == 200
    assert "/openapi.json" in response.text
