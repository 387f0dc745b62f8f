"""An open loop: requests are due at random times whatever the server does, and latency counts from when one was due.

A server that stalls is so charged for everybody who would have waited. It runs in a process of its own, so that showing
how it goes delays nothing.
"""

import asyncio
import contextlib
import gc
import random
import signal
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Literal, cast

import httptools
import orjson
import uvloop

from service.config import load_settings
from service.tls import local_context

TELL_S = 0.2  # between two reports


@dataclass(frozen=True, slots=True)
class Order:
    """What to do.

    Args:
        host: of the server, likewise `port`.
        tls: whose certificate it shows: one of the system's authorities, or this environment's settings'.
        messages: whole HTTP requests, sent in turn.
        rate: requests/s, on average.
        seconds: how long they are sent.
        timeout_s: how long a request may wait for a connection, and the last ones for their answers.
        connections: most that are open at once; what is due beyond that waits for one, its clock running.
    """

    host: str
    port: int
    tls: Literal["none", "system", "settings"]
    messages: list[bytes]
    rate: float
    seconds: float
    timeout_s: float
    connections: int
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Report:
    """What has happened since the last one, but for the first two, which are since the beginning."""

    seconds: float = 0.0
    sent: int = 0
    ended: list[tuple[str, float]] = field(default_factory=list)  # code and seconds from when it was due, by end
    late_s: list[float] = field(default_factory=list)  # what this process was late itself, by request
    waited: int = 0  # requests that found every connection busy


class Connection(asyncio.Protocol):
    """One request at a time. `ended` is called with the connection, when the request was due, and its code."""

    def __init__(self, ended: Callable[["Connection", float, str], None]) -> None:
        self.usable = False
        self._ended = ended
        self._due: float | None = None  # of the request that is under way
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._content = b""

    def send(self, message: bytes, due: float) -> None:
        """Send a request, on a connection that is made and has none."""
        assert self._transport is not None  # noqa: S101
        self._due = due
        self._transport.write(message)

    def close(self) -> None:
        """Close without a word."""
        self._due = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to send."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it
        self.usable = True

    def connection_lost(self, exc: Exception | None) -> None:
        """What was asked stays unanswered."""
        self.usable = False
        self._end("lost")

    def data_received(self, data: bytes) -> None:
        """Read an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.usable = False
            self._end("no HTTP")
            self.close()

    def on_body(self, body: bytes) -> None:
        """A part of one."""
        self._content += body

    def on_message_complete(self) -> None:
        """The answer is there."""
        self.usable = self._parser.should_keep_alive()
        status, content, self._content = self._parser.get_status_code(), self._content, b""
        self._end("ok" if status == 200 else code_of(status, content))  # noqa: PLR2004

    def _end(self, code: str) -> None:
        due, self._due = self._due, None
        if due is not None:
            self._ended(self, due, code)


def code_of(status: int, content: bytes) -> str:
    """What a refusal is counted as: the server's code, or the status of somebody between."""
    try:
        return str(orjson.loads(content)["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}"


class Load:
    """Carries out one order, and tells `tell` about it while it runs."""

    def __init__(self, order: Order, tell: Callable[[Report], None]) -> None:
        self._order = order
        self._context = _context(order)
        self._tell = tell
        self._sent = 0
        self._waited = 0
        self._unanswered = 0
        self._ends: list[tuple[str, float]] = []
        self._late_s: list[float] = []
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._began = self._told = time.perf_counter()
        self._stopped = False
        self._quiet = asyncio.Event()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True

    async def run(self) -> Report:
        """Send, and wait for the answers."""
        order, chance = self._order, random.Random(self._order.seed)  # noqa: S311  no secret
        self._began = due = time.perf_counter()
        while not self._stopped:
            due += chance.expovariate(order.rate)
            if due >= self._began + order.seconds:
                break
            await self._wait_until(due)
            self._send(order.messages[self._sent % len(order.messages)], due)
        self._stopped = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(order.timeout_s):
                while self._unanswered:
                    self._quiet.clear()
                    await self._quiet.wait()
        self._ends += [("unanswered", order.timeout_s)] * self._unanswered
        for task in self._opening:
            task.cancel()
        for connection in self._open:
            connection.close()
        return self._report()

    async def _wait_until(self, due: float) -> None:
        await asyncio.sleep(0)  # late or not: answers must be read
        while not self._stopped and (left := due - time.perf_counter()) > 0:
            # Not spun away: that takes a core, and where others want it too, p99 of being late grew from 2 to 10 ms.
            await asyncio.sleep(min(left, TELL_S))
            if time.perf_counter() - self._told > TELL_S:
                self._told = time.perf_counter()
                self._tell(self._report())

    def _send(self, message: bytes, due: float) -> None:
        self._sent += 1
        self._unanswered += 1
        self._late_s.append(time.perf_counter() - due)
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.send(message, due)
                return
            self._open.discard(connection)  # the server closes what is idle for long
        self._waiting.append((message, due))
        self._waited += not self._grow()

    def _grow(self) -> bool:
        """Open another connection, if there may be one."""
        if len(self._open) + len(self._opening) >= self._order.connections:
            return False
        task = asyncio.create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        return True

    async def _connect(self) -> None:
        order = self._order
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._ended), order.host, order.port, ssl=self._context
            )
        except OSError:
            if self._waiting:
                self._count(self._waiting.popleft()[1], "not connected")
            return
        self._open.add(connection)
        self._next(connection)

    def _ended(self, connection: Connection, due: float, code: str) -> None:
        if connection.usable:
            self._next(connection)
        else:
            self._open.discard(connection)
            if self._waiting:
                self._grow()
        self._count(due, code)

    def _next(self, connection: Connection) -> None:
        given_up = time.perf_counter() - self._order.timeout_s
        while self._waiting:
            message, due = self._waiting.popleft()
            if due > given_up:
                connection.send(message, due)
                return
            self._count(due, "not sent in time")
        self._idle.append(connection)

    def _count(self, due: float, code: str) -> None:
        self._unanswered -= 1
        self._ends.append((code, time.perf_counter() - due))
        self._quiet.set()

    def _report(self) -> Report:
        seconds = min(time.perf_counter() - self._began, self._order.seconds)
        report = Report(seconds, self._sent, self._ends, self._late_s, self._waited)
        self._ends, self._late_s, self._waited = [], [], 0
        return report


def work(order: Order, pipe: Pipe) -> None:
    """Carry out an order in a process of its own; the reports go into the pipe, and None after the last one."""
    gc.disable()  # a look through what there is takes milliseconds, which would be charged to the server

    async def main() -> Report:
        load = Load(order, pipe.send)
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, load.stop)
        return await load.run()

    pipe.send(uvloop.run(main()))
    pipe.send(None)


def _context(order: Order) -> ssl.SSLContext | None:
    if order.tls == "settings":
        return local_context(load_settings())
    return ssl.create_default_context() if order.tls == "system" else None
