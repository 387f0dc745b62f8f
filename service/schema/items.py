"""The wire of GET /catalog: what may be asked for, the answer, and what the OpenAPI document says of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from service.catalog import INTEGER, Item, Value
from service.errors import InvalidRequest

MOST_IDS = 1000
MOST_ITEMS = 100
LONGEST_QUERY = 200
_USUAL_ITEMS = 20
_LONGEST_NAME = 100  # characters of a client's own parameter name that are repeated to it


class _Wire(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class CatalogItem(_Wire):
    """What the catalog says of one item."""

    id: int | str
    tag: int | str
    title: str | None


class CatalogResponse(_Wire):
    """Items of the catalog."""

    items: list[CatalogItem]
    total: int = Field(description="how many items the catalog has")


CATALOG_EXAMPLE = {"items": [{"id": 1, "tag": 3, "title": "Toy Story (1995)"}], "total": 9742}


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for: some items by id, or those that a text finds."""

    ids: list[Value] | None
    text: str
    limit: int


def decode_search(parameters: Sequence[tuple[str, str]], id_dtype: str) -> Search:
    """Check the parameters of a query string.

    Raises:
        InvalidRequest: one is unknown, repeated, too long or out of range; `field` names it.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        field = "".join(char if char.isprintable() else "?" for char in name[:_LONGEST_NAME])
        if name not in {"query", "limit", "ids"}:
            raise InvalidRequest("there is no such parameter", field)
        if name in given:
            raise InvalidRequest("this parameter appears more than once", field)
        given[name] = value
    if "ids" in given and "query" in given:
        raise InvalidRequest("there is either a query or ids", "ids")
    text = given.get("query", "")
    if len(text) > LONGEST_QUERY:
        raise InvalidRequest(f"at most {LONGEST_QUERY} characters are accepted", "query")
    ids = _to_ids(given["ids"], id_dtype) if "ids" in given else None
    return Search(ids, text, _to_limit(given.get("limit", str(_USUAL_ITEMS))))


def render_items(items: list[Item], total: int) -> bytes:
    """Write an answer."""
    return orjson.dumps({"items": items, "total": total})


def search_request() -> dict[str, Any]:
    """The OpenAPI operation of GET /catalog, as far as it is about what comes in."""
    text = {"type": "string", "maxLength": LONGEST_QUERY}
    limit = {"type": "integer", "minimum": 1, "maximum": MOST_ITEMS, "default": _USUAL_ITEMS}
    id_types = [{"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, {"type": "string"}]
    ids = {"type": "array", "items": {"anyOf": id_types}, "maxItems": MOST_IDS}
    return {
        "parameters": [
            _parameter("query", "part of a title, whatever the case, or an id; none finds everything", text),
            _parameter("limit", "how many items a query finds at most", limit),
            _parameter("ids", "instead of a query: the items with these ids, in this order", ids)
            | {"style": "form", "explode": False},
        ]
    }


def _parameter(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _to_limit(text: str) -> int:
    limit = int(text) if INTEGER.fullmatch(text) else 0
    if not 1 <= limit <= MOST_ITEMS:
        raise InvalidRequest(f"this must be an integer from 1 to {MOST_ITEMS}", "limit")
    return limit


def _to_ids(text: str, dtype: str) -> list[Value]:
    ids = text.split(",") if text else []
    if len(ids) > MOST_IDS:
        raise InvalidRequest(f"at most {MOST_IDS} are accepted", "ids")
    if dtype == "string":
        return list(ids)
    for index, each in enumerate(ids):
        if not INTEGER.fullmatch(each) or not -(2**63) <= int(each) < 2**63:
            raise InvalidRequest("this must be a signed 64-bit integer", f"ids[{index}]")
    return [int(each) for each in ids]
