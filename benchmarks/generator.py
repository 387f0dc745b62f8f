"""Sends requests as a closed loop or an open one, and notes what comes back.

Closed loop: each connection sends its next request when it has the answer to the last. Open loop: requests are due at
the times of a Poisson process, or evenly, whatever the server does, and latency counts from when a request was due, so
that a server that stalls is charged for everybody who would have waited (Tene, "How not to measure latency").
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from benchmarks.bodies import Workload, make_bodies
from benchmarks.connection import CLOSED, Connection, Exchange
from service.server import allow_files

POOL = 2048  # connections of an open loop; what is due beyond that waits for one, its clock running
FILES = 2 * POOL  # open ones, for either end of them
SPIN_S = 0.002  # uvloop's timers are good to a millisecond: the last two before a request is due are spun away
DRAIN_S = 3.0  # how long an open loop waits for answers after its last request
MOST_REQUESTS = 400_000


@dataclass(frozen=True, slots=True)
class Order:
    """What one run does."""

    port: int
    workload: Workload
    connections: int = 8  # of a closed loop
    rate: float = 0.0  # requests/s of an open loop; 0: closed
    gaps: str = "poisson"  # between its requests; or "even"
    seconds: float = 3.0
    warm_s: float = 0.5  # before that, unmeasured
    requests: int = MOST_REQUESTS  # end earlier after so many
    bodies: int = 4000  # made before the start, sent in turn
    seed: int = 1
    dtypes: tuple[str, str] = ("int64", "int64")
    path: str = "/score"
    deadline_ms: float = 1000.0  # what counts as in time: the server's own default
    pid: int = 0  # of the server, whose CPU time is to be told
    busy: float = 0.0  # keep it busy for this share of a core's time, from `rate` on; 0: keep the rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's end. Times are `time.perf_counter`'s."""

    intended: float
    done: float
    rows: int
    problem: str  # empty: answered as it should be
    latency_ms: dict[str, float]  # what the answer says of itself
    sent: float = 0.0


def arrivals(rate: float, seconds: float, seed: int, gaps: str = "poisson") -> NDArray[np.float64]:
    """Times at which requests are due, in [0, seconds), ascending: `rate` per second, `poisson` or `even`."""
    if gaps == "even":
        return np.arange(0, seconds, 1 / rate)
    expected = rate * seconds
    most = int(expected + 10 * expected**0.5 + 10)  # ten standard deviations: never short
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, most))
    return due[due < seconds]


def failure(exchange: Exchange) -> str:
    """The status, if it is not 200; empty if it is."""
    if exchange.status == 200:
        return ""
    return "closed" if exchange.status == CLOSED else str(exchange.status)


def judge(exchange: Exchange) -> Outcome:
    """Check an answer and keep what is worth keeping of it."""
    problem, latency_ms = failure(exchange), {}
    if not problem:
        answer = orjson.loads(exchange.content)
        latency_ms = answer["latency_ms"]
        if len(answer["probabilities"]) != exchange.body.rows:
            problem = "wrong number of probabilities"
    return Outcome(exchange.intended, exchange.done, exchange.body.rows, problem, latency_ms, exchange.sent)


class Generator:
    """Carries out one order; `outcomes` and `unanswered` are the result."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.outcomes: list[Outcome] = []
        self.sent = 0
        self.stopped = False  # an open loop sends no more
        self.bodies = make_bodies(order.workload, order.bodies, order.seed, order.dtypes, order.path)
        self._loop = asyncio.get_running_loop()
        self._connections: list[Connection] = []
        self._idle: list[Connection] = []
        self._waiting: deque[Exchange] = deque()
        self._ends_at = float("inf")
        self._quiet = asyncio.Event()

    @property
    def unanswered(self) -> int:
        """How many requests have no outcome."""
        return self.sent - len(self.outcomes)

    async def connect(self) -> None:
        """Open the connections."""
        allow_files(FILES)
        for _ in range(POOL if self.order.rate else self.order.connections):
            _, connection = await self._loop.create_connection(self._connection, "127.0.0.1", self.order.port)
            self._connections.append(connection)
        self._idle = list(self._connections)

    def close(self) -> None:
        """Drop the connections."""
        for connection in self._connections:
            connection.close()

    def stop(self) -> None:
        """Have an open loop send no more."""
        self.stopped = True

    async def closed(self) -> None:
        """Keep every connection busy until the time or the number is up."""
        self._ends_at = time.perf_counter() + self.order.warm_s + self.order.seconds
        while self._idle:
            self._idle.pop().send(self._next(time.perf_counter()))
        await self._quiet.wait()

    def due(self) -> Iterable[float]:
        """When an open loop's requests are due, from now on."""
        order, now = self.order, time.perf_counter()
        due: list[float] = (now + arrivals(order.rate, order.warm_s + order.seconds, order.seed, order.gaps)).tolist()
        return due[: order.requests]

    async def open(self) -> None:
        """Send when each request is due, on an idle connection or, where there is none, on the first that will be."""
        for at in self.due():
            if self.stopped:
                break
            while (left := at - time.perf_counter()) > 0:  # noqa: ASYNC110  no event tells the time
                await asyncio.sleep(left - SPIN_S if left > SPIN_S else 0)
            exchange = self._next(at)
            while self._idle and not self._idle[-1].usable:
                self._idle.pop()  # the server closes what is idle for long
            if self._idle:
                self._idle.pop().send(exchange)
            else:
                self._waiting.append(exchange)
                await asyncio.sleep(0)  # late already: answers must still be read
        self._ends_at = time.perf_counter()
        if self.unanswered:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._quiet.wait(), DRAIN_S)

    def judge(self, exchange: Exchange) -> Outcome:
        """Check an answer and keep what is worth keeping of it."""
        return judge(exchange)

    def _connection(self) -> Connection:
        return Connection(self._done)

    def _next(self, intended: float) -> Exchange:
        body = self.bodies[self.sent % len(self.bodies)]
        self.sent += 1
        return Exchange(body, intended)

    def _done(self, connection: Connection, exchange: Exchange) -> None:
        """Send what is next first: judging an answer takes longer than sending a request."""
        if connection.usable:  # one that the server closed stays away, and the errors show it
            if self._waiting:
                connection.send(self._waiting.popleft())
            elif self.order.rate:
                self._idle.append(connection)
            elif time.perf_counter() < self._ends_at and self.sent < self.order.requests:
                connection.send(self._next(time.perf_counter()))
        self.outcomes.append(self.judge(exchange))
        if not self.unanswered and (not self.order.rate or time.perf_counter() >= self._ends_at):
            self._quiet.set()
