"""The admin routes, over ASGI, with versions of fake engines on disk."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from service.app import create_app
from service.config import Settings
from service.loading import Opener
from service.rollout import Share
from service.schema import VersionsResponse
from tests.fakes import Loads, damage, write_version

pytestmark = pytest.mark.anyio

TOKEN = "an-admin-token-of-some-length"  # noqa: S105  nobody's
GOOD = {"history": {"ids": [1, 2], "tags": [3]}, "candidates": {"ids": [4, 5], "tags": [6, 7]}}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model folder with two good versions and a bad third."""
    for number in (1, 2):
        write_version(tmp_path / "din", number)
    damage(write_version(tmp_path / "din", 3))
    return tmp_path / "din"


@pytest.fixture
def settings(model_dir: Path) -> Settings:
    """Admin routes, and no look at the folder unless asked."""
    return Settings(model_dir=model_dir, admin_token=SecretStr(TOKEN), executors=1, poll_s=0, deadline_ms=60_000)


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, not started."""
    return create_app(settings, Opener(Loads()))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the started application that knows the token."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with app.router.lifespan_context(app):
        await app.state.service.loaded()
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
            yield client


async def ask(client: httpx2.AsyncClient, method: str, path: str, body: Any = None) -> VersionsResponse:
    """A request that must succeed."""
    response = await client.request(method, f"/admin/{path}", **({} if body is None else {"json": body}))
    assert response.status_code == 200, response.text
    return VersionsResponse.model_validate_json(response.content)


async def answered_by(client: httpx2.AsyncClient, request_id: str) -> str:
    """The version that scores a request."""
    response = await client.post("/score", json=GOOD, headers={"X-Request-Id": request_id})
    assert response.status_code == 200
    version: str = response.json()["model"]["version"]
    return version


async def test_versions_are_listed(client: httpx2.AsyncClient) -> None:
    """Every version is listed with what it does; a bad newest one with its reason, and health is degraded but ready."""
    state = await ask(client, "GET", "versions")
    assert [(each.version, each.roles, each.engine) for each in state.versions] == [
        ("1", [], None),
        ("2", ["serving"], "fake"),
        ("3", [], None),
    ]
    assert state.pinned is None
    assert "sha256 is not the manifest's" in (state.versions[2].refused or "")
    assert state.problems == [state.versions[2].refused]
    health = await client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["versions"] == {"ok": False, "detail": state.problems[0]}


async def test_rollback_and_back(client: httpx2.AsyncClient) -> None:
    """Activating pins a version, which answers at once; following the latest undoes it."""
    assert await answered_by(client, "a") == "2"
    assert (await ask(client, "POST", "versions/1/activate")).pinned == "1"
    assert await answered_by(client, "a") == "1"
    assert (await client.get("/model")).json()["rollout"]["pin"] == "1"
    assert (await client.get("/health")).json()["status"] == "ok"
    assert (await ask(client, "POST", "versions/follow-latest")).pinned is None
    assert await answered_by(client, "a") == "2"


async def test_restart_keeps_the_pin(client: httpx2.AsyncClient, settings: Settings) -> None:
    """A server that starts again serves what was pinned."""
    await ask(client, "POST", "versions/1/activate")
    again = create_app(settings, Opener(Loads()))
    async with again.router.lifespan_context(again):
        await again.state.service.loaded()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(again), base_url="http://test") as other:
            assert await answered_by(other, "a") == "1"


@pytest.mark.parametrize(
    ("version", "status", "code"),
    [("3", 409, "version_refused"), ("9", 404, "unknown_version"), ("..%2f1", 404, "not_found"), ("x", 404, None)],
    ids=["bad", "missing", "path", "no-number"],
)
async def test_what_cannot_serve_is_refused(
    client: httpx2.AsyncClient, version: str, status: int, code: str | None
) -> None:
    """A version that is bad or not there is refused with its code, and what serves goes on."""
    response = await client.post(f"/admin/versions/{version}/activate")
    assert (response.status_code, response.json()["error"]["code"]) == (status, code or "unknown_version")
    assert await answered_by(client, "a") == "2"
    assert (await ask(client, "GET", "versions")).pinned is None


@pytest.mark.parametrize("given", [None, "Bearer wrong-wrong-wrong-wrong", f"Basic {TOKEN}"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "versions"),
        ("POST", "versions/1/activate"),
        ("POST", "versions/follow-latest"),
        ("PUT", "canary"),
        ("DELETE", "shadow"),
    ],
)
async def test_only_admins_may(client: httpx2.AsyncClient, method: str, path: str, given: str | None) -> None:
    """Without the admin token every route is closed, whatever the request, and nothing happens."""
    headers = {} if given is None else {"Authorization": given}
    del client.headers["Authorization"]
    response = await client.request(method, f"/admin/{path}", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert await answered_by(client, "a") == "2"


async def test_no_token_no_routes(settings: Settings) -> None:
    """Where no admin token is configured there are no such routes, not even in the document."""
    app = create_app(settings.model_copy(update={"admin_token": None}), Opener(Loads()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/admin/versions")).status_code == 404
        assert not any("admin" in path for path in (await client.get("/openapi.json")).json()["paths"])


async def test_canary_answers_its_share(client: httpx2.AsyncClient) -> None:
    """Requests of the canary's share are answered by it and say so; its metrics are its own."""
    share = {"version": "1", "percent": 40.0}
    state = await ask(client, "PUT", "canary", share)
    assert state.canary == Share(version="1", percent=40.0)
    assert [each.roles for each in state.versions] == [["canary"], ["serving"], []]
    for i in range(20):
        assert await answered_by(client, f"r{i}") == ("1" if state.canary.takes(f"r{i}") else "2")
    text = (await client.get("/metrics")).text
    taken = sum(state.canary.takes(f"r{i}") for i in range(20))
    assert f'din_version_duration_seconds_count{{role="canary",version="1"}} {taken}.0' in text
    assert f'din_version_duration_seconds_count{{role="serving",version="2"}} {20 - taken}.0' in text
    assert f'din_probability_count{{version="1"}} {2 * taken}.0' in text
    assert (await client.get("/model")).json()["rollout"]["canary"] == share
    assert (await ask(client, "DELETE", "canary")).canary is None
    assert {await answered_by(client, f"r{i}") for i in range(20)} == {"2"}


async def test_shadow_runs_copies(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """The shadow is compared with what was answered, and the answers are the serving version's."""
    await ask(client, "PUT", "shadow", {"version": "1", "percent": 100})
    for i in range(5):
        assert await answered_by(client, f"r{i}") == "2"
    metrics = app.state.service.metrics

    def count(name: str) -> float:
        lines = metrics.exposition("")[0].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    while count("din_shadow_requests_total{") < 5:  # noqa: ASYNC110  no event tells
        await asyncio.sleep(0.001)
    compared = count('din_shadow_requests_total{outcome="compared"}')
    assert compared > 0
    assert count('din_shadow_difference_count{version="1"}') == compared
    assert count('din_shadow_difference_sum{version="1"}') == 0  # the fake engine answers alike
    assert count('din_version_duration_seconds_count{role="shadow",version="1"}') == compared
    assert (await ask(client, "DELETE", "shadow")).shadow is None


@pytest.mark.parametrize("role", ["canary", "shadow"])
@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ("{", 400, "malformed_json", None),
        ("[]", 422, "invalid_request", None),
        ('{"version": 1, "percent": 5}', 422, "invalid_request", "version"),
        ('{"version": "1", "percent": 0}', 422, "invalid_request", "percent"),
        ('{"version": "1", "percent": 101}', 422, "invalid_request", "percent"),
        ('{"version": "1", "percent": NaN}', 422, "invalid_request", "percent"),
        ('{"version": "1"}', 422, "invalid_request", "percent"),
        ('{"version": "1", "percent": 5, "x": 1}', 422, "invalid_request", None),
        ('{"version": "3", "percent": 5}', 409, "version_refused", "version"),
        ('{"version": "7", "percent": 5}', 404, "unknown_version", "version"),
    ],
)
async def test_bad_share_is_refused(
    client: httpx2.AsyncClient, role: str, body: str, status: int, code: str, field: str | None
) -> None:
    """A share that is malformed, out of range or of no good version is refused by its field, and nothing changes."""
    response = await client.put(f"/admin/{role}", content=body, headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["field"]) == (status, code, field)
    assert getattr(await ask(client, "GET", "versions"), role) is None


async def test_share_must_be_json(client: httpx2.AsyncClient) -> None:
    """A share in another media type is refused."""
    response = await client.put("/admin/canary", content=b"version=1")
    assert (response.status_code, response.json()["error"]["code"]) == (415, "unsupported_media_type")
