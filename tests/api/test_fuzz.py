"""No body whatever makes the server fail."""

import asyncio
import json
from typing import Any

import httpx2
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# The application under test is as good as new after every request.
SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

INTEGERS = st.integers() | st.integers(-(2**63), 2**63 - 1)
ANYTHING = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
COLUMN = st.lists(INTEGERS, max_size=9) | ANYTHING
COLUMNS = st.fixed_dictionaries({}, optional={"ids": COLUMN, "tags": COLUMN, "x": ANYTHING}) | ANYTHING
BODIES = st.fixed_dictionaries(
    {}, optional={"history": COLUMNS, "candidates": COLUMNS, "top_k": ANYTHING, "explain": ANYTHING, "x": ANYTHING}
)


def answers(app: FastAPI, strategy: st.SearchStrategy[bytes]) -> set[int]:
    """Statuses of the answers to whatever the strategy makes."""
    statuses: set[int] = set()
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        runner.run(app.state.service.loaded())
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test")

        @SETTINGS
        @given(strategy)
        def send(body: bytes) -> None:
            headers = {"Content-Type": "application/json"}
            response = runner.run(client.post("/score", content=body, headers=headers))
            answer: dict[str, Any] = response.json()
            assert response.status_code < 500
            assert ("probabilities" in answer) == (response.status_code == 200)
            statuses.add(response.status_code)

        try:
            send()
        finally:
            runner.run(client.aclose())
            runner.run(lifespan.__aexit__(None, None, None))
    return statuses


def test_any_json_is_answered(app: FastAPI) -> None:
    """Whatever JSON a client sends, right shape or not, the answer is no 5xx."""
    assert 422 in answers(app, BODIES.map(lambda body: json.dumps(body).encode()))


def test_any_bytes_are_answered(app: FastAPI) -> None:
    """Whatever bytes a client sends, the answer is no 5xx."""
    assert 400 in answers(app, st.binary(max_size=200))


def test_any_damage_is_answered(app: FastAPI) -> None:
    """A good body with a piece cut out and other bytes put in gets no 5xx."""
    good = b'{"history": {"ids": [1, 2], "tags": [3]}, "candidates": {"ids": [4, 5], "tags": [6, 7]}, "top_k": 1}'
    pieces = st.tuples(st.integers(0, len(good)), st.integers(0, 6), st.binary(max_size=6))
    assert 400 in answers(app, pieces.map(lambda p: good[: p[0]] + p[2] + good[p[0] + p[1] :]))
