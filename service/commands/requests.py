"""Requests from a file: one JSON object, on as many lines as it likes, or one on each line."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import click


def read_requests(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of its line and each request, as soon as it has been read.

    Raises:
        BadParameter: something is no JSON object; the message has the line.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(numbered, None)
    if first is None:
        raise click.BadParameter("there is no request in it")
    number, line = first
    try:
        request = json.loads(line)
    except ValueError:  # the beginning of one that goes on
        start = number
        text = line + "".join(more for _, more in numbered)
        yield start, _parse(text, start)
        return
    yield number, _check(request, number)
    for number, line in numbered:
        yield number, _parse(line, number)


def _parse(text: str, number: int) -> dict[str, Any]:
    try:
        return _check(json.loads(text), number)
    except ValueError as error:
        at = number - 1 + error.lineno if isinstance(error, json.JSONDecodeError) else number
        raise click.BadParameter(f"line {at}: not JSON: {getattr(error, 'msg', error)}") from error


def _check(request: Any, number: int) -> dict[str, Any]:
    if not isinstance(request, dict):
        raise click.BadParameter(f"line {number}: a request is a JSON object")
    return request
