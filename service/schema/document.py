"""What the OpenAPI document says beyond the wire models: limits, headers, and every answer that is not a success."""

from typing import Any

from service.errors import RequestError
from service.schema.body import Limits
from service.schema.wire import (
    REQUEST_EXAMPLE,
    RESPONSE_EXAMPLE,
    ErrorResponse,
    HealthResponse,
    ItemRequest,
    ScoreRequest,
)

_DEADLINE = {
    "name": "X-Deadline-Ms",
    "in": "header",
    "description": "how long the caller waits, in ms",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}
_REQUEST_ID = {"X-Request-Id": {"description": "the request's own, if fit for a log", "schema": {"type": "string"}}}
_RETRY = {"Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer"}}}
_BEARER = {"WWW-Authenticate": {"description": "Bearer", "required": True, "schema": {"type": "string"}}}
_HEADERS = {401: _REQUEST_ID | _BEARER, 503: _REQUEST_ID | _RETRY}
_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}


def score_request(limits: Limits, *, catalog: bool = False) -> dict[str, Any]:
    """The OpenAPI operation of POST /score, as far as it is about what comes in, with a catalog or without."""
    model = ItemRequest[int | str, int | str] if catalog else ScoreRequest[int | str, int | str]
    content = {"application/json": {"schema": _request_schema(model, limits), "example": REQUEST_EXAMPLE}}
    return {"requestBody": {"required": True, "content": content}, "parameters": [_DEADLINE]}


def _request_schema(model: type[ScoreRequest[Any, Any]], limits: Limits) -> dict[str, Any]:
    """JSON schema of the body of POST /score, without references."""
    schema = model.model_json_schema()
    (columns,) = schema.pop("$defs").values()
    columns["title"], schema["title"] = "Columns", "ScoreRequest"
    for name, bounds in (
        ("history", {"maxItems": limits.max_history}),
        ("candidates", {"minItems": 1, "maxItems": limits.max_candidates}),
    ):
        items = {"anyOf": [{"type": "integer", **_INT64}, {"type": "string"}]}
        properties = {each: {**column, "items": items, **bounds} for each, column in columns["properties"].items()}
        described = schema["properties"][name]["description"]
        schema["properties"][name] = {**columns, "properties": properties, "description": described}
    return schema


def error_responses(status: dict[type[RequestError], int]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of these errors: one for each status, with an example for each code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind, number in status.items():
        summary = (kind.__doc__ or "").partition("\n")[0]
        empty = {
            "model": ErrorResponse,
            "description": summary,
            "headers": _HEADERS.get(number, _REQUEST_ID),
            "content": {"application/json": {"examples": {}}},
        }
        examples = responses.setdefault(number, empty)["content"]["application/json"]["examples"]
        detail = {"code": kind.code, "message": summary, "field": None}
        request_id = RESPONSE_EXAMPLE["request_id"]
        examples[kind.code] = {"summary": summary, "value": {"error": detail, "request_id": request_id}}
    return responses


def health_responses() -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of the health routes beside 200."""
    return {503: {"model": HealthResponse, "headers": _REQUEST_ID | _RETRY}}


def metrics_responses() -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of GET /metrics."""
    text = {"schema": {"type": "string"}}
    return {200: {"content": {"text/plain": text, "application/openmetrics-text": text}}}
