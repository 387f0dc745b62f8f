"""Who may score: a token is asked for on every way in, before anything else, and tells nothing to those without."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from service.config import Settings
from service.schema import ErrorResponse

pytestmark = pytest.mark.anyio

TOKEN = "a-token-of-the-setting"  # noqa: S105  good nowhere else
FILED = "a-token-of-the-file"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of tokens that holds one."""
    path = tmp_path / "tokens"
    path.write_text(FILED)
    return path


@pytest.fixture
def settings(settings: Settings, file: Path) -> Settings:
    """Settings with both sources of tokens."""
    return Settings.model_validate(settings.model_dump() | {"token": TOKEN, "token_file": file})


async def unreadable() -> AsyncIterator[bytes]:
    """A body that nobody may ask for."""
    pytest.fail("the body was read")
    yield b""


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token."""
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(params=["direct", "below-a-root-path"])
def post(request: pytest.FixtureRequest, app: FastAPI, client: httpx2.AsyncClient) -> Callable[..., Any]:
    """Post to /score as `Edge` answers it itself, and as the router does."""
    if request.param == "direct":
        return lambda **options: client.post("/score", **options)
    below = httpx2.AsyncClient(transport=httpx2.ASGITransport(app, root_path="/ctr"), base_url="http://test")
    return lambda **options: below.post("/ctr/score", **options)


@pytest.mark.parametrize("token", [TOKEN, FILED])
async def test_valid_token_scores(post: Callable[..., Any], good: dict[str, Any], token: str) -> None:
    """Each of several tokens is as good as the other."""
    assert (await post(json=good, headers=bearer(token))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param(bearer("a-token-that-is-wrong"), id="wrong"),
        pytest.param({"Authorization": f"Basic {TOKEN}"}, id="another-scheme"),
        pytest.param({"Content-Type": "text/plain", "X-Deadline-Ms": "no"}, id="otherwise-wrong-too"),
    ],
)
async def test_others_are_refused_unread(
    post: Callable[..., Any], samples: Callable[[str], float], headers: dict[str, str]
) -> None:
    """Without a valid token the answer is 401 in the usual form, whatever else is wrong, and the body is not read."""
    response = await post(content=unreadable(), headers=JSON | headers)
    answer = ErrorResponse.model_validate_json(response.content)
    assert (response.status_code, answer.error.code, answer.error.field) == (401, "unauthorized", "Authorization")
    assert response.headers["www-authenticate"] == "Bearer"
    assert answer.request_id == response.headers["x-request-id"]
    assert "a-token" not in response.text
    assert samples('din_requests_total{code="unauthorized"}') == 1
    assert samples("din_in_flight_requests") == 0


async def test_rotated_token_needs_no_restart(
    client: httpx2.AsyncClient, good: dict[str, Any], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file holds now is valid, what it held before no longer is."""
    await asyncio.to_thread(file.write_text, "a-token-of-next-month")
    monkeypatch.setattr("service.tokens.LOOK_S", 0.0)
    assert (await client.post("/score", json=good, headers=bearer("a-token-of-next-month"))).status_code == 200
    assert (await client.post("/score", json=good, headers=bearer(FILED))).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live", "/metrics", "/model", "/openapi.json"])
async def test_the_rest_is_open(client: httpx2.AsyncClient, path: str) -> None:
    """Probes, metrics and descriptions ask nobody."""
    assert (await client.get(path)).status_code == 200


async def test_refusal_does_not_say_whether_the_service_is_ready(app: FastAPI) -> None:
    """While the model loads, those without a token are told 401 as ever."""
    loading = asyncio.Event()
    app.state.service.registry.start = loading.wait
    transport = httpx2.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://test") as one:
        assert (await one.post("/score", headers=JSON)).status_code == 401
        assert (await one.post("/score", headers=JSON | bearer(TOKEN))).status_code == 503
        loading.set()


async def test_document_asks_for_the_token(client: httpx2.AsyncClient) -> None:
    """OpenAPI describes the scheme and names it where it is asked for."""
    document = (await client.get("/openapi.json")).json()
    assert document["paths"]["/score"]["post"]["security"] == [{"score_token": []}]
    assert document["components"]["securitySchemes"]["score_token"] == {"type": "http", "scheme": "bearer"}
    assert "security" not in document["paths"]["/health"]["get"]
    assert TOKEN not in json.dumps(document)
