"""The bodies of requests and answers, as pydantic and OpenAPI see them."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field

from service.artifact import Manifest
from service.rollout import Rollout

IdT = TypeVar("IdT", bound=int | str)
TagT = TypeVar("TagT", bound=int | str)


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class Columns(_Wire, Generic[IdT, TagT]):
    """Ids and tags, as two columns."""

    ids: Annotated[list[IdT], FailFast()] = Field(description="int64, or strings where GET /model says so")
    tags: Annotated[list[TagT], FailFast()] = Field(description="int64, or strings where GET /model says so")


class ItemColumns(Columns[IdT, TagT], Generic[IdT, TagT]):
    """Ids, and tags if they are not those of the catalog."""

    tags: Annotated[list[TagT], FailFast()] = Field(
        default_factory=list,
        description="int64, or strings where GET /model says so; left out, they are looked up by id in the catalog",
    )


class ScoreRequest(_Wire, Generic[IdT, TagT]):
    """One user's history and the candidates to score against it."""

    history: Columns[IdT, TagT] = Field(
        description="what the user did, oldest first; the two columns may differ in length, and be empty"
    )
    candidates: Columns[IdT, TagT] = Field(description="the items to score, at least one; a tag for each id")
    top_k: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how many candidates to rank; more than there are ranks them all"
    )
    explain: bool = Field(
        default=False,
        description="whether to return the attention paid to the history, and scores without the most attended entry",
    )


class ItemRequest(ScoreRequest[IdT, TagT], Generic[IdT, TagT]):
    """The same where there is a catalog, so that ids may come alone."""

    history: ItemColumns[IdT, TagT] = Field(
        description="what the user did, oldest first; the two columns may differ in length, and be empty"
    )
    candidates: ItemColumns[IdT, TagT] = Field(
        description="the items to score, at least one; a tag for each id, or none"
    )


class ModelName(_Wire):
    """The version that scored."""

    name: str
    version: str


class LatencyMs(_Wire):
    """Where the milliseconds went; total starts when the request's headers have arrived."""

    parse: float
    queue: float
    pack: float
    infer: float
    total: float


class Attention(_Wire):
    """Where the network looked, which is not what caused a score, and its answer to a history without that entry."""

    candidates: list[int] = Field(
        description="indexes of those explained: the ranking, or without one all, up to a limit"
    )
    ids: list[list[float]] = Field(
        description="for each of them, the weight of each id that the model kept of the history; where the model uses "
        "softmax they sum to 1"
    )
    tags: list[list[float]] = Field(description="likewise for the tags")
    removed: list[int | None] = Field(
        description="for each of them, the place among the kept ids of the highest weight; null without ids"
    )
    without: list[float | None] = Field(
        description="for each of them, the probability with that id removed, and its tag where each id has one"
    )


class ScoreResponse(_Wire):
    """Click probabilities, in the order of the candidates."""

    probabilities: list[float]
    ranking: list[int] | None = Field(description="with top_k: indexes of the best candidates, best first")
    attention: Attention | None = Field(description="with explain, of a model that can")
    model: ModelName
    request_id: str
    latency_ms: LatencyMs


class ErrorDetail(_Wire):
    """What went wrong."""

    code: str = Field(description="stable; what programs should look at")
    message: str = Field(description="one sentence for people")
    field: str | None = Field(description="path of the offending field, such as candidates.ids[3]")


class ErrorResponse(_Wire):
    """The body of every answer that is not a success."""

    error: ErrorDetail
    request_id: str


class Check(_Wire):
    """One thing that must hold for the service to be ready."""

    ok: bool
    detail: str


class HealthResponse(_Wire):
    """Whether the service can score, and why not."""

    status: Literal["ok", "degraded", "loading", "draining", "failed"]
    model: str | None
    version: str | None
    engine: str | None
    uptime_s: float
    checks: dict[str, Check]


class ModelResponse(Manifest):
    """The manifest of the serving version, what computes it, and what was decided about the others."""

    engine: str
    fallback_reason: str | None = Field(description="why TensorFlow serves it though the native engine was preferred")
    rollout: Rollout


REQUEST_EXAMPLE = {
    "history": {"ids": [2200, 2202], "tags": [1102, 1100]},
    "candidates": {"ids": [2203, 2201], "tags": [1103, 1101]},
    "top_k": 1,
    "explain": True,
}
RESPONSE_EXAMPLE = {
    "probabilities": [0.41, 0.77],
    "ranking": [1],
    "attention": {
        "candidates": [1],
        "ids": [[0.36, 0.64]],
        "tags": [[0.52, 0.48]],
        "removed": [1],
        "without": [0.58],
    },
    "model": {"name": "din", "version": "1"},
    "request_id": "9f86d081884c7d65",
    "latency_ms": {"parse": 0.021, "queue": 0.04, "pack": 0.033, "infer": 0.61, "total": 0.79},
}
