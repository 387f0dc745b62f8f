"""The wire: its models (`wire`, `admin`), bytes to values and back (`body`), and OpenAPI about it all (`document`)."""

from service.rollout import Share
from service.schema.admin import SHARE_EXAMPLE, VersionsResponse, decode_share, render_versions
from service.schema.body import Limits, Query, decode, render, render_error, render_health, render_model
from service.schema.document import error_responses, health_responses, metrics_responses, score_request
from service.schema.wire import (
    REQUEST_EXAMPLE,
    RESPONSE_EXAMPLE,
    ErrorResponse,
    HealthResponse,
    ModelResponse,
    ScoreRequest,
    ScoreResponse,
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
    "health_responses",
    "metrics_responses",
    "render",
    "render_error",
    "render_health",
    "render_model",
    "render_versions",
    "score_request",
]
