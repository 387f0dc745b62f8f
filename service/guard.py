"""What the connections of a process share: their limits, and the answer to those that are refused."""

import time
from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.config import Settings
from service.errors import RequestError
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

    def render(self, error: RequestError, request_id: bytes | None, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The whole answer to a connection that is closed with it."""
        call = Call(make_request_id(request_id), time.monotonic(), {})
        answer = self._refuse(call, error)
        closing = [(b"x-request-id", call.request_id.encode()), (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % each for each in (*headers, *answer.raw_headers, *closing)]
        return b"".join([STATUS_LINE[answer.status_code], *lines, b"\r\n", answer.body])
