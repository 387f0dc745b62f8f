"""Nesting as deep as the body limit that is the default allows."""

import json
from typing import Any

import httpx2
import pytest

from service.config import Settings

pytestmark = pytest.mark.anyio

DEEP = 100_000
GOOD = '{"history": {"ids": [1], "tags": [HERE]}, "candidates": {"ids": [2], "tags": [3]}}'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Bodies of the usual length."""
    return settings.model_copy(update={"max_body_bytes": Settings.model_fields["max_body_bytes"].default})


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("[" * DEEP, id="arrays"),
        pytest.param("[" * DEEP + "]" * DEEP, id="closed-arrays"),
        pytest.param('{"a":' * DEEP, id="objects"),
        pytest.param('{"a":' * (DEEP // 2) + "1" + "}" * (DEEP // 2), id="closed-objects"),
        pytest.param('[{"history":' * (DEEP // 3), id="alternating"),
        pytest.param(GOOD.replace("HERE", "[" * DEEP + "]" * DEEP), id="in-a-column"),
        pytest.param(GOOD.replace("[HERE]", '{"tags":' * (DEEP // 2) + "1" + "}" * (DEEP // 2)), id="in-a-field"),
        pytest.param(GOOD.replace("{", '{"x": ' + "[" * DEEP + "]" * DEEP + ", ", 1), id="in-an-unknown-field"),
    ],
)
async def test_deep_nesting_is_refused(client: httpx2.AsyncClient, good: dict[str, Any], body: str) -> None:
    """A hundred thousand levels are refused as malformed, and the next request is scored."""
    response = await client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "malformed_json")
    assert (await client.post("/score", content=json.dumps(good), headers=dict(response.request.headers))).is_success
