"""With a catalog, tags may be left out and items can be searched."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from service import items
from service.app import create_app
from service.config import Settings
from service.errors import SettingsError
from service.loading import Opener
from service.schema import CATALOG_EXAMPLE, CatalogResponse
from tests.fakes import FakeEngine

pytestmark = pytest.mark.anyio

Body = dict[str, Any]
Expected = Callable[[Body], list[float]]

TAGS = {11: 1, 12: 2, 13: 3, 14: 1, 15: 2, 21: 4, 22: 5, 23: 6}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A catalog of what `good` asks about."""
    path = tmp_path / "items.csv"
    path.write_text("id,tag,title\n" + "".join(f"{each},{tag},Item {each}\n" for each, tag in TAGS.items()))
    return path


@pytest.fixture
def settings(model_dir: Path, file: Path) -> Settings:
    """With the catalog, looked at all the time."""
    return Settings(
        model_dir=model_dir, max_candidates=8, max_history=6, executors=1, deadline_ms=60_000, catalog=file, poll_s=0.01
    )


def bare(body: Body, *parts: str) -> Body:
    """A body without the tags of these parts."""
    return {name: {"ids": part["ids"]} if name in parts else part for name, part in body.items()}


def filled(body: Body, default: object = 0, kind: type = int) -> Body:
    """A body as its sender would have to write it without a catalog."""
    return {
        name: {
            "tags": [
                TAGS.get(int(each), default) if kind is int else str(TAGS.get(int(each), default))
                for each in part["ids"]
            ],
            **part,
        }
        for name, part in body.items()
    }


def put(file: Path, text: str) -> None:
    """Put a whole file in the place of another, as whoever makes one should."""
    aside = file.with_name("aside")
    aside.write_text(text)
    aside.replace(file)


async def settled(done: Callable[[], bool]) -> None:
    """Wait until the server has looked at its file."""
    for _ in range(500):
        if done():
            return
        await asyncio.sleep(0.01)
    pytest.fail("the server did not get there")


@pytest.mark.parametrize("parts", [("history",), ("candidates",), ("history", "candidates"), ()])
@pytest.mark.parametrize("ids", [[], [11], [11, 15, 14], [11, 12, 13, 14, 15, 11]])
async def test_tags_may_be_left_out(
    client: httpx2.AsyncClient, good: Body, expected: Expected, parts: tuple[str, ...], ids: list[int]
) -> None:
    """What is left out of the history, of the candidates or of both is looked up; what is given counts."""
    body = {"history": {"ids": ids, "tags": [9] * 2}, "candidates": {"ids": [21, 22, 23], "tags": [9, 8, 7]}}
    sent = bare(body, *parts)
    response = await client.post("/score", json=sent)
    assert response.json()["probabilities"] == pytest.approx(expected(filled(sent)), abs=1e-7)


@pytest.mark.parametrize(
    "dtypes", [("string", "string"), ("string", "int64"), ("int64", "string")], ids=["both", "ids", "tags"]
)
async def test_string_models_look_up_strings(
    client: httpx2.AsyncClient, expected: Expected, dtypes: tuple[str, str]
) -> None:
    """The catalog has ids and tags of the types that the model takes."""
    ids = [[11, 14], [21, 99]] if dtypes[0] == "int64" else [["11", "14"], ["21", "99"]]
    sent = {"history": {"ids": ids[0]}, "candidates": {"ids": ids[1]}}
    kind, default = (str, "") if dtypes[1] == "string" else (int, 0)
    response = await client.post("/score", json=sent)
    assert response.json()["probabilities"] == pytest.approx(expected(filled(sent, default, kind)), abs=1e-7)


async def test_unknown_ids_take_the_default(
    client: httpx2.AsyncClient, expected: Expected, samples: Callable[[str], float]
) -> None:
    """An id that the catalog does not have is scored with the manifest's default tag, and counted."""
    sent = {"history": {"ids": [77, 11, 77]}, "candidates": {"ids": [21, 78]}}
    response = await client.post("/score", json=sent)
    assert response.json()["probabilities"] == pytest.approx(expected(filled(sent)), abs=1e-7)
    await client.post("/score", json=filled(sent))
    assert samples("din_catalog_unknown_ids_total") == 3
    assert (samples("din_catalog_items"), samples('din_catalog_loads_total{result="loaded"}')) == (8, 1)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"candidates": {"ids": [21], "tags": None}}, "candidates.tags", id="null"),
        pytest.param({"candidates": {"ids": [21], "tags": []}}, "candidates.tags", id="no-tags-for-candidates"),
        pytest.param({"candidates": {"ids": []}}, "candidates.ids", id="no-candidates"),
        pytest.param({"candidates": {"ids": [2**63]}}, "candidates.ids[0]", id="beyond-int64"),
        pytest.param({"candidates": {"ids": list(range(9))}}, "candidates.ids", id="too-many-candidates"),
        pytest.param({"history": {"ids": [1] * 7}}, "history.ids", id="too-long-a-history"),
        pytest.param({"history": {"tags": [1]}}, "history.ids", id="no-ids"),
        pytest.param({"history": {"ids": ["a"]}}, "history.ids[0]", id="text"),
        pytest.param({"history": {}}, "history.ids", id="nothing"),
    ],
)
async def test_the_rest_is_checked_as_ever(client: httpx2.AsyncClient, good: Body, change: Body, field: str) -> None:
    """Everything but left-out tags is refused as without a catalog."""
    response = await client.post("/score", json=good | change)
    assert (response.status_code, response.json()["error"]["field"]) == (422, field)


async def test_repeated_names_are_found(client: httpx2.AsyncClient) -> None:
    """A name that appears twice is refused, though fewer names than ever are needed."""
    body = '{"history": {"ids": [1], "ids": [2]}, "candidates": {"ids": [21]}}'
    response = await client.post("/score", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["field"]) == (422, "history.ids")


async def test_changed_file_counts(
    client: httpx2.AsyncClient, app: FastAPI, file: Path, expected: Expected, samples: Callable[[str], float]
) -> None:
    """A changed file is read while the server runs, and the next request sees its tags."""
    put(file, "id,tag\n21,40\n")
    await settled(lambda: samples("din_catalog_items") == 1)
    response = await client.post("/score", json={"history": {"ids": [11]}, "candidates": {"ids": [21]}})
    full = {"history": {"ids": [11], "tags": [0]}, "candidates": {"ids": [21], "tags": [40]}}
    assert response.json()["probabilities"] == pytest.approx(expected(full), abs=1e-7)
    assert samples('din_catalog_loads_total{result="loaded"}') == 2


async def test_bad_file_keeps_the_old(
    client: httpx2.AsyncClient,
    file: Path,
    good: Body,
    expected: Expected,
    samples: Callable[[str], float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A file that goes bad changes nothing but health, a metric and a line in the log, until it is mended."""
    with caplog.at_level(logging.WARNING):
        put(file, "id,tag\n21,4\n21,5\n")
        await settled(lambda: samples('din_catalog_loads_total{result="refused"}') == 1)
    problem = "items.csv: line 3, column id: 21 appears twice"
    assert f"the catalog cannot be used: {problem}; the one before is kept" in caplog.text
    health = await client.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["checks"]["catalog"] == {"ok": False, "detail": problem}
    sent = bare(good, "history", "candidates")
    response = await client.post("/score", json=sent)
    assert response.json()["probabilities"] == pytest.approx(expected(filled(sent)), abs=1e-7)
    assert samples("din_catalog_items") == 8
    put(file, "id,tag\n21,4\n")
    await settled(lambda: samples('din_catalog_loads_total{result="loaded"}') == 2)
    health = await client.get("/health")
    assert (health.json()["status"], health.json()["checks"]["catalog"]["detail"]) == ("ok", "items: 1")


async def test_bad_catalog_stops_the_start(settings: Settings, file: Path) -> None:
    """A catalog that cannot be read when the server starts is the fault of its setting."""
    put(file, "id\n1\n")
    with pytest.raises(SettingsError, match=r"^DIN_CATALOG = .*items.csv: has no column tag"):
        create_app(settings, Opener(lambda *_: FakeEngine()))


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        pytest.param("query=item+2", [21, 22, 23], id="title"),
        pytest.param("query=ITEM&limit=2", [11, 12], id="limit"),
        pytest.param("query=22", [22], id="id"),
        pytest.param("query=nothing", [], id="nothing"),
        pytest.param("", list(TAGS), id="everything"),
        pytest.param("ids=23,99,11", [23, 11], id="ids"),
        pytest.param("ids=23%2C11", [23, 11], id="ids-encoded"),
        pytest.param("ids=", [], id="no-ids"),
        pytest.param(f"ids={2**63 - 1},{-(2**63)},{','.join(['11'] * 998)}", [11] * 998, id="a-thousand-ids"),
        pytest.param(f"query={'x' * 200}&limit=100", [], id="longest-query"),
    ],
)
@pytest.mark.parametrize("inline", [0, 2000], ids=["in-a-thread", "on-the-loop"])
async def test_items_are_found(
    client: httpx2.AsyncClient, query: str, ids: list[int], inline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items are found by title or id, with their tags, beside how many there are, wherever they are searched."""
    monkeypatch.setattr(items, "_INLINE_ITEMS", inline)
    response = await client.get(f"/catalog?{query}")
    assert response.status_code == 200, response.text
    answer = CatalogResponse.model_validate_json(response.content)
    assert [(each.id, each.tag, each.title) for each in answer.items] == [
        (each, TAGS[each], f"Item {each}") for each in ids
    ]
    assert answer.total == len(TAGS)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        pytest.param(f"query={'x' * 201}", "query", id="long-query"),
        pytest.param("limit=0", "limit", id="no-limit"),
        pytest.param("limit=101", "limit", id="large-limit"),
        pytest.param("limit=-1", "limit", id="negative-limit"),
        pytest.param("limit=", "limit", id="empty-limit"),
        pytest.param("limit=1.0", "limit", id="fraction"),
        pytest.param("limit=%D9%A1", "limit", id="arabic-digit"),
        pytest.param(f"limit={'9' * 6000}", "limit", id="endless-limit"),
        pytest.param("ids=1,a", "ids[1]", id="text"),
        pytest.param("ids=1,,2", "ids[1]", id="gap"),
        pytest.param("ids=1_0", "ids[0]", id="underscore"),
        pytest.param(f"ids={2**63}", "ids[0]", id="beyond-int64"),
        pytest.param("ids=" + "1," * 1000 + "1", "ids", id="too-many-ids"),
        pytest.param("ids=1&query=a", "ids", id="both"),
        pytest.param("query=a&query=b", "query", id="twice"),
        pytest.param("querry=a", "querry", id="unknown"),
        pytest.param("%00%0a" + "x" * 200 + "=a", "??" + "x" * 98, id="unprintable"),
    ],
)
async def test_bad_parameters_are_named(client: httpx2.AsyncClient, query: str, field: str) -> None:
    """A parameter that is wrong is refused by name, and its value is not repeated."""
    response = await client.get(f"/catalog?{query}")
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_request"
    assert response.json()["error"]["field"] == field


@pytest.mark.parametrize("dtypes", [("string", "string")])
async def test_string_ids_are_taken_as_they_are(client: httpx2.AsyncClient) -> None:
    """Where ids are text, any text may be asked for."""
    answer = (await client.get("/catalog", params={"ids": "11,x y,é,"})).json()
    assert answer == {"items": [{"id": "11", "tag": "1", "title": "Item 11"}], "total": 8}


async def test_catalog_asks_for_the_score_token(settings: Settings) -> None:
    """Whoever may not score may not search either, and the document says so."""
    app = create_app(Settings(**{**dict(settings), "token": "a" * 16}), Opener(lambda *_: FakeEngine()))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        refused = await client.get("/catalog?query=%00")
        allowed = await client.get("/catalog", headers={"Authorization": "Bearer " + "a" * 16})
        document = (await client.get("/openapi.json")).json()
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert allowed.status_code == 200
    assert document["paths"]["/catalog"]["get"]["security"] == [{"score_token": []}]


async def test_document_says_that_tags_are_optional(client: httpx2.AsyncClient) -> None:
    """The document asks for ids alone, and describes the search with an example that holds."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    body = paths["/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert [body[name]["required"] for name in ("history", "candidates")] == [["ids"], ["ids"]]
    assert [each["name"] for each in paths["/catalog"]["get"]["parameters"]] == ["query", "limit", "ids"]
    assert CatalogResponse.model_validate(CATALOG_EXAMPLE).total == 9742


async def test_shadow_sees_the_catalog_too(client: httpx2.AsyncClient, app: FastAPI, good: Body) -> None:
    """A copy of a request without tags is scored by the shadow as the request was."""
    copies: list[Any] = []
    service = app.state.service
    served = service.registry.current
    service.registry.shadow_of = lambda *_: served
    service.shadow.offer = copies.append
    sent = bare(good, "history", "candidates")
    await client.post("/score", json=sent)
    sample = copies[0].sample()
    assert sample.seq_tag.tolist() == [TAGS[each] for each in sent["history"]["ids"]]
    assert sample.target_tag.tolist() == [TAGS[each] for each in sent["candidates"]["ids"]]
