"""The wire: its models (`wire`), and the way between bytes and what the service computes with (`body`)."""

from service.schema.body import Limits, Query, decode, render, render_error, render_health, render_model
from service.schema.wire import (
    REQUEST_EXAMPLE,
    RESPONSE_EXAMPLE,
    ErrorResponse,
    HealthResponse,
    ModelResponse,
    ScoreRequest,
    ScoreResponse,
    error_responses,
    request_schema,
)

__all__ = [
    "REQUEST_EXAMPLE",
    "RESPONSE_EXAMPLE",
    "ErrorResponse",
    "HealthResponse",
    "Limits",
    "ModelResponse",
    "Query",
    "ScoreRequest",
    "ScoreResponse",
    "decode",
    "error_responses",
    "render",
    "render_error",
    "render_health",
    "render_model",
    "request_schema",
]
