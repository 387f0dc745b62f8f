"""Bodies become samples, and results become bytes that read back exactly."""

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact import Feature, Features, Manifest
from service.errors import InvalidRequest, MalformedJson
from service.explain import Explanation
from service.schema import Limits, decode, render, score_request

LIMITS = Limits(max_candidates=100, max_history=100)
INT64 = st.integers(-(2**63), 2**63 - 1)
KINDS = {"int64": INT64, "string": st.text(max_size=5)}


def manifest_of(id_dtype: str = "int64", tag_dtype: str = "int64", most: int = 100) -> Manifest:
    """A manifest of these dtypes that reads `most` of a history."""
    kinds = [
        Feature.model_validate({"dtype": dtype, "buckets": 8, "dimension": 2, "max_history": most})
        for dtype in (id_dtype, tag_dtype)
    ]
    return Manifest(version="1", created="", features=Features(id=kinds[0], tag=kinds[1]))


def body_of(history: tuple[Any, Any] = ((), ()), candidates: tuple[Any, Any] = ((1,), (1,)), **options: Any) -> bytes:
    """A body of these (ids, tags)."""
    parts = {"history": history, "candidates": candidates}
    columns = {name: dict(zip(("ids", "tags"), pair, strict=True)) for name, pair in parts.items()}
    return json.dumps(columns | options).encode()


@pytest.mark.parametrize("tag_dtype", ["int64", "string"])
@pytest.mark.parametrize("id_dtype", ["int64", "string"])
@given(data=st.data())
def test_columns_arrive_unchanged(id_dtype: str, tag_dtype: str, data: st.DataObject) -> None:
    """Every legal value of every dtype comes out of the body as it went in."""
    ids, tags = KINDS[id_dtype], KINDS[tag_dtype]
    history = data.draw(st.tuples(st.lists(ids), st.lists(tags)))
    pairs = data.draw(st.lists(st.tuples(ids, tags), min_size=1))
    candidates = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    query = decode(body_of(history, candidates), manifest_of(id_dtype, tag_dtype), LIMITS)
    sample = query.sample
    sent = [*history, *candidates]
    arrived = [sample.seq_id, sample.seq_tag, sample.target_id, sample.target_tag]
    for column, array, dtype in zip(sent, arrived, (id_dtype, tag_dtype) * 2, strict=True):
        assert array.dtype == (np.int64 if dtype == "int64" else object)
        assert array.tolist() == [value.encode() if isinstance(value, str) else value for value in column]


def test_history_keeps_the_newest() -> None:
    """Of a history longer than the model reads the newest stay, and the query says so."""
    query = decode(body_of(([1, 2, 3], [4, 5])), manifest_of(most=2), LIMITS)
    assert query.sample.seq_id.tolist() == [2, 3]
    assert query.sample.seq_tag.tolist() == [4, 5]
    assert query.truncated
    assert not query.empty


@pytest.mark.parametrize(
    ("history", "empty"),
    [
        pytest.param(([], []), True, id="nothing"),
        pytest.param(([1], []), False, id="ids"),
        pytest.param(([], [1]), False, id="tags"),
    ],
)
def test_empty_history_is_noticed(history: tuple[Any, Any], empty: bool) -> None:
    """A history counts as empty when it has neither ids nor tags."""
    assert decode(body_of(history), manifest_of(), LIMITS).empty is empty


def test_options_have_defaults() -> None:
    """Without options nothing is ranked or explained; with them they are taken over."""
    plain = decode(body_of(), manifest_of(), LIMITS)
    asked = decode(body_of(top_k=3, explain=True), manifest_of(), LIMITS)
    assert (plain.top_k, plain.explain, plain.truncated) == (None, False, False)
    assert (asked.top_k, asked.explain) == (3, True)


def test_surrogate_pairs_are_text() -> None:
    """Escaped characters beyond the basic plane arrive as UTF-8."""
    query = decode(body_of(candidates=(["\N{GRINNING FACE}"], [1])), manifest_of("string"), LIMITS)
    assert query.sample.target_id.tolist() == ["\N{GRINNING FACE}".encode()]


@pytest.mark.parametrize("digits", [20, 4300, 4301, 50_000])
def test_endless_number_is_out_of_range(digits: int) -> None:
    """A number of any length is JSON out of range, not a failure of the parser."""
    with pytest.raises(InvalidRequest, match="does not fit"):
        decode(body_of().replace(b"[1]", b"[" + b"9" * digits + b"]"), manifest_of(), LIMITS)


def test_first_problem_is_named() -> None:
    """Of several problems the first is named by its path."""
    with pytest.raises(InvalidRequest) as caught:
        decode(body_of(history=([1, None], []), candidates=([True], [])), manifest_of(), LIMITS)
    assert caught.value.field == "history.ids[1]"


def test_repeated_name_in_a_dropped_value_is_found() -> None:
    """A name repeated inside a value that its own repetition replaces is still a repeated name."""
    body = body_of().replace(b"{", b'{"history": {"ids": 1, "ids": [[{}]]}, ', 1)
    with pytest.raises(InvalidRequest, match="more than once") as caught:
        decode(body, manifest_of(), LIMITS)
    assert caught.value.field == "history.ids"


def test_malformed_json_has_no_field() -> None:
    """What is not JSON is another error than what is JSON of another shape."""
    with pytest.raises(MalformedJson) as caught:
        decode(b"{", manifest_of(), LIMITS)
    assert caught.value.field is None


@given(st.lists(st.floats(0, 1, width=32), min_size=1))
def test_probabilities_read_back_exactly(values: list[float]) -> None:
    """Every float32 comes back from the answer as the same float32."""
    probabilities = np.array(values, np.float32)
    answer = json.loads(render(probabilities, None, None, {}, "", {}))
    assert np.array_equal(np.array(answer["probabilities"], np.float32), probabilities)


def test_views_are_rendered() -> None:
    """Arrays that are parts of larger ones are written like any other."""
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    explanation = Explanation(np.array([2, 0]), whole[:, :2], whole.T, np.array([1, 0]), whole[:2, 1])
    answer = orjson.loads(render(whole[:, 1], explanation, 2, {"name": "din"}, "id", {"total": 1.5}))
    assert answer == {
        "probabilities": [1.0, 5.0, 9.0],
        "ranking": [2, 1],
        "attention": {
            "candidates": [2, 0],
            "ids": whole[:, :2].tolist(),
            "tags": whole.T.tolist(),
            "removed": [1, 0],
            "without": [1.0, 5.0],
        },
        "model": {"name": "din"},
        "request_id": "id",
        "latency_ms": {"total": 1.5},
    }


def test_request_schema_stands_alone() -> None:
    """The documented schema refers to nothing outside itself."""
    assert "$ref" not in json.dumps(score_request(Limits(9, 6)))
