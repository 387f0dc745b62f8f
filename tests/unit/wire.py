"""Connections with a transport that remembers, a clock that is told the time, and an application that answers paths."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry
from uvicorn import Config
from uvicorn.server import ServerState

from service.config import Settings
from service.guard import GUARD, Guard
from service.metrics import Metrics
from service.protocol import GuardedProtocol
from service.refusals import refuse

GET = b"GET / HTTP/1.1\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n"
DEAF = POST.replace(b"/", b"/deaf", 1)  # answered before its body has come
SETTINGS = Settings(
    max_header_bytes=300, max_body_bytes=100, max_connections=2, header_timeout_s=10, body_timeout_s=20, keep_alive_s=75
)


@dataclass(slots=True)
class Timer:
    """A call that is due."""

    at: float
    call: Callable[[], object]
    cancelled: bool = False

    def cancel(self) -> None:
        """Call it off."""
        self.cancelled = True


@dataclass(slots=True)
class Clock:
    """The event loop of a connection, whose time passes when a test says so."""

    now: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        """What it is."""
        return self.now

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Note a call."""
        self.timers.append(Timer(self.now + seconds, call))
        return self.timers[-1]

    def create_task(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run requests on the real loop."""
        return asyncio.get_running_loop().create_task(coroutine)

    def pass_by(self, seconds: float) -> None:
        """Make the calls that become due."""
        self.now += seconds
        for timer in sorted(self.timers, key=lambda timer: timer.at):
            if timer.at <= self.now and not timer.cancelled:
                timer.cancelled = True
                timer.call()


class Transport(asyncio.Transport):
    """Remembers what is done to it."""

    def __init__(self, client: "Client") -> None:
        super().__init__()
        self._client = client
        self.written = b""
        self.state = "open"
        self.paused = False
        self.buffered = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Nothing is known."""
        return default

    def write(self, data: Any) -> None:
        """Remember what the client gets."""
        assert self.state == "open", "written after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        """As TCP can."""
        return True

    def write_eof(self) -> None:
        """Half of the connection is closed."""
        self.state = "half closed"

    def is_closing(self) -> bool:
        """Whether both halves are."""
        return self.state in {"closed", "aborted"}

    def close(self) -> None:
        """Close when all is written."""
        if not self.is_closing():
            self.state = "closed"

    def abort(self) -> None:
        """Close now."""
        self.state = "aborted"

    def pause_reading(self) -> None:
        """Nothing is read."""
        self.paused = True

    def resume_reading(self) -> None:
        """All is read."""
        self.paused = False

    def get_write_buffer_size(self) -> int:
        """As a test says."""
        return self.buffered


class Connection(GuardedProtocol):
    """A connection without a socket to look at."""

    pending = False

    @property
    def unread(self) -> bool:
        """As a test says."""
        return self.pending


class Client:
    """The other side of connections to one server."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.state = ServerState()
        self.metrics = Metrics(CollectorRegistry())
        self.drained: list[bool] = []
        self.guard = Guard(SETTINGS, self.metrics, refuse, lambda: self.drained.append(True))
        self.gate = asyncio.Event()
        self.gate.set()
        self.paths: list[str] = []

    def connect(self) -> tuple[Connection, Transport]:
        """Open a connection."""
        config = Config(
            self._answer, log_config=None, timeout_keep_alive=SETTINGS.keep_alive_s, lifespan="off", interface="asgi3"
        )
        config.load()
        loop: Any = self.clock
        connection = Connection(config=config, server_state=self.state, app_state={GUARD: self.guard}, _loop=loop)
        transport = Transport(self)
        connection.connection_made(transport)
        return connection, transport

    def metric(self, name: str) -> float:
        """A metric by its exposed name."""
        text = self.metrics.exposition("")[0].decode()
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))

    def refused(self, reason: str) -> float:
        """How many connections were refused for it."""
        return self.metric(f'din_connections_refused_total{{reason="{reason}"}}')

    async def _answer(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Answer with the path, when the gate is open and the body has come; `/deaf` does not wait for the body."""
        self.paths.append(scope["path"])
        await self.gate.wait()
        message = {"more_body": scope["path"] != "/deaf"}
        while message.get("more_body"):
            message = await receive()
        if message.get("type") == "http.disconnect":
            return
        content = scope["path"].encode()
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]}
        )
        await send({"type": "http.response.body", "body": content})


def code(written: bytes) -> tuple[int, str]:
    """Status and code of the last answer."""
    head, _, body = written[written.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]
