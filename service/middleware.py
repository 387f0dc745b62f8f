"""Pure ASGI: the request id, the body limit and the HTTP metrics."""

import math
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.connection import LEAVING, Leaving
from service.errors import BodyTooLarge, Internal, InvalidRequest, UnsupportedMediaType
from service.metrics import Answered, Metrics
from service.notes import Notes

CALL = "dinserve.call"  # where the scope keeps the Call
LET_IN: Final = "dinserve.let_in"  # in the scope of a request that an overloaded server looked at, and let in
CLIENT_CLOSED = "client_closed"

_REQUEST_ID_HEADER = b"x-request-id"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_JSON = b"application/json"
_LONGEST_DEADLINE_MS = 86_400_000.0  # a day; timers overflow on what a header can say
_LONGEST_NUMBER = 18  # digits of a Content-Length that is certainly an int64


@dataclass(slots=True, eq=False)
class Call:
    """One HTTP request, as far as every route cares."""

    request_id: str
    arrived: float  # `time.monotonic()` when its headers were complete
    headers: dict[bytes, bytes]  # lower-case names; of repeated ones the last
    leaving: Leaving | None = None  # the client; None: only the server's messages tell
    let_in: bool = False  # though the server is overloaded
    code: str | None = None  # how it ended; None keeps it out of the request metrics
    reading: bool = False  # its body is awaited
    started: bool = False  # its answer is on the way
    status: int = 0  # of its answer, once there is one
    shape: tuple[int, ...] = ()  # its candidates, ids and tags of its history, once it was parsed
    answered: Answered | None = None  # once it was scored
    notes: Notes | None = None  # None: nobody wants to know more of it

    @property
    def trace_id(self) -> str | None:
        """Where it is traced."""
        return None if self.notes is None or self.notes.trace is None else self.notes.trace.id

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What the metrics know it by, if it is traced."""
        return None if self.notes is None or self.notes.trace is None else {"trace_id": self.notes.trace.id}

    def check_json(self) -> None:
        """Check that the client says it sends JSON.

        Raises:
            UnsupportedMediaType: it does not.
        """
        given = self.headers.get(b"content-type", b"")
        if given != _JSON and given.partition(b";")[0].strip().lower() != _JSON:
            raise UnsupportedMediaType("the Content-Type must be application/json", "Content-Type")

    def deadline(self, default_ms: float) -> float:
        """When the client stops waiting (`time.monotonic()` clock): as X-Deadline-Ms says, else the default.

        Raises:
            InvalidRequest: the header is no positive number.
        """
        given = self.headers.get(b"x-deadline-ms")
        milliseconds = default_ms if given is None else _positive(given, "X-Deadline-Ms")
        return self.arrived + min(milliseconds, _LONGEST_DEADLINE_MS) / 1000


class Answer(Response):
    """A finished answer: its bytes are ready, and its headers need none of Starlette's encoding (3 us)."""

    def __init__(
        self, status: int, content: bytes, headers: Iterable[tuple[bytes, bytes]] = (), content_type: bytes = _JSON
    ) -> None:
        self.status_code = status
        self.body = content
        self.raw_headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(content)), *headers]
        self.background = None


Respond: TypeAlias = Callable[[Call, Receive], Awaitable[Answer]]


class Watch(Protocol):
    """Whoever wants to know more of some requests than their metrics."""

    def begin(self, call: Call, scope: Scope) -> None:
        """Give a request notes, if it is one of those."""

    def end(self, call: Call, notes: Notes, scope: Scope, ended: float) -> None:
        """Take the notes of a request that ended at `ended` (`time.monotonic()`)."""


class Edge:
    """The outermost layer of the application.

    Args:
        app: whatever answers the requests that `direct` does not name.
        metrics: told about every call that ends with a code.
        max_body_bytes: longest body; reading a longer one raises `BodyTooLarge`.
        refuse: makes the answer to an exception; it also sets the call's code.
        direct: what answers a (method, path) without a router's 20 us.
        watch: sees each request begin, and those to which it gave notes end.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        refuse: Callable[[Call, Exception], Answer],
        direct: Mapping[tuple[str, str], Respond],
        watch: Watch | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._refuse = refuse
        self._direct = direct
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = make_request_id(headers.get(_REQUEST_ID_HEADER))
        call = scope[CALL] = Call(request_id, time.monotonic(), headers, scope.get(LEAVING), LET_IN in scope)
        watch = self._watch
        if watch is not None:
            watch.begin(call, scope)
        receive = _limited(headers, receive, self._max_body_bytes)
        respond = self._direct.get((scope["method"], scope["path"]))
        try:
            if respond is None:
                await self._route(call, scope, receive, _tagged(call, send))
            else:
                await self._answer(call, respond, receive, send)
        finally:
            ended, notes = time.monotonic(), call.notes
            if call.code is not None:
                exemplar = None if notes is None else call.exemplar
                self._metrics.request(call.code, ended - call.arrived, call.shape, call.answered, exemplar)
            if watch is not None and notes is not None:
                watch.end(call, notes, scope, ended)

    async def _answer(self, call: Call, respond: Respond, receive: Receive, send: Send) -> None:
        try:
            answer = await respond(call, receive)
        except Exception as error:  # noqa: BLE001  the border: what is no error of ours is logged there
            answer = self._refuse(call, error)
        call.status = answer.status_code
        headers = [*answer.raw_headers, (_REQUEST_ID_HEADER, call.request_id.encode())]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _route(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if not call.started:
                await self._refuse(call, error)(scope, receive, send)
            elif call.code != Internal.code:  # not what Starlette raises again after answering it
                raise  # too late for another answer: the server logs it and closes the connection


def _positive(given: bytes, header: str) -> float:
    try:
        number = math.nan if b"_" in given else float(given)  # Python would read 1_000
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InvalidRequest("this must be a positive number", header)
    return number


def make_request_id(given: bytes | None) -> str:
    """The client's own id when it is harmless in a header and a log, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"{random.getrandbits(64):016x}"


def _tagged(call: Call, send: Send) -> Send:
    """Send that puts the request id on the answer and notes that it started."""

    async def tagged(message: Message) -> None:
        if message["type"] == "http.response.start":
            call.started = True
            call.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (_REQUEST_ID_HEADER, call.request_id.encode())]
        await send(message)

    return tagged


def _limited(headers: dict[bytes, bytes], receive: Receive, most: int) -> Receive:
    """Receive that raises `BodyTooLarge`: at once where the length is announced, else while the body comes in."""
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or b"transfer-encoding" in headers:
        return _counted(receive, most)
    if len(length) <= _LONGEST_NUMBER and int(length) <= most:
        return receive  # the server itself enforces an announced length
    return _refused(most)


def _counted(receive: Receive, most: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise _too_large(most)
        return message

    return counted


def _refused(most: int) -> Receive:
    async def refused() -> Message:
        raise _too_large(most)

    return refused


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is longer than {most} bytes")
