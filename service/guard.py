"""What the connections of a process share: their limits, and the answer to those that are refused."""

import asyncio
import time
from collections.abc import Callable, Sized
from typing import Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.config import Settings
from service.errors import HeadersTooLarge, MalformedHttp, Overloaded, RequestError, RequestTimeout
from service.metrics import Metrics
from service.middleware import Answer, Call, make_request_id

GUARD: Final = "guard"  # where the application's state has it

_FRAMING = 8  # bytes received for a byte of a body, if it comes in the smallest chunks; more is no body


class Guard:
    """What the connections of a process share.

    Args:
        settings: has the limits.
        metrics: told about each connection, and about each refusal.
        refuse: makes the answer to an error.
        drain: called when the process is told to stop.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        refuse: Callable[[Call, Exception], Answer],
        drain: Callable[[], None],
    ) -> None:
        self.metrics = metrics
        self.max_connections = settings.max_connections
        self.max_header_bytes = settings.max_header_bytes
        self.max_message_bytes = settings.max_header_bytes + _FRAMING * settings.max_body_bytes
        self.header_timeout_s = settings.header_timeout_s
        self.body_timeout_s = settings.body_timeout_s
        self.draining = False  # every connection closes after its next answer
        self._refuse = refuse
        self._drain = drain

    def drain(self) -> None:
        """The process was told to stop: say that it is not ready, and ask clients to go elsewhere."""
        if not self.draining:
            self.draining = True
            self._drain()

    def too_large(self) -> HeadersTooLarge:
        """The refusal of headers that are longer than the limit."""
        return HeadersTooLarge(f"the headers are longer than {self.max_header_bytes} bytes")

    def late(self, *, in_head: bool) -> tuple[RequestError, str]:
        """The refusal of a request whose headers, or whose body, took too long, and its reason in the metrics."""
        if in_head:
            return RequestTimeout(f"the headers did not arrive within {self.header_timeout_s:g} s"), "header_timeout"
        return RequestTimeout(f"the body did not arrive within {self.body_timeout_s:g} s"), "body_timeout"

    def check_head(self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Measure the request line and the headers of a request.

        Raises:
            HeadersTooLarge: they are longer than the limit.
        """
        line = len(method) + len(url) + len("  HTTP/1.1\r\n")
        if line + sum([len(name) + len(value) + 4 for name, value in headers]) + 2 > self.max_header_bytes:
            raise self.too_large()

    def render(self, error: RequestError, request_id: bytes | None, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The whole answer to a connection that is closed with it."""
        call = Call(make_request_id(request_id), time.monotonic(), {})
        answer = self._refuse(call, error)
        closing = [(b"x-request-id", call.request_id.encode()), (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % each for each in (*headers, *answer.raw_headers, *closing)]
        return b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", answer.body])


def why_unparsed(error: httptools.HttpParserError) -> tuple[RequestError, str]:
    """The refusal of what the parser, or what it called, did not take, and its reason in the metrics."""
    match error.__context__:  # what `on_headers_complete` raised
        case HeadersTooLarge() as refusal:
            return refusal, "headers_too_large"
        case Overloaded() as refusal:
            return refusal, "limit"
        case _:
            return MalformedHttp("this is not HTTP/1.1"), "malformed"


class Outlet:
    """What an answer is written to: a transport that the connection closes in its own way."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Flow(FlowControl):
    """Does not read on while requests wait that have been read: uvicorn's would hold as many as a client sends."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Read on, if nothing waits."""
        if not self._waiting:
            super().resume_reading()
