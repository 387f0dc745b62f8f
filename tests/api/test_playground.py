"""The page at `/` over HTTP: what it comes with, and that it can be left out. What it does is in tests/browser."""

import base64
import hashlib
import re

import httpx2
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.config import Settings
from service.loading import Opener
from service.schema import ErrorResponse
from tests.fakes import FakeEngine

pytestmark = pytest.mark.anyio


def policy(response: httpx2.Response) -> dict[str, str]:
    """The Content-Security-Policy by directive."""
    rules = [rule.strip().partition(" ") for rule in response.headers["content-security-policy"].split(";")]
    return {name: value for name, _, value in rules}


def sha256(text: str) -> str:
    """A source as the policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def test_page_allows_itself_alone(client: httpx2.AsyncClient) -> None:
    """The policy names the page's one style and one script by their hashes, this server to call, and nothing more."""
    response = await client.get("/")
    rules = policy(response)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        [content] = re.findall(rf"<{tag}[^>]*>(.+?)</{tag}>", response.text, re.DOTALL)
        assert rules[directive] == sha256(content)
    assert (rules["default-src"], rules["connect-src"], rules["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_page_names_no_other_place(client: httpx2.AsyncClient) -> None:
    """Every link of the page is relative, so that it works offline and below a root path."""
    text = (await client.get("/")).text
    places = re.findall(r"(?:href|src)=\"([^\"]+)\"", text)
    assert {"docs", "metrics", "model", "health"} <= set(places)
    assert [place for place in places if place.startswith(("/", "http"))] == []
    assert re.findall(r"@import|url\(", text.partition("</style>")[0]) == []


async def test_browser_asks_whether_the_page_has_changed(client: httpx2.AsyncClient) -> None:
    """Who has the page already is told so, with the headers that guard it and no body."""
    first = await client.get("/")
    again = await client.get("/", headers={"If-None-Match": first.headers["etag"]})
    other = await client.get("/", headers={"If-None-Match": '"another"'})
    assert (again.status_code, again.content, other.content) == (304, b"", first.content)
    assert first.headers["cache-control"] == again.headers["cache-control"] == "no-cache"
    assert policy(again) == policy(first)


async def test_page_is_no_part_of_the_api(client: httpx2.AsyncClient) -> None:
    """The document of the API does not list the page, which takes GET alone."""
    assert "/" not in (await client.get("/openapi.json")).json()["paths"]
    refused = await client.post("/", json={})
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


async def test_page_stands_below_a_root_path(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """A server below a root path has its page there."""
    below = httpx2.AsyncClient(transport=httpx2.ASGITransport(app, root_path="/ctr"), base_url="http://test")
    assert (await below.get("/ctr/")).content == (await client.get("/")).content


async def test_page_can_be_left_out(settings: Settings) -> None:
    """With DIN_PLAYGROUND off there is no such path."""
    app = create_app(settings.model_copy(update={"playground": False}), Opener(lambda *_: FakeEngine()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        response = await client.get("/")
    answer = ErrorResponse.model_validate_json(response.content)
    assert (response.status_code, answer.error.code) == (404, "not_found")
