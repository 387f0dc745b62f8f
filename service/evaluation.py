"""What an evaluation found of a version: headline figures with their intervals, as its manifest carries them."""

from pydantic import BaseModel, ConfigDict, Field


class Figure(BaseModel):
    """A figure, and the interval it would fall into with other users of the same kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float


class Evaluation(BaseModel):
    """How a version, read from disk, did on the test rows of some data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    created: str  # ISO 8601, UTC
    data: str  # such as "MovieLens ml-latest-small, ratings >= 4"
    rows: int = Field(gt=0)
    users: int = Field(gt=0)
    clicks: float = Field(ge=0, le=1)  # share of the rows
    negatives: int = Field(0, ge=0)  # drawn for each click: `clicks` is no real rate; 0: rows are what happened
    seed: int  # of the data's negatives and of the bootstrap
    level: float = Field(gt=0, lt=1)  # of the intervals
    draws: int = Field(gt=0)  # of the bootstrap
    figures: dict[str, Figure]  # auc, gauc, logloss, ece, ndcg
    rela_impr: float | None = None  # of the AUC against mean pooling; None: pooling's on these rows is not known
