"""Throws hostile byte streams at a server on this machine and checks what comes back.

`python -m tests.chaos.fuzz --port 8000 --streams 20000` does it to a running server. All the while one well-behaved
connection scores, and each of its answers is checked.
"""

import argparse
import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.chaos.bodies import GOOD, is_close
from tests.chaos.streams import GOOD_ID, SMUGGLED, Stream, request, streams

AT_ONCE = 48  # connections
SILENCE_S = 0.25  # no answer for so long: none will come
LONGEST_S = 20  # for one stream
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST
FINE = frozenset({100, 200, 400, 401, 404, 405, 408, 413, 415, 422, 431, 503, 504})  # all that README names, but 500


@dataclass(slots=True)
class Report:
    """What came back."""

    streams: Counter[str] = field(default_factory=Counter)  # by kind
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)  # what should not have come
    scored: int = 0  # right answers on the well-behaved connection
    slowest_s: float = 0.0  # of them
    took_s: float = 0.0

    def __str__(self) -> str:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.streams.total()} streams in {self.took_s:.0f} s; answers {statuses}; meanwhile {self.scored} right "
            f"scores, the slowest in {self.slowest_s * 1000:.0f} ms; wrong: {self.wrong[:5] or 'nothing'}"
        )


async def fuzz(port: int, seed: int, count: int) -> Report:
    """Throw `count` streams drawn from `seed` at 127.0.0.1:`port`.

    Raises:
        ConnectionError: the server is not there, or breaks the well-behaved connection.
    """
    report, started = Report(), time.monotonic()
    async with _connect(port) as (reader, writer):
        expected = [await _score(reader, writer, body) for body in GOOD]
    drawn = streams(seed, count)
    async with asyncio.TaskGroup() as group:
        behaved = group.create_task(_behave(port, expected, report))
        async with asyncio.TaskGroup() as hostile:
            for _ in range(AT_ONCE):
                hostile.create_task(_throw_all(port, drawn, expected, report))
        behaved.cancel()
    report.took_s = time.monotonic() - started
    return report


@asynccontextmanager
async def _connect(port: int, *, reset: bool = False) -> AsyncIterator[Streams]:
    """A connection, whose closing may be a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _behave(port: int, expected: list[list[float]], report: Report) -> None:
    """Score on one connection until cancelled."""
    async with _connect(port) as (reader, writer):
        while True:
            for number, body in enumerate(GOOD):
                started = time.monotonic()
                probabilities = await _score(reader, writer, body)
                report.slowest_s = max(report.slowest_s, time.monotonic() - started)
                report.scored += 1
                if not is_close(probabilities, expected[number]):
                    report.wrong.append(f"a good request got {probabilities}, not {expected[number]}")
                await asyncio.sleep(0.002)


async def _score(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> list[float]:
    writer.write(request(body, "X-Deadline-Ms: 20000"))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"a good request got {head!r}")
    length = int(re.findall(rb"content-length: (\d+)", head)[0])
    probabilities: list[float] = json.loads(await reader.readexactly(length))["probabilities"]
    return probabilities


async def _throw_all(port: int, drawn: Iterator[Stream], expected: list[list[float]], report: Report) -> None:
    for stream in drawn:
        report.streams[stream.kind] += 1
        try:
            async with asyncio.timeout(LONGEST_S):
                received = await _throw(port, stream)
        except TimeoutError:
            report.wrong.append(f"{stream.kind}: the connection was not over after {LONGEST_S} s")
            continue
        for problem in judge(received, expected, report.statuses):
            report.wrong.append(f"{stream.kind}: {problem}; sent {b''.join(stream.pieces)[:500]!r}")


async def _throw(port: int, stream: Stream) -> bytes:
    """Send a stream; returns what came back. That the server closes or resets the connection is its right."""
    received = bytearray()
    with contextlib.suppress(OSError):
        # Reset also after answers: a connection that is closed keeps its port for a minute.
        async with _connect(port, reset=stream.ending != "close") as (reader, writer):
            for piece in stream.pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(stream.pause_s)
            if stream.ending == "half":
                writer.write_eof()
            if stream.ending in {"wait", "half"}:
                with contextlib.suppress(TimeoutError):
                    while chunk := await asyncio.wait_for(reader.read(1 << 16), SILENCE_S):
                        received += chunk
    return bytes(received)


def judge(received: bytes, expected: list[list[float]], statuses: Counter[int]) -> Iterator[str]:
    """Count the statuses of answers, and say what is wrong with them."""
    for head, body in re.findall(rb"(HTTP/1\.1 \d{3} .*?\r\n\r\n)((?:(?!HTTP/1\.1 \d{3} ).)*)", received, re.DOTALL):
        status = int(head[9:12])
        statuses[status] += 1
        if status not in FINE:
            yield f"status {status}, {body[:200]!r}"
        elif status >= 400 and _is_whole(head, body) and not _has_code(body):
            yield f"status {status} with {body[:200]!r}"
        if SMUGGLED.encode() in head:
            yield "the request inside a request was answered"
        asked = re.search(rf"\r\nx-request-id: {GOOD_ID}(\d+)\r\n".encode(), head)
        if status == 200 and asked and not _is_right(body, expected[int(asked[1])]):
            yield f"a good request among them got {body[:200]!r}"


def _is_whole(head: bytes, body: bytes) -> bool:
    return f"\r\ncontent-length: {len(body)}\r\n".encode() in head.lower()


def _has_code(body: bytes) -> bool:
    """Whether it is the one body of all errors, or a health report."""
    try:
        return bool(json.loads(body).keys() & {"error", "checks"})
    except (ValueError, AttributeError):
        return False


def _is_right(body: bytes, expected: list[float]) -> bool:
    try:
        return is_close(json.loads(body)["probabilities"], expected)
    except ValueError:
        return False


def main() -> None:
    """Fuzz a running server and print the report; exit status 1 if anything came back that should not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    report = asyncio.run(fuzz(given.port, given.seed, given.streams))
    print(report)  # noqa: T201
    raise SystemExit(bool(report.wrong))


if __name__ == "__main__":
    main()
