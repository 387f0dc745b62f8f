"""What a connection may do: uvicorn's HTTP protocol with limits on its number, its headers and its slowness.

Uvicorn waits for ever for the rest of a request and for a client that does not read; and what it cannot parse it
answers in plain text, before the requests that came earlier on the connection.
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.connection import LEAVING, Leaving
from service.errors import Overloaded, RequestError
from service.guard import GUARD, Flow, Guard, Outlet, why_unparsed
from service.sockets import readable

_LINGER_S = 1.0  # after a refusal: what the client still sends is read, lest a reset overtake the answer
_LINGERING = 256  # connections beyond the limit that may wait for that; others get no answer
_PIPELINED = 256  # requests of a connection that may wait for the one that runs
_SLACK_S = 0.5  # the application refuses late bodies too, and better: it goes first


class GuardedProtocol(HttpToolsProtocol):
    """A connection under the guard that the application put into its lifespan's state."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._guard: Guard = self.app_state[GUARD]
        self._running: RequestResponseCycle | None = None  # `cycle` is the newest, which may be queued
        self._inside = False  # a request's first byte has been parsed and its last has not
        self._in_head = False  # nor have all its headers
        self._received = 0  # bytes of the request that comes in; of one that followed another at once, a little less
        self._rest: asyncio.TimerHandle | None = None  # by then what has begun must be here
        self._untaken: asyncio.TimerHandle | None = None  # by then the client must have read, or gone
        self._last_words: bytes | None = None  # to be sent after the answers that are due, before closing
        self._deaf = False  # nothing more is parsed

    @property
    def idle(self) -> bool:
        """Whether every request so far was parsed and answered."""
        return not self._inside and (self.cycle is None or self.cycle.response_complete)

    @property
    def unread(self) -> bool:
        """Whether something waits to be read, if only the end."""
        return readable(self.transport.get_extra_info("socket").fileno())

    @property
    def writing(self) -> bool:
        """Whether something is written that has not been sent."""
        return self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Count the connection; refuse it if there are too many."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self._outlet = Outlet(transport, self._close_answered)
        guard = self._guard
        guard.metrics.connected()
        beyond = len(self.connections) - guard.max_connections
        if beyond <= 0:  # opened ahead of its first request, perhaps: as idle as one between two
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        elif beyond <= _LINGERING:
            self._end_with(Overloaded("there are too many connections", "connections", 1.0), "limit")
        else:
            guard.metrics.connection_refused("limit")
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._guard.metrics.disconnected()
        self._stop_timers()
        self._unset_keepalive_if_required()
        self._abandon()
        self._outlet.close = self.transport.close  # no cycle is left: it ends without Python's collector
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see to it that the rest comes."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._received += len(data)
        before = self.cycle
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data, None if self.cycle is before else upgrade.args[0])
        except httptools.HttpParserError as error:
            self._end_with(*why_unparsed(error))
        else:
            if self._inside or self.cycle is None or self.cycle.response_complete:
                self._expect_rest()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._inside = self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Start the request, whose headers are here."""
        guard, waiting, before = self._guard, self.pipeline, self.cycle
        if self._received > guard.max_header_bytes:
            guard.check_head(self.parser.get_method(), self.url, self.headers)
        if len(waiting) >= _PIPELINED:
            raise Overloaded("there are too many requests at once on this connection", "pipeline", 1.0)
        super().on_headers_complete()
        self.cycle.transport = self._outlet  # type: ignore[assignment]  # all that a cycle asks of one
        self.cycle.scope[LEAVING] = Leaving(self.flow.resume_reading)  # type: ignore[typeddict-unknown-key]
        self._in_head = False
        self.headers = []  # trailers go there, and not among the headers that the application sees
        if self._rest is not None:
            self._stop_waiting()
        if len(waiting) == 1:
            self._running = before
        if guard.draining:
            self.close_after_answer()
            if before is not None and not before.response_started:  # no longer the last
                before.keep_alive = before.scope["http_version"] == "1.1"

    def on_message_complete(self) -> None:
        """The request is here."""
        self._inside = False
        self._received = 0
        if self._rest is not None:
            self._stop_waiting()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer has been written; see to it that it is taken."""
        last = not self.pipeline
        if not last:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()
        if self.timeout_keep_alive_task is None and self.transport.is_closing():
            self._expect_taken()
        elif self._last_words is not None and last:
            self._linger(self._last_words)

    def pause_writing(self) -> None:
        """Much is written that the client has not read."""
        super().pause_writing()
        self._expect_taken()

    def resume_writing(self) -> None:
        """The client reads."""
        super().resume_writing()
        if self._untaken is not None and not self.transport.is_closing():
            self._untaken.cancel()
            self._untaken = None

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless a request came at the last moment."""
        if not self.transport.is_closing() and self.unread:
            self.timeout_keep_alive_task = self.loop.call_later(_LINGER_S, self.timeout_keep_alive_handler)
        else:
            self._close()

    def shutdown(self) -> None:
        """Close when what has arrived is answered: at once, if that is nothing."""
        if self.transport.is_closing() or self._deaf:
            return  # the end is coming
        if self._inside and not self._in_head and self.cycle.response_complete:
            self._close()  # a body that nobody reads
        elif not self.idle:
            self.close_after_answer()
        elif not self.unread:
            self._close()

    def close_after_answer(self) -> None:
        """Make the answer that is due the last one, and have it say so."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def abort(self) -> None:
        """Close now, and let the request know."""
        self._abandon()
        self.transport.abort()

    def _abandon(self) -> None:
        """Let requests know that nobody waits: uvicorn tells the newest, which may be queued behind one that runs."""
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                _leave(cycle)
        self.pipeline.clear()

    def _expect_rest(self) -> None:
        """Bound what came of the request so far, and the time that the rest of it may take."""
        guard = self._guard
        if self._received > (guard.max_header_bytes if self._in_head else guard.max_message_bytes):
            self._end_with(guard.too_large(), "headers_too_large")
            return
        if self._rest is None:
            in_body = self._inside and not self._in_head
            seconds = guard.body_timeout_s + _SLACK_S if in_body else guard.header_timeout_s
            self._rest = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        """The rest did not come in time."""
        self._rest = None
        guard = self._guard
        if self.transport.is_closing():
            return
        if self.flow.read_paused:  # it is for us to read on
            self._expect_rest()
        elif not self._inside:  # nothing came, or empty lines
            self._close()
        else:
            self._end_with(*guard.late(in_head=self._in_head))

    def _decline(self, data: bytes, head_end: int | None) -> None:
        """Answer a request for another protocol in this one; the parser that has seen it does not go on.

        Args:
            data: what was just parsed.
            head_end: where in it the request's headers ended; None if they came earlier.
        """
        headers = dict(self.scope["headers"])
        if head_end is None or b"transfer-encoding" in headers or self.scope["method"] == "CONNECT":
            self.close_after_answer()  # where the next request begins is not known
            self._deaf = True
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        rest = data[head_end + int(headers.get(b"content-length", b"0")) :]
        if rest:
            self.data_received(rest)

    def _end_with(self, error: RequestError, reason: str) -> None:
        """Answer what comes in with an error, after the requests that came before it, and close."""
        guard, broken = self._guard, self.cycle
        guard.metrics.connection_refused(reason)
        self._deaf = True
        self._stop_waiting()
        request_id = dict(self.scope["headers"]).get(b"x-request-id") if self._inside else None
        answer = guard.render(error, request_id, self.server_state.default_headers)
        if self._inside and not self._in_head:  # the newest request is the one that is broken
            if self.pipeline and self.pipeline[0][0] is broken:
                self.pipeline.popleft()
                self._last_words = answer
            elif broken.response_started:
                self._linger(b"")
            else:
                _leave(broken)
                self._linger(answer)
        elif broken is None or broken.response_complete:
            self._linger(answer)
        else:
            self._last_words = answer

    def _linger(self, last_words: bytes) -> None:
        """Close when the client has, or soon."""
        self.transport.write(last_words)
        self._deaf, self._last_words = True, None
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._abort_soon()

    def _close_answered(self) -> None:
        """Close after an answer, but not in the face of a client that still sends its request."""
        if self._inside and not self.pipeline:
            self._linger(b"")
        else:
            self.transport.close()

    def _close(self) -> None:
        self.transport.close()
        if self.writing:
            self._expect_taken()
        else:
            self._abort_soon()  # TLS waits for the client's farewell

    def _abort_soon(self) -> None:
        self._stop_timers()
        self._untaken = self.loop.call_later(_LINGER_S, self.transport.abort)

    def _expect_taken(self) -> None:
        """What is written must have been read within a time."""
        if self._untaken is None:
            self._untaken = self.loop.call_later(self._guard.body_timeout_s, self._cut)

    def _cut(self) -> None:
        self._guard.metrics.connection_refused("unread")
        self.abort()

    def _stop_waiting(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _stop_timers(self) -> None:
        self._stop_waiting()
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None


def _leave(cycle: RequestResponseCycle) -> None:
    """Let a request know that nobody waits for its answer."""
    cycle.disconnected = True
    cycle.message_event.set()
    cycle.scope[LEAVING].tell()  # type: ignore[typeddict-item]
