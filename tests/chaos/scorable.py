"""Schemathesis hooks that make good requests scorable: they mend what a JSON schema cannot ask for."""

from typing import Any

import schemathesis

DEADLINE = "X-Deadline-Ms"


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Give a body of numbers and strings only integers, and as many tags as ids of candidates."""
    match body:
        case {
            "history": {"ids": [*past_ids], "tags": [*past_tags]},
            "candidates": {"ids": [_, *_] as ids, "tags": [_, *_] as tags},
        } if all(_is_value(each) for each in (*past_ids, *past_tags, *ids, *tags)):
            count = max(len(ids), len(tags))  # to cut one would mend what is too long by mistake
            history = {**body["history"], "ids": _to_numbers(past_ids), "tags": _to_numbers(past_tags)}
            columns = {name: (_to_numbers(each) + [1] * count)[:count] for name, each in (("ids", ids), ("tags", tags))}
            candidates = {**body["candidates"], **columns}
            return {**body, "history": history, "candidates": candidates}
    return body


@schemathesis.hook
def map_headers(context: schemathesis.HookContext, headers: Any) -> Any:
    """Have nobody wait for less than a second: a deadline that is valid, but can't be met, is no test of the body."""
    try:
        hurried = headers and 0 < float(headers[DEADLINE]) < 1000
    except (KeyError, TypeError, ValueError):
        return headers
    return {**headers, DEADLINE: "1000"} if hurried else headers


def _is_value(value: Any) -> bool:
    """Whether JSON schema lets it pass for an integer, as it does 2.0, or a string."""
    return type(value) in {int, str} or (isinstance(value, float) and value.is_integer())


def _to_numbers(values: list[Any]) -> list[int]:
    return [len(each) if isinstance(each, str) else int(each) for each in values]
