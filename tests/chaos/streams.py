"""Hostile byte streams: what a client may do to a connection, drawn from a seed, the same ones every time."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from tests.chaos.bodies import GOOD, mutate

Ending: TypeAlias = Literal["wait", "half", "close", "reset"]
SMUGGLED = "smuggled"  # the id of a request that nobody may answer, as no two servers would agree that it is one
GOOD_ID = "good-"  # how the id of a request begins that must be answered rightly, if it is answered; its body follows
METHODS = ("GET", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PRI", "get", "G\x00T", "POSTPOSTPOST")
PATHS = ("/", "/score", "/health", "/health/live", "/metrics", "/model", "/openapi.json", "/nothing", "/../etc/passwd")
ODD_PATHS = (
    "//",
    "/score?" + "a" * 9000,
    "/%00",
    "/%ff%fe",
    "*",
    "http://other/score",
    "",
    "/\x7f",
    "/score#x",
    "/\xe9",
)
VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "HTTP/1.1.1", "http/1.1", "", "HTTP/1.1 x")
SIZES = ("-1", "+5", "0x10", "1e3", "9" * 21, "18446744073709551617", "", " ", "5, 5", "5 5", "\x00", "1_0")
ENCODINGS = (
    "chunked",
    "Chunked",
    " chunked",
    "chunked, identity",
    "identity",
    "xchunked",
    "chunked\x0b",
    "gzip, chunked",
)


@dataclass(frozen=True, slots=True)
class Stream:
    """What one connection gets."""

    kind: str
    pieces: tuple[bytes, ...]
    pause_s: float  # between them
    ending: Ending  # wait for answers; half-close and wait; close at once; reset (RST) at once


def streams(seed: int, count: int) -> Iterator[Stream]:
    """Draw streams, every kind about as often."""
    for number in range(count):
        rng = random.Random(f"{seed}-{number}")  # noqa: S311  reproducible, not secret
        kind = rng.choice(list(KINDS))
        data = KINDS[kind](rng)
        pieces, pause_s = _pieces(rng, data)
        yield Stream(kind, pieces, pause_s, rng.choices(("wait", "half", "close", "reset"), (70, 12, 6, 12))[0])


def _pieces(rng: random.Random, data: bytes) -> tuple[tuple[bytes, ...], float]:
    """Now and then in packets of their own, slowly."""
    if len(data) < 2 or rng.random() < 0.8:
        return (data,), 0.0
    ends = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 12)))
    parts = tuple(data[a:b] for a, b in zip([0, *ends], [*ends, len(data)], strict=True))
    return parts, rng.choice([0.0, 0.002, 0.02])


def good(rng: random.Random, *extra: str) -> bytes:
    """A request that scores, as it would be alone."""
    number = rng.randrange(len(GOOD))
    return request(GOOD[number], f"X-Request-Id: {GOOD_ID}{number}", *extra)


def request(body: bytes, *extra: str, length: str | None = None, start: str = "POST /score HTTP/1.1") -> bytes:
    """A request with a body; `extra` headers as they are."""
    sizes = [f"Content-Length: {len(body) if length is None else length}"]
    return head(start, "Content-Type: application/json", *sizes, *extra) + body


def head(start: str, *headers: str, newline: str = "\r\n") -> bytes:
    """A request line and headers."""
    return (newline.join([start, "Host: here", *headers]) + 2 * newline).encode("latin-1")


def chunked(rng: random.Random, body: bytes) -> bytes:
    """A body in good chunks."""
    cut = rng.randint(1, len(body) - 1)
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (body[:cut], body[cut:])) + b"0\r\n\r\n"


def _mutated(rng: random.Random) -> bytes:
    return request(mutate(rng))


def _truncated(rng: random.Random) -> bytes:
    data = good(rng)
    return data[: rng.randrange(len(data))]


def _wrong_length(rng: random.Random) -> bytes:
    body = rng.choice(GOOD)
    near = str(max(0, len(body) + rng.choice([-100, -1, 1, 100, 10**6])))
    return request(body, length=rng.choice([*SIZES, near, "0"]))


def _chunked(rng: random.Random) -> bytes:
    body, start = (
        rng.choice(GOOD),
        head("POST /score HTTP/1.1", "Content-Type: application/json", "Transfer-Encoding: chunked"),
    )
    fine = chunked(rng, body)
    bad = rng.choice([b"-5", b"fffffffffffffffff", b"zz", b"", b"5;" + b"x" * 20_000, b"0x5", b" 5", b"5 ", b"5\n"])
    return start + rng.choice(
        [
            fine,
            fine[: rng.randrange(len(fine))],
            fine.replace(b"0\r\n\r\n", b"0\r\nX-Trailer: 1\r\nContent-Length: 5\r\n\r\n"),
            fine.replace(b"\r\n", b';name="\x00value"\r\n', 1),
            fine.replace(b"\r\n", b"\n"),
            bad + b"\r\n" + body + b"\r\n0\r\n\r\n",
            b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n",
            b"80001\r\n" + b" " * 0x80001 + b"\r\n0\r\n\r\n",
        ]
    )


def _pipelined(rng: random.Random) -> bytes:
    others = [good, good, _mutated, _start_line, _wrong_length, _chunked, _health]
    return good(rng) + b"".join(rng.choice(others)(rng) for _ in range(rng.randint(1, 6)))


def _health(rng: random.Random) -> bytes:
    return head(f"GET {rng.choice(PATHS[:7])} HTTP/1.1")


def _garbage(rng: random.Random) -> bytes:
    noise = rng.randbytes(rng.choice([1, 10, 100, 5000]))
    return rng.choice([noise, good(rng) + noise, b"\r\n" * 50 + noise, b"\x00" * 100])


def _header(rng: random.Random) -> bytes:
    noise = rng.randbytes(rng.randint(1, 30)).decode("latin-1")
    bad = rng.choice(
        [
            f"X-Odd: {noise}", f"{noise}: odd", "X-Nul: a\x00b", "No-Colon", ": no name", "Spaced : x", " folded: x",
            "X-A: b\r\n folded", "X-Cr: a\rb", "X-Deadline-Ms: nan", "X-Deadline-Ms: -5", "X-Deadline-Ms: 1e400",
            f"X-Request-Id: {noise}", f"X-Request-Id: {'a' * 2000}", "Host: other", f"Cookie: {noise * 50}",
            "Authorization: Bearer \xff\xfe", "Accept: \x00", "Expect: 100-continue", "Expect: nonsense",
        ]
    )  # fmt: skip
    return request(rng.choice(GOOD), bad)


def _long_header(rng: random.Random) -> bytes:
    size = rng.choice([8_000, 16_000, 17_000, 70_000, 300_000])
    many = [f"X-{i}: {i}" for i in range(size // 12)]
    return request(rng.choice(GOOD), *rng.choice([["X-Long: " + "a" * size], many, ["a" * size + ": x"]]))


def _bare_newlines(rng: random.Random) -> bytes:
    body, newline = rng.choice(GOOD), rng.choice(["\n", "\r", "\n\r", "\r\r\n"])
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return head("POST /score HTTP/1.1", *headers, newline=newline) + body


def _start_line(rng: random.Random) -> bytes:
    return head(f"{rng.choice(METHODS)} {rng.choice(PATHS + ODD_PATHS)} {rng.choice(VERSIONS)}")


def _preface(rng: random.Random) -> bytes:
    return rng.choice(
        [
            b"GET /health\r\n",
            b"GET /score\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + rng.randbytes(20),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(500),  # TLS
            b"\x05\x01\x00" + rng.randbytes(9),  # SOCKS
            b"SSH-2.0-OpenSSH_9.9\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + good(rng),
            head(
                "GET /health HTTP/1.1",
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABk",
            ),
        ]
    )


def _websocket(rng: random.Random) -> bytes:
    key = rng.choice(["dGhlIHNhbXBsZSBub25jZQ==", "", "\x00", "a" * 3000])
    headers = ("Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13")
    frame = b"\x81\x85" + rng.randbytes(9)
    return rng.choice([head(f"GET {rng.choice(PATHS)} HTTP/1.1", *headers) + frame, good(rng, *headers) + frame])


def _smuggled(rng: random.Random) -> bytes:
    """Lengths that contradict each other: a proxy may believe one, the server the other."""
    body = rng.choice(GOOD)
    te, cl = f"Transfer-Encoding: {rng.choice(ENCODINGS)}", f"Content-Length: {len(body)}"
    pairs = [(te, cl), (cl, te), (cl, "Content-Length: 5"), (cl, cl), (te, "Transfer-Encoding: identity"), (te, te)]
    pair = rng.choice(pairs)
    inner = head("GET /health HTTP/1.1", f"X-Request-Id: {SMUGGLED if {te, cl} == set(pair) else 'next'}")
    start = head("POST /score HTTP/1.1", "Content-Type: application/json", *pair)
    return start + rng.choice([body, chunked(rng, body), b"0\r\n\r\n" + inner, body + inner])


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "mutated body": _mutated,
    "truncated": _truncated,
    "wrong length": _wrong_length,
    "chunked": _chunked,
    "pipelined": _pipelined,
    "garbage": _garbage,
    "header": _header,
    "long header": _long_header,
    "bare newlines": _bare_newlines,
    "start line": _start_line,
    "preface": _preface,
    "websocket": _websocket,
    "smuggled": _smuggled,
    "good": good,
}
