"""Requests as they are sent, and answers and failures as they are understood; who sends them is not known here."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import orjson
from pydantic import BaseModel

from service.client.answers import Health, ModelInfo, Scores
from service.client.errors import REFUSALS, Refused, UnexpectedAnswer
from service.client.policy import Answered, Ended, Failed

T = TypeVar("T", bound=BaseModel)


class Array(Protocol):
    """What numpy's arrays are, without importing numpy."""

    def tolist(self) -> Any:
        """As Python's own values."""


Values: TypeAlias = Sequence[int] | Sequence[str] | Array
Columns: TypeAlias = tuple[Values, Values | None]  # ids and tags; None: the server looks them up in its catalog

_JSON = "application/json"
_REQUEST_ID = "X-Request-Id"


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """A request, and what its answer is.

    Args:
        method: of HTTP.
        path: below the server's URL.
        answer: what a good answer is read as.
        content: the body.
        headers: the caller's own; a request id is added where there is none, the same for every attempt.
        statuses: of good answers.
    """

    method: str
    path: str
    answer: type[T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: frozenset[int] = frozenset({200})

    def judge(self, status: int, headers: Mapping[str, str], content: bytes) -> Ended[T]:
        """Understand an answer."""
        try:
            if status in self.statuses:
                return Answered(self.answer.model_validate_json(content))
            return Failed(_refused(status, headers, orjson.loads(content)))
        except (ValueError, KeyError, TypeError):
            problem = f"status {status}, and not what a dinserve answers to {self.method} {self.path}"
            return Failed(UnexpectedAnswer(problem, status, _retry_after_s(headers)))


def score(
    history: Columns,
    candidates: Columns,
    *,
    top_k: int | None = None,
    explain: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Message[Scores]:
    """POST /score.

    Raises:
        TypeError: a value is neither an integer of 64 bits nor text.
    """
    body: dict[str, object] = {"history": _columns(history), "candidates": _columns(candidates)}
    if top_k is not None:
        body["top_k"] = top_k
    if explain:
        body["explain"] = True
    return score_body(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), headers)


def score_body(content: bytes, headers: Mapping[str, str] | None = None) -> Message[Scores]:
    """POST /score with a body that is JSON already."""
    return Message("POST", "/score", Scores, content, _named({"Content-Type": _JSON}, headers))


def model(headers: Mapping[str, str] | None = None) -> Message[ModelInfo]:
    """GET /model."""
    return Message("GET", "/model", ModelInfo, headers=_named({}, headers))


def health(headers: Mapping[str, str] | None = None) -> Message[Health]:
    """GET /health, which answers in the same form when the server is not ready."""
    return Message("GET", "/health", Health, headers=_named({}, headers), statuses=frozenset({200, 503}))


def _columns(columns: Columns) -> dict[str, Values]:
    ids, tags = columns
    return {"ids": ids} if tags is None else {"ids": ids, "tags": tags}


def _named(ours: Mapping[str, str], headers: Mapping[str, str] | None) -> dict[str, str]:
    given = {**ours, **(headers or {})}
    if all(name.lower() != _REQUEST_ID.lower() for name in given):
        given[_REQUEST_ID] = f"{random.getrandbits(64):016x}"
    return given


def _refused(status: int, headers: Mapping[str, str], content: dict[str, Any]) -> Refused:
    error = content["error"]
    code = error["code"]
    return REFUSALS.get(code, Refused)(
        code, error["message"], error.get("field"), content["request_id"], status, _retry_after_s(headers)
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds; a date, which our server never sends, counts as nothing said."""
    given = headers.get("Retry-After", "")
    return float(given) if given.isascii() and given.isdigit() else None
