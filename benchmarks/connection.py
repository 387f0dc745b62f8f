"""A minimal HTTP/1.1 keep-alive client connection: far cheaper than any server it asks."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

from benchmarks.bodies import Body

CLOSED = 0  # in place of a status: the server closed the connection instead of answering


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and, in time, its answer. Times are `time.perf_counter`'s: uvloop's clock ticks in ms."""

    body: Body
    intended: float  # when it should have been sent: latency counts from here
    done: float = 0.0
    status: int = CLOSED
    content: bytes = b""  # of the answer
    sent: float = 0.0


Done: TypeAlias = Callable[["Connection", Exchange], None]


class Connection(asyncio.Protocol):
    """One request at a time; `done` is called with each finished exchange."""

    def __init__(self, done: Done) -> None:
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._current: Exchange | None = None
        self._received = bytearray()
        self._length = -1  # of head and content; -1: the head is not complete

    @property
    def usable(self) -> bool:
        """Whether it is connected."""
        return self._transport is not None

    def send(self, exchange: Exchange) -> None:
        """Write the request."""
        assert self._transport is not None
        self._current = exchange
        exchange.sent = time.perf_counter()
        self._transport.write(exchange.body.message)

    def close(self) -> None:
        """Close without a word."""
        self._current = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to send."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """What was asked stays unanswered."""
        self._transport = None
        if self._current is not None:
            self._finish(CLOSED, b"")

    def data_received(self, data: bytes) -> None:
        """Collect an answer; its time is that of its last byte."""
        self._received += data
        if self._length < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            self._length = end + 4 + int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= self._length:
            answer = bytes(self._received[: self._length])
            self._received.clear()
            self._length = -1
            self._finish(int(answer[9:12]), answer.partition(b"\r\n\r\n")[2])

    def _finish(self, status: int, content: bytes) -> None:
        exchange, self._current = self._current, None
        if exchange is None:
            return
        exchange.done, exchange.status, exchange.content = time.perf_counter(), status, content
        self._done(self, exchange)
