"""POST /score answers a good request."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from service.schema import ScoreResponse

pytestmark = pytest.mark.anyio

Body = dict[str, Any]
Expected = Callable[[Body], list[float]]


async def test_probabilities_come_in_candidate_order(
    client: httpx2.AsyncClient, good: Body, expected: Expected
) -> None:
    """Each candidate gets its own probability, in the order asked, with the version that made it."""
    response = await client.post("/score", json=good)
    answer = ScoreResponse.model_validate_json(response.content)
    assert response.status_code == 200
    assert answer.probabilities == pytest.approx(expected(good), abs=1e-7)
    assert (answer.model.name, answer.model.version) == ("din", "1")
    assert answer.ranking is None
    assert answer.attention is None


@pytest.mark.parametrize(
    "history",
    [
        pytest.param({"ids": [], "tags": []}, id="empty"),
        pytest.param({"ids": [1], "tags": []}, id="ids-only"),
        pytest.param({"ids": [], "tags": [1, 2, 3]}, id="tags-only"),
        pytest.param({"ids": [1, 2, 3, 4, 5, 6], "tags": [9, 8, 7, 6, 5]}, id="longer-than-the-model-reads"),
        pytest.param({"ids": [-1, 0, -(2**63), 2**63 - 1], "tags": [0]}, id="extremes-of-int64"),
    ],
)
async def test_every_legal_history_is_scored(
    client: httpx2.AsyncClient, good: Body, expected: Expected, history: Body
) -> None:
    """Histories of any length up to the limit are scored by the newest that the model reads."""
    body = good | {"history": history}
    response = await client.post("/score", json=body)
    assert response.json()["probabilities"] == pytest.approx(expected(body), abs=1e-7)


@pytest.mark.parametrize(
    "dtypes",
    [
        pytest.param(("string", "string"), id="both"),
        pytest.param(("string", "int64"), id="ids"),
        pytest.param(("int64", "string"), id="tags"),
    ],
)
async def test_string_models_take_strings(
    client: httpx2.AsyncClient, good: Body, expected: Expected, dtypes: tuple[str, str]
) -> None:
    """A model whose manifest says string is scored by text, quotes and all of Unicode included."""
    for column, dtype in zip(("ids", "tags"), dtypes, strict=True):
        if dtype == "string":
            for part in good.values():
                part[column] = [f'é"{value}\N{GRINNING FACE}' for value in part[column]]
    response = await client.post("/score", json=good)
    assert response.json()["probabilities"] == pytest.approx(expected(good), abs=1e-7)


@pytest.mark.parametrize(
    ("top_k", "count"),
    [
        pytest.param(1, 1, id="one"),
        pytest.param(3, 3, id="all"),
        pytest.param(2**70, 3, id="more-than-there-are"),
    ],
)
async def test_top_k_ranks_the_best(client: httpx2.AsyncClient, good: Body, top_k: int, count: int) -> None:
    """With top_k the indexes of the best candidates follow, best first."""
    answer = (await client.post("/score", json=good | {"top_k": top_k})).json()
    probabilities = answer["probabilities"]
    assert answer["ranking"] == sorted(range(3), key=lambda index: -probabilities[index])[:count]


async def test_equal_candidates_rank_in_their_order(client: httpx2.AsyncClient, good: Body) -> None:
    """Of candidates with the same probability the earlier ranks first."""
    body = good | {"candidates": {"ids": [7] * 6, "tags": [1] * 6}, "top_k": 6}
    assert (await client.post("/score", json=body)).json()["ranking"] == [0, 1, 2, 3, 4, 5]


async def test_explain_returns_attention(client: httpx2.AsyncClient, good: Body, expected: Expected) -> None:
    """With explain every candidate brings a weight for each id and tag of the history, and the same answer as ever."""
    response = await client.post("/score", json=good | {"explain": True})
    answer = ScoreResponse.model_validate_json(response.content)
    without = expected(good | {"history": {"ids": [12, 13], "tags": [1, 2]}})
    assert answer.attention is not None
    assert (answer.attention.candidates, answer.attention.removed) == ([0, 1, 2], [0, 0, 0])
    assert (answer.attention.ids, answer.attention.tags) == ([[0.25] * 3] * 3, [[0.5] * 2] * 3)
    assert answer.attention.without == pytest.approx(without, abs=1e-7)
    assert answer.probabilities == pytest.approx(expected(good), abs=1e-7)


async def test_explain_follows_the_ranking(client: httpx2.AsyncClient, good: Body, expected: Expected) -> None:
    """With top_k only what is ranked is explained, and where each id has a tag, that is removed with it."""
    body = good | {"history": {"ids": [11, 12], "tags": [1, 2]}, "top_k": 2}
    answer = (await client.post("/score", json=body | {"explain": True})).json()
    without = expected(body | {"history": {"ids": [12], "tags": [2]}})
    attention = answer["attention"]
    assert attention["candidates"] == answer["ranking"]
    assert attention["without"] == pytest.approx([without[index] for index in answer["ranking"]], abs=1e-7)


async def test_history_without_ids_is_explained(client: httpx2.AsyncClient, good: Body) -> None:
    """Where there is no id there is none to remove."""
    body = good | {"history": {"ids": [], "tags": [1, 2]}, "explain": True, "top_k": 1}
    attention = (await client.post("/score", json=body)).json()["attention"]
    assert (attention["ids"], attention["tags"]) == ([[]], [[0.5, 0.5]])
    assert (attention["removed"], attention["without"]) == ([None], [None])


async def test_explained_candidates_are_bounded(client: httpx2.AsyncClient, app: Any, good: Body) -> None:
    """Of more candidates than the setting allows, the first are explained, and all are scored."""
    service = app.state.service
    service.settings = service.settings.model_copy(update={"max_explained": 2})
    answer = (await client.post("/score", json=good | {"explain": True})).json()
    assert answer["attention"]["candidates"] == [0, 1]
    assert len(answer["attention"]["ids"]) == len(answer["attention"]["without"]) == 2
    assert len(answer["probabilities"]) == 3


async def test_concurrent_requests_do_not_cross(client: httpx2.AsyncClient, expected: Expected) -> None:
    """Many different requests at once each get their own answer."""
    bodies = [
        {
            "history": {"ids": list(range(n % 7)), "tags": list(range(n % 5))},
            "candidates": {"ids": [n * 10 + i for i in range(1 + n % 8)], "tags": [n] * (1 + n % 8)},
        }
        for n in range(60)
    ]
    responses = await asyncio.gather(*(client.post("/score", json=body) for body in bodies))
    for body, response in zip(bodies, responses, strict=True):
        assert response.json()["probabilities"] == pytest.approx(expected(body), abs=1e-7)


async def test_times_are_told_in_body_and_header(client: httpx2.AsyncClient, good: Body) -> None:
    """The stages' milliseconds stand in the body and in Server-Timing, and the total holds them all."""
    response = await client.post("/score", json=good)
    latency = response.json()["latency_ms"]
    header = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    assert {stage: float(ms) for stage, ms in header.items()} == latency
    assert list(latency) == ["parse", "queue", "pack", "infer", "total"]
    assert sum(latency.values()) - latency["total"] <= latency["total"] + 0.005  # each is rounded


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x"])
async def test_content_type_may_have_parameters(client: httpx2.AsyncClient, good: Body, content_type: str) -> None:
    """Any spelling of application/json is taken."""
    response = await client.post("/score", json=good, headers={"Content-Type": content_type})
    assert response.status_code == 200


@pytest.mark.parametrize("given", ["a", "A-1_b.c", "x" * 64])
async def test_harmless_request_id_is_kept(client: httpx2.AsyncClient, good: Body, given: str) -> None:
    """A client's own request id comes back in header and body."""
    response = await client.post("/score", json=good, headers={"X-Request-Id": given})
    assert response.headers["x-request-id"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "é", "<script>"])
async def test_other_request_ids_are_replaced(client: httpx2.AsyncClient, good: Body, given: str) -> None:
    """A request id that could do harm in a log is replaced by a new one."""
    response = await client.post("/score", json=good, headers=[(b"X-Request-Id", given.encode())])
    assert response.headers["x-request-id"] == response.json()["request_id"] != given
    assert len(response.json()["request_id"]) == 16


async def test_paths_below_a_root_path_work(
    app: Any, client: httpx2.AsyncClient, good: Body, expected: Expected
) -> None:
    """Behind a proxy that keeps its prefix, the router finds what the shortcut does not."""
    transport = httpx2.ASGITransport(app, root_path="/ctr")
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as behind:
        response = await behind.post("/ctr/score", json=good)
        assert response.json()["probabilities"] == pytest.approx(expected(good), abs=1e-7)
        response = await behind.post("/ctr/score", json=[])
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_request")


async def test_good_requests_are_counted(
    client: httpx2.AsyncClient, good: Body, samples: Callable[[str], float]
) -> None:
    """Metrics count the request, its stages, its batch, and what became of its history."""
    await client.post("/score", json=good)
    await client.post("/score", json=good | {"history": {"ids": [], "tags": []}})
    await client.post("/score", json=good | {"history": {"ids": [1, 2, 3, 4, 5], "tags": []}})
    assert samples('din_requests_total{code="ok"}') == 3
    assert samples("din_request_duration_seconds_count") == 3
    assert samples('din_stage_duration_seconds_count{stage="respond"}') == 3
    assert samples("din_batch_rows_sum") == 9
    assert samples("din_batch_requests_sum") == 3
    assert samples("din_batch_padding_ratio_count") == 3
    assert samples("din_empty_histories_total") == 1
    assert samples("din_history_truncated_total") == 1
    assert samples("din_in_flight_requests") == 0
