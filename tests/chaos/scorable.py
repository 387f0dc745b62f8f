"""Schemathesis hooks that make good requests scorable: they mend what a JSON schema cannot ask for."""

from typing import Any

import schemathesis

DEADLINE = "X-Deadline-Ms"
_COLUMNS = {"ids", "tags"}


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Give a body of numbers and strings only integers, and as many tags, where it has any, as ids of candidates."""
    match body:
        case {"history": {"ids": [*_]} as history, "candidates": {"ids": [_, *_]} as candidates}:
            columns = [each[name] for each in (history, candidates) for name in _COLUMNS & each.keys()]
            if all(isinstance(column, list) and all(map(_is_value, column)) for column in columns):
                count = max(len(candidates[name]) for name in _COLUMNS & candidates.keys())
                return {**body, "history": _mended(history), "candidates": _mended(candidates, count)}
    return body


@schemathesis.hook
def map_headers(context: schemathesis.HookContext, headers: Any) -> Any:
    """Have nobody wait for less than a second: a deadline that is valid, but can't be met, is no test of the body."""
    try:
        hurried = headers and 0 < float(headers[DEADLINE]) < 1000
    except (KeyError, TypeError, ValueError):
        return headers
    return {**headers, DEADLINE: "1000"} if hurried else headers


def _mended(part: dict[str, Any], count: int = 0) -> dict[str, Any]:
    """A part with columns of integers, at least `count` of them: to cut one would mend what is too long by mistake."""
    columns = {name: _to_numbers(part[name]) for name in _COLUMNS & part.keys()}
    return {**part, **{name: column + [1] * (count - len(column)) for name, column in columns.items()}}


def _is_value(value: Any) -> bool:
    """Whether JSON schema lets it pass for an integer, as it does 2.0, or a string."""
    return type(value) in {int, str} or (isinstance(value, float) and value.is_integer())


def _to_numbers(values: list[Any]) -> list[int]:
    return [len(each) if isinstance(each, str) else int(each) for each in values]
