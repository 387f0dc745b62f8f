"""The wire: models (`wire`, `admin`, `items`), bytes to values and back (`body`), and OpenAPI about it (`document`)."""

from service.rollout import Share
from service.schema.admin import SHARE_EXAMPLE, VersionsResponse, decode_share, render_versions
from service.schema.body import Limits, Query, decode, render, render_error, render_health, render_model
from service.schema.document import error_responses, health_responses, metrics_responses, score_request
from service.schema.items import (
    CATALOG_EXAMPLE,
    CatalogResponse,
    Search,
    decode_search,
    render_items,
    search_request,
)
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
    "CATALOG_EXAMPLE",
    "REQUEST_EXAMPLE",
    "RESPONSE_EXAMPLE",
    "SHARE_EXAMPLE",
    "CatalogResponse",
    "ErrorResponse",
    "HealthResponse",
    "Limits",
    "ModelResponse",
    "Query",
    "ScoreRequest",
    "ScoreResponse",
    "Search",
    "Share",
    "VersionsResponse",
    "decode",
    "decode_search",
    "decode_share",
    "error_responses",
    "health_responses",
    "metrics_responses",
    "render",
    "render_error",
    "render_health",
    "render_items",
    "render_model",
    "render_versions",
    "score_request",
    "search_request",
]
