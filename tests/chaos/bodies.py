"""Bodies of POST /score: good ones whose answers can be known, and good ones gone bad."""

import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np

GOOD = tuple(
    json.dumps(
        {
            "history": {"ids": list(range(at, at + length)), "tags": [at % 7] * length},
            "candidates": {"ids": [at * 31 + i for i in range(1, 5)], "tags": [1, 2, 3, 4]},
        }
    ).encode()
    for at, length in enumerate((0, 1, 4, 9, 20, 49))
)


def mutate(rng: random.Random) -> bytes:
    """A good body with one thing wrong, if it is still a body at all."""
    return rng.choice(list(_MUTATIONS.values()))(rng, rng.choice(GOOD))


def _changed(rng: random.Random, body: bytes, value: str) -> bytes:
    """Put a literal in the place of one candidate."""
    parsed: dict[str, Any] = json.loads(body)
    column = parsed[rng.choice(["history", "candidates"])][rng.choice(["ids", "tags"])]
    column.insert(rng.randint(0, len(column)), "HERE")
    return json.dumps(parsed).encode().replace(b'"HERE"', value.encode("utf-8", "surrogatepass"))


def _huge_integer(rng: random.Random, body: bytes) -> bytes:
    return _changed(rng, body, rng.choice(["", "-"]) + "9" * rng.choice([19, 20, 100, 4300, 4301, 20_000]))


def _number(rng: random.Random, body: bytes) -> bytes:
    return _changed(
        rng, body, rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "1e-400", "0.1", "-0", "1E5", "0x1f"])
    )


def _surrogate(rng: random.Random, body: bytes) -> bytes:
    return _changed(rng, body, rng.choice(['"\\ud800"', '"\\udc00\\ud800"', '"\ud800"', '"\\u0000"', '"\\uZZZZ"']))


def _nested(rng: random.Random, body: bytes) -> bytes:
    depth = rng.choice([5, 100, 200, 1000, 50_000])
    opening, closing = rng.choice([("[", "]"), ('{"ids":', "}"), ('{"":[', "]}")])
    return _changed(rng, body, opening * depth + rng.choice(["", "1" + closing * depth]))


def _invalid_utf8(rng: random.Random, body: bytes) -> bytes:
    return _spliced(rng, body, rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"]))


def _duplicated(rng: random.Random, body: bytes) -> bytes:
    name = rng.choice([b'"history"', b'"candidates"', b'"top_k"', b'"h\\u0069story"'])
    return body[:-1] + b", " + name + b": " + rng.choice([b"null", b"{}", b'{"ids": [], "tags": []}', body]) + b"}"


def _extended(rng: random.Random, body: bytes) -> bytes:
    name = rng.choice(["top_k", "explain", "x", "__proto__", "\x00", "model"])
    value: Any = rng.choice([0, -1, 2**63, True, None, "true", [], {}, 1.5, "x" * 1000])
    return body[:-1] + b", " + json.dumps({name: value}).encode()[1:]


def _spliced(rng: random.Random, body: bytes, other: bytes) -> bytes:
    at = rng.randint(0, len(body))
    return body[:at] + other + body[at + rng.randint(0, 4) :]


def _noisy(rng: random.Random, body: bytes) -> bytes:
    for _ in range(rng.randint(1, 5)):
        body = _spliced(rng, body, rng.randbytes(rng.randint(0, 5)))
    return body


def _cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body))]


def _bracketed(rng: random.Random, body: bytes) -> bytes:
    return rng.choice(
        [b"\xef\xbb\xbf" + body, body * 2, body + b"\0", b"[" + body + b"]", b"\xff\xfe" + body, b" " * 9999]
    )


def _many(rng: random.Random, body: bytes) -> bytes:
    count = rng.choice([2000, 2001, 30_000])
    columns = {"ids": [1] * count, "tags": [1] * rng.choice([count, count - 1])}
    part = rng.choice(["history", "candidates"])
    return json.dumps({**json.loads(body), part: columns}).encode()


_MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "huge integer": _huge_integer,
    "number": _number,
    "surrogate": _surrogate,
    "nested": _nested,
    "invalid UTF-8": _invalid_utf8,
    "duplicated": _duplicated,
    "extended": _extended,
    "noisy": _noisy,
    "cut": _cut,
    "bracketed": _bracketed,
    "many": _many,
}


def is_close(found: list[float], expected: list[float]) -> bool:
    """Whether two answers are the same: batched with others, sums may round otherwise."""
    return len(found) == len(expected) and bool(np.allclose(found, expected, rtol=0, atol=1e-6))
