"""What travels over the wire: the request body checked in pydantic-core, the answer written by orjson.

The way in is body -> `ScoreRequest` -> `Query` (a `Sample` and what to do with it). Messages are ours, not pydantic's:
they never repeat a client's values, and of its field names only a printable hundred characters, in `field`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import orjson
from pydantic import ValidationError

from service.artifact import Manifest, to_array, to_sample
from service.batch import Floats, Sample
from service.catalog import Catalog, default_tag
from service.errors import InvalidRequest, MalformedJson
from service.explain import Explanation, rank
from service.rollout import Rollout
from service.schema.wire import ItemRequest, ModelResponse, ScoreRequest

_LONGEST_FIELD = 100  # characters of a client's own field name that are repeated to it
_MOST_PROBLEMS = 20  # beyond, only unknown fields can be the cause, and building pydantic's list would take 100 ms
_MESSAGES = {
    "missing": "this field is required",
    "extra_forbidden": "there is no such field",
    "int_type": "this must be an integer",
    "string_type": "this must be a string",
    "list_type": "this must be an array",
    "bool_type": "this must be true or false",
    "model_type": "this must be an object",
    "greater_than_equal": "this must be 1 or more",
}
_BEYOND_INT64 = "this does not fit a signed 64-bit integer"


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A request that passed every check."""

    sample: Sample
    top_k: int | None
    explain: bool
    truncated: bool  # the model keeps only the newest of the history
    empty: bool  # there is no history at all
    unknown: int = 0  # ids whose tag was looked up in vain


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request may hold."""

    max_candidates: int
    max_history: int


def decode(body: bytes, manifest: Manifest, limits: Limits, catalog: Catalog | None = None) -> Query:
    """Check a body against the wire model, the limits and the manifest's dtypes; with a catalog, tags may be left out.

    Raises:
        MalformedJson: it is not JSON.
        InvalidRequest: it is JSON of another shape, type or range; `field` names the place.
    """
    features = manifest.features
    if catalog is not None and not catalog.fits(manifest):  # it is read again soon
        catalog = None
    models = _MODELS if catalog is None else _ITEM_MODELS
    request = _validate(body, models[features.id.dtype, features.tag.dtype], manifest)
    _check_lengths(request, limits)
    unknown = 0 if catalog is None else _look_up(request, catalog, manifest)
    history, candidates = request.history, request.candidates
    truncated = len(history.ids) > features.id.max_history or len(history.tags) > features.tag.max_history
    try:
        if truncated:  # what the sample will not hold is checked too
            to_array(history.ids, features.id.dtype)
            to_array(history.tags, features.tag.dtype)
        sample = to_sample(manifest, (history.ids, history.tags), (candidates.ids, candidates.tags))
    except OverflowError:
        _refuse_beyond_int64(request)
    return Query(sample, request.top_k, request.explain, truncated, not (history.ids or history.tags), unknown)


def render(
    probabilities: Floats,
    explanation: Explanation | None,
    top_k: int | None,
    model: dict[str, str],
    request_id: str,
    latency_ms: dict[str, float],
) -> bytes:
    """Write an answer; float32 probabilities (C,) in the shortest form that reads back exactly."""
    answer = {
        "probabilities": np.ascontiguousarray(probabilities),  # orjson takes no other layout
        "ranking": None if top_k is None else rank(probabilities, top_k),
        "attention": explanation and _describe(explanation),
        "model": model,
        "request_id": request_id,
        "latency_ms": latency_ms,
    }
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def render_error(code: str, message: str, field: str | None, request_id: str) -> bytes:
    """Write the body of an answer that is not a success."""
    return orjson.dumps({"error": {"code": code, "message": message, "field": field}, "request_id": request_id})


def render_health(health: dict[str, Any]) -> bytes:
    """Write the body of the health routes."""
    return orjson.dumps(health)


def render_model(manifest: Manifest, engine: str, fallback_reason: str | None, rollout: Rollout) -> bytes:
    """Write the body of GET /model."""
    described = ModelResponse.model_construct(
        **dict(manifest), engine=engine, fallback_reason=fallback_reason, rollout=rollout
    )
    return described.model_dump_json().encode()


def _describe(explanation: Explanation) -> dict[str, Any]:
    nothing = [None] * len(explanation.candidates)
    columns = {
        "candidates": explanation.candidates,
        "ids": explanation.ids,
        "tags": explanation.tags,
        "removed": explanation.removed,
        "without": explanation.without,
    }
    return {name: nothing if each is None else np.ascontiguousarray(each) for name, each in columns.items()}


# By the dtypes of ids and tags.
_MODELS: dict[tuple[str, str], type[ScoreRequest[Any, Any]]] = {
    ("int64", "int64"): ScoreRequest[int, int],
    ("int64", "string"): ScoreRequest[int, str],
    ("string", "int64"): ScoreRequest[str, int],
    ("string", "string"): ScoreRequest[str, str],
}

_ITEM_MODELS: dict[tuple[str, str], type[ScoreRequest[Any, Any]]] = {
    ("int64", "int64"): ItemRequest[int, int],
    ("int64", "string"): ItemRequest[int, str],
    ("string", "int64"): ItemRequest[str, int],
    ("string", "string"): ItemRequest[str, str],
}


def _validate(body: bytes, model: type[ScoreRequest[Any, Any]], manifest: Manifest) -> ScoreRequest[Any, Any]:
    try:
        request = model.model_validate_json(body)
    except ValidationError as error:
        _refuse_invalid(error)
    # pydantic keeps the last of repeated names. Every name and every string brings two quotes, so a count tells at
    # once that none is repeated; only escaped quotes inside strings need the slower look as well.
    if body.count(b'"') > 2 * (_names(request) + _strings(request, manifest)):
        repeated = next(_repeated(json.loads(body, object_pairs_hook=_Pairs), ""), None)
        if repeated is not None:
            raise InvalidRequest("this field appears more than once", repeated)
    return request


def _names(request: ScoreRequest[Any, Any]) -> int:
    """How many object members a body without repetitions had."""
    return sum([len(each.model_fields_set) for each in (request, request.history, request.candidates)])


def _strings(request: ScoreRequest[Any, Any], manifest: Manifest) -> int:
    history, candidates, features = request.history, request.candidates, manifest.features
    ids = len(history.ids) + len(candidates.ids) if features.id.dtype == "string" else 0
    return ids + (len(history.tags) + len(candidates.tags) if features.tag.dtype == "string" else 0)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repetitions."""


def _repeated(pairs: _Pairs, path: str) -> Iterator[str]:
    """Paths of the members whose name an object has already had."""
    seen = set()
    for name, value in pairs:
        if name in seen:
            yield path + name
        seen.add(name)
        if isinstance(value, _Pairs):
            yield from _repeated(value, f"{path}{name}.")


def _check_lengths(request: ScoreRequest[Any, Any], limits: Limits) -> None:
    history, candidates = request.history, request.candidates
    if not candidates.ids:
        raise InvalidRequest("at least one candidate is required", "candidates.ids")
    if len(candidates.ids) > limits.max_candidates:
        raise InvalidRequest(f"at most {limits.max_candidates} candidates are accepted", "candidates.ids")
    if len(candidates.tags) != len(candidates.ids) and "tags" in candidates.model_fields_set:
        raise InvalidRequest("there must be as many tags as ids", "candidates.tags")
    for name, column in (("ids", history.ids), ("tags", history.tags)):
        if len(column) > limits.max_history:
            raise InvalidRequest(f"at most {limits.max_history} are accepted", f"history.{name}")


def _look_up(request: ScoreRequest[Any, Any], catalog: Catalog, manifest: Manifest) -> int:
    """Put in the tags that were left out; returns how many ids have none."""
    unknown = 0
    for part in (request.history, request.candidates):
        if "tags" not in part.model_fields_set:
            part.tags, missing = catalog.find_tags(part.ids, default_tag(manifest))
            unknown += missing
    return unknown


def _refuse_invalid(error: ValidationError) -> NoReturn:
    if error.error_count() > _MOST_PROBLEMS:
        raise InvalidRequest("there are many unknown fields") from None
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] != "json_invalid":
        raise InvalidRequest(_MESSAGES.get(first["type"], "this is not valid"), _path(first["loc"])) from None
    if "number out of range" in first["msg"]:  # JSON all the same, but the parser stops at 4300 digits
        raise InvalidRequest("a number does not fit a signed 64-bit integer") from None
    raise MalformedJson("the body is not valid JSON") from None


def _refuse_beyond_int64(request: ScoreRequest[Any, Any]) -> NoReturn:
    for part in ("history", "candidates"):
        for name, column in getattr(request, part):
            for index, value in enumerate(column):
                if isinstance(value, int) and not -(2**63) <= value < 2**63:
                    raise InvalidRequest(_BEYOND_INT64, f"{part}.{name}[{index}]") from None
    raise AssertionError("numpy refused integers that fit")  # pragma: no cover


def _path(location: tuple[int | str, ...]) -> str | None:
    """Write ("candidates", "ids", 3) as `candidates.ids[3]`; a client's own names may stand in it."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)[1:]
    return "".join(char if char.isprintable() else "?" for char in path[:_LONGEST_FIELD]) or None
