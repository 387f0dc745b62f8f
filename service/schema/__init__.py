"""The wire: its models (`wire`, `admin`), and the way between bytes and what the service computes with (`body`)."""

from service.rollout import Share
from service.schema.admin import SHARE_EXAMPLE, VersionsResponse, decode_share, render_versions
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
    "SHARE_EXAMPLE",
    "ErrorResponse",
    "HealthResponse",
    "Limits",
    "ModelResponse",
    "Query",
    "ScoreRequest",
    "ScoreResponse",
    "Share",
    "VersionsResponse",
    "decode",
    "decode_share",
    "error_responses",
    "render",
    "render_error",
    "render_health",
    "render_model",
    "render_versions",
    "request_schema",
]
