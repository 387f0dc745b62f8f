"""The bodies of the admin routes."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import InvalidRequest, MalformedJson
from service.rollout import Share


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class VersionState(_Wire):
    """One version: what it does now."""

    version: str
    roles: list[Literal["serving", "canary", "shadow"]] = Field(description="none: it is not loaded")
    engine: str | None
    loaded_at: float | None = Field(description="wall clock, seconds since 1970")
    refused: str | None = Field(description="why it failed its checks; it is tried again when its files change")


class VersionsResponse(_Wire):
    """What was decided about the versions, and what they do."""

    pinned: str | None = Field(description="the version that serves until unpinned; null: the newest good one serves")
    canary: Share | None
    shadow: Share | None
    versions: list[VersionState] = Field(description="those in the model folder and those loaded, lowest first")
    problems: list[str] = Field(description="what is not as decided, or would be forgotten at a restart")


SHARE_EXAMPLE = {"version": "2", "percent": 5.0}


def decode_share(body: bytes) -> Share:
    """Check the body of a route that sets a share.

    Raises:
        MalformedJson: it is not JSON.
        InvalidRequest: it is JSON of another shape, type or range; `field` names the place.
    """
    try:
        return Share.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        raise MalformedJson("the body is not valid JSON")
    known = [step for step in first["loc"] if step in Share.model_fields]
    raise InvalidRequest(
        "this must be an object with a version, its number as a string, and a percent above 0 and up to 100",
        str(known[0]) if known else None,
    )


def render_versions(**content: Any) -> bytes:
    """Write the body of every admin route."""
    return VersionsResponse(**content).model_dump_json().encode()
