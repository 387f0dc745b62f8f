"""Whatever a client sends wrongly is named, never echoed, and never felt by its neighbours."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import pytest

from service.schema import ErrorResponse

pytestmark = pytest.mark.anyio

MARKER = "do-not-repeat-me"
JSON = {"Content-Type": "application/json"}


def score(**changes: Any) -> bytes:
    """A good body with changes, such as `candidates__ids=[1]`; a change to `...` leaves the member out."""
    body: dict[str, Any] = {
        "history": {"ids": [11, 12], "tags": [1, 2]},
        "candidates": {"ids": [21, 22], "tags": [3, 4]},
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        part = body
        for parent in parents:
            part = part[parent]
        part[last] = value
        if value is ...:
            del part[last]
    return json.dumps(body).encode()


def literal(text: str) -> bytes:
    """A good body whose second candidate id is this text."""
    return score(candidates__ids=[21, "HERE"]).replace(b'"HERE"', text.encode())


SECOND = "candidates.ids[1]"
MALFORMED = {
    "empty": b"",
    "text": MARKER.encode(),
    "cut-short": score()[:-1],
    "trailing-garbage": score() + MARKER.encode(),
    "two-documents": score() * 2,
    "single-quotes": score().replace(b'"', b"'"),
    "invalid-utf8": score(history__ids=["\\xff"]).replace(b"\\\\xff", b"\xff"),
    "lone-surrogate": score().replace(b"history", b"\\ud800"),
    "byte-order-mark": b"\xef\xbb\xbf" + score(),
    "utf-16": score().decode().encode("utf-16"),
    "deep-arrays": b"[" * 1900,
    "deep-objects": b'{"a":' * 390,
    "deep-and-closed": b"[" * 900 + b"]" * 900,
    "deep-in-a-column": literal("[" * 800 + "]" * 800),
    "comment": b"/* */" + score(),
    "trailing-comma": score().replace(b"4]", b"4,]"),
    "leading-zero": literal("012"),
    "plus-sign": literal("+1"),
    "nul": score() + b"\0",
}
INVALID: dict[str, tuple[bytes, str | None]] = {
    "array": (b"[]", None),
    "string": (json.dumps(MARKER).encode(), None),
    "number": (b"1", None),
    "null": (b"null", None),
    "unknown-field": (score(extra=MARKER), "extra"),
    "unknown-nested-field": (score(history__extra=MARKER), "history.extra"),
    "unknown-field-of-odd-name": (score(**{"a\nb" + "é" * 200: 1}), "a?b" + "é" * 97),
    "many-unknown-fields": (score(**{f"a{i}": 1 for i in range(50)}), None),
    "no-history": (score(history=...), "history"),
    "no-candidates": (score(candidates=...), "candidates"),
    "no-history-tags": (score(history__tags=...), "history.tags"),
    "no-candidate-ids": (score(candidates__ids=...), "candidates.ids"),
    "history-of-wrong-type": (score(history=[MARKER]), "history"),
    "null-candidates": (score(candidates=None), "candidates"),
    "column-of-wrong-type": (score(candidates__ids={MARKER: 1}), "candidates.ids"),
    "null-column": (score(history__tags=None), "history.tags"),
    "more-tags-than-ids": (score(candidates__tags=[1, 2, 3]), "candidates.tags"),
    "more-ids-than-tags": (score(candidates__tags=[1]), "candidates.tags"),
    "float": (literal("1.5"), SECOND),
    "whole-float": (literal("22.0"), SECOND),
    "exponent": (literal("2e1"), SECOND),
    "true": (literal("true"), SECOND),
    "false-in-history": (score(history__ids=[False]), "history.ids[0]"),
    "null-element": (literal("null"), SECOND),
    "string-element": (score(candidates__ids=[21, MARKER]), SECOND),
    "digits-as-string": (score(candidates__ids=[21, "22"]), SECOND),
    "array-element": (literal("[22]"), SECOND),
    "nan": (literal("NaN"), SECOND),
    "infinity": (literal("Infinity"), SECOND),
    "minus-infinity": (literal("-Infinity"), SECOND),
    "overflowing-float": (literal("1e999"), SECOND),
    "just-beyond-int64": (literal(str(2**63)), SECOND),
    "just-below-int64": (literal(str(-(2**63) - 1)), SECOND),
    "far-beyond-int64": (literal("9" * 1000), SECOND),
    "beyond-int64-in-what-the-model-skips": (score(history__tags=[2**63, 1, 2, 3, 4, 5]), "history.tags[0]"),
    "duplicate-key": (score().replace(b"{", b'{"history": {"ids": [], "tags": []}, ', 1), "history"),
    "duplicate-nested-key": (score().replace(b'"tags": [3', b'"ids": [8, 9], "tags": [3'), "candidates.ids"),
    "duplicate-key-spelled-differently": (score().replace(b"{", b'{"h\\u0069story": 0, ', 1), "history"),
    "duplicate-option": (score().replace(b"{", b'{"top_k": 1, "top_k": 2, ', 1), "top_k"),
    "no-candidate": (score(candidates__ids=[], candidates__tags=[]), "candidates.ids"),
    "too-many-candidates": (score(candidates__ids=[1] * 9, candidates__tags=[1] * 9), "candidates.ids"),
    "too-much-history": (score(history__ids=[1] * 7), "history.ids"),
    "too-many-history-tags": (score(history__tags=[1] * 7), "history.tags"),
    "top-k-zero": (score(top_k=0), "top_k"),
    "top-k-negative": (score(top_k=-1), "top_k"),
    "top-k-true": (score(top_k=True), "top_k"),
    "top-k-float": (score(top_k=1.0), "top_k"),
    "top-k-string": (score(top_k=MARKER), "top_k"),
    "explain-number": (score(explain=1), "explain"),
    "explain-null": (score(explain=None), "explain"),
}


def rows() -> Iterator[Any]:
    """Every bad request: body, headers, and the status, code and field of its answer."""
    for name, body in MALFORMED.items():
        yield pytest.param(body, JSON, 400, "malformed_json", None, id=name)
    for name, (body, field) in INVALID.items():
        yield pytest.param(body, JSON, 422, "invalid_request", field, id=name)
    for name, kind in {
        "text": "text/plain",
        "form": "application/x-www-form-urlencoded",
        "like": "application/jsonp",
    }.items():
        headers = {"Content-Type": kind + ";" + MARKER}
        yield pytest.param(score(), headers, 415, "unsupported_media_type", "Content-Type", id=f"{name}-content-type")
    yield pytest.param(score(), {}, 415, "unsupported_media_type", "Content-Type", id="no-content-type")
    yield pytest.param(score() + b" " * 2000, JSON, 413, "body_too_large", None, id="announced-body-over-the-limit")
    for given in ("0", "-1", "1_0", MARKER, "nan", "inf", "", "1,2"):
        headers = JSON | {"X-Deadline-Ms": given}
        yield pytest.param(score(), headers, 422, "invalid_request", "X-Deadline-Ms", id=f"deadline-{given or 'empty'}")


@pytest.mark.parametrize(("body", "headers", "status", "code", "field"), list(rows()))
@pytest.mark.usefixtures("neighbour")
async def test_bad_request_is_named(
    client: httpx2.AsyncClient,
    samples: Callable[[str], float],
    body: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
    field: str | None,
) -> None:
    """A bad request gets its status, code and field, no echo, and a good one beside it is answered as if alone."""
    response = await client.post("/score", content=body, headers=headers)
    answer = ErrorResponse.model_validate_json(response.content)
    assert (response.status_code, answer.error.code, answer.error.field) == (status, code, field)
    assert answer.request_id == response.headers["x-request-id"]
    assert MARKER not in response.text
    assert samples(f'din_requests_total{{code="{code}"}}') == 1


async def unreadable() -> AsyncIterator[bytes]:
    """A body that nobody may ask for."""
    pytest.fail("the body was read")
    yield b""


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    """A body without an announced length."""
    for chunk in chunks:
        yield chunk


@pytest.mark.usefixtures("neighbour")
async def test_unannounced_body_over_the_limit_is_refused(client: httpx2.AsyncClient) -> None:
    """A body that comes in chunks is cut off where it passes the limit."""
    response = await client.post("/score", content=stream(score(), *[b" " * 100] * 30), headers=JSON)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("length", ["9" * 30, "2001"])
async def test_announced_length_is_refused_before_reading(client: httpx2.AsyncClient, length: str) -> None:
    """A length over the limit is refused without reading a byte."""
    headers = JSON | {"Content-Length": length}
    response = await client.post("/score", content=unreadable(), headers=headers)
    assert response.status_code == 413


@pytest.mark.parametrize("pad", [0, 1])
async def test_body_limit_is_exact(client: httpx2.AsyncClient, pad: int) -> None:
    """A body as long as the limit passes, one byte more does not, announced or not."""
    body = score().ljust(2000 + pad)
    announced = await client.post("/score", content=body, headers=JSON)
    chunked = await client.post("/score", content=stream(body[:50], body[50:]), headers=JSON)
    assert announced.status_code == chunked.status_code == (413 if pad else 200)


@pytest.mark.parametrize("dtypes", [pytest.param(("string", "string"), id="strings")])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(score(history__ids=[], history__tags=[]), "candidates.ids[0]", id="integers"),
        pytest.param(
            b'{"history": {"ids": [], "tags": []}, "history": {"ids": [], "tags": []},'
            b'"candidates": {"ids": ["a\\"\\""], "tags": ["b"]}}',
            "history",
            id="duplicate-key-beside-escaped-quotes",
        ),
    ],
)
async def test_string_model_refuses_the_rest(client: httpx2.AsyncClient, body: bytes, field: str) -> None:
    """A string model takes no integers, and sees repeated names through quotes inside strings."""
    response = await client.post("/score", content=body, headers=JSON)
    assert (response.status_code, response.json()["error"]["field"]) == (422, field)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "allow"),
    [
        pytest.param("GET", "/score", 405, "method_not_allowed", "POST", id="get-score"),
        pytest.param("PUT", "/score", 405, "method_not_allowed", "POST", id="put-score"),
        pytest.param("POST", "/health", 405, "method_not_allowed", "GET", id="post-health"),
        pytest.param("POST", "/metrics", 405, "method_not_allowed", "GET", id="post-metrics"),
        pytest.param("POST", f"/{MARKER}", 404, "not_found", None, id="unknown-path"),
        pytest.param("POST", "/score/", 404, "not_found", None, id="trailing-slash"),
        pytest.param("POST", "/", 405, "method_not_allowed", "GET", id="post-playground"),
    ],
)
@pytest.mark.usefixtures("neighbour")
async def test_wrong_path_or_method_is_named(
    client: httpx2.AsyncClient, method: str, path: str, status: int, code: str, allow: str | None
) -> None:
    """A wrong path or method gets the same error body, and the methods that would do."""
    response = await client.request(method, path, content=score(), headers=JSON)
    answer = ErrorResponse.model_validate_json(response.content)
    assert (response.status_code, answer.error.code) == (status, code)
    assert response.headers.get("allow") == allow
    assert MARKER not in response.text
