"""What the server answers. More that a newer server says is left out, so that it cannot break an older client."""

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ModelName(_Answer):
    """The version that scored."""

    name: str
    version: str


class LatencyMs(_Answer):
    """Where the server's milliseconds went."""

    parse: float
    queue: float
    pack: float
    infer: float
    total: float


class Attention(_Answer):
    """Of each explained candidate, the weight of every entry of the history that the model kept.

    `candidates` are their indexes; `removed` is the entry with the highest weight, and `without` the probability when
    it is taken out of the history.
    """

    candidates: tuple[int, ...]
    ids: tuple[tuple[float, ...], ...]
    tags: tuple[tuple[float, ...], ...]
    removed: tuple[int | None, ...]
    without: tuple[float | None, ...]


class Scores(_Answer):
    """Click probabilities, in the order of the candidates; with `top_k`, `ranking` has the best ones' indexes."""

    probabilities: tuple[float, ...]
    ranking: tuple[int, ...] | None = None
    attention: Attention | None = None
    model: ModelName
    request_id: str
    latency_ms: LatencyMs

    @property
    def version(self) -> str:
        """The version that scored."""
        return self.model.version


class Feature(_Answer):
    """What the model knows of ids, or of tags."""

    dtype: str  # int64 or string
    max_history: int


class Features(_Answer):
    """Both."""

    id: Feature
    tag: Feature


class ModelInfo(_Answer):
    """The version that serves."""

    name: str
    version: str
    created: str
    engine: str
    fallback_reason: str | None = None
    features: Features


class Check(_Answer):
    """One thing that must hold."""

    ok: bool
    detail: str


class Health(_Answer):
    """Whether the service can score, and why not."""

    status: str  # ok, degraded, loading, draining or failed
    model: str | None = None
    version: str | None = None
    engine: str | None = None
    uptime_s: float
    checks: dict[str, Check]

    @property
    def ready(self) -> bool:
        """Whether it can."""
        return self.status in {"ok", "degraded"}
