"""Refuses at the connection, before uvicorn parses anything, what an overloaded server would refuse anyway.

A request that gets its headers parsed and a task of its own costs a quarter of one that is scored, however short the
answer; refused here, some 20 us, it costs a tenth. At twice the load that a core can bear, that decides what is left.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from service import schema
from service.admission import PerRow, retry_after_s
from service.errors import Overloaded
from service.heads import Head, read_head
from service.metrics import Metrics
from service.middleware import LET_IN, make_request_id
from service.protocol import GuardedProtocol
from service.scorer import Scorer

GATE: Final = "gate"  # where the application's state has it

_HOLDS_S = 0.001  # how long what was found out holds for others: less than a batch takes
_ANSWER = b"%b%d%b%b\r\n\r\n%b%b%b"


class _Form(NamedTuple):
    """An answer but for the request id, which it has twice, and the length that follows from that."""

    start: bytes  # to where the length of the body comes
    middle: bytes  # from there to where the id comes
    before: bytes  # it in the body
    after: bytes

    @classmethod
    def of(cls, refusal: Overloaded, headers: Iterable[tuple[bytes, bytes]]) -> "_Form":
        """The form of a refusal, with headers that every answer has."""
        lines = b"".join([b"%b: %b\r\n" % each for each in (*headers, (b"content-type", b"application/json"))])
        middle = b"\r\nretry-after: %d\r\nx-request-id: " % retry_after_s(refusal.wait_s)
        body = schema.render_error(refusal.code, refusal.message, None, "\0").split(b"\\u0000")
        return cls(b"HTTP/1.1 503 Service Unavailable\r\n%bcontent-length: " % lines, middle, *body)

    def fill(self, request_id: bytes) -> bytes:
        """The whole answer."""
        start, middle, before, after = self
        length = len(before) + len(request_id) + len(after)
        return _ANSWER % (start, length, middle, request_id, before, request_id, after)


class Gate:
    """Decides who is not let in, and writes the answer.

    Args:
        scorer: knows what waits.
        metrics: told about each refusal.
        deadline_ms: a request's time when it does not say.
        max_candidates: most in a request.
    """

    def __init__(self, scorer: Scorer, metrics: Metrics, deadline_ms: float, max_candidates: int) -> None:
        self._scorer = scorer
        self._metrics = metrics
        self._deadline_ms = deadline_ms
        self._max_candidates = max_candidates
        self._row_bytes = PerRow()
        self._headers: list[tuple[bytes, bytes]] = []  # that every answer has
        self._forms: dict[tuple[str, int], _Form] = {}  # with them, by the message and when to come back
        self._pressed_until = 0.0
        # Of requests that say nothing of their time, until then:
        self._holds_until = 0.0
        self._free_bytes = 0.0  # bodies of so much in all are let in unasked
        self._held: tuple[str, _Form] | None = None  # and others refused like this,
        self._held_bytes = 0  # if they are as long

    def pressed(self, now: float) -> bool:
        """Whether it pays to look at requests before they are parsed: if not, hardly anybody is refused."""
        if now >= self._pressed_until and self._scorer.pressed(self._deadline_ms / 1000):
            self._pressed_until = now + _HOLDS_S
        return now < self._pressed_until

    def report(self) -> None:
        """Tell the metrics what waits now, and how much the executors have worked."""
        self._metrics.queue(self._scorer.queue_rows, self._scorer.wait_s, self._scorer.queue_age_s)
        self._metrics.busy(self._scorer.busy_s)

    async def publish(self) -> None:
        """Tell them every second: of several workers any may be asked for the metrics of all."""
        while True:
            self.report()
            self._metrics.count()
            await asyncio.sleep(1)

    def learn(self, rows: int, body_bytes: int) -> None:
        """A body of so many bytes asked about so many candidates."""
        self._row_bytes = self._row_bytes.after(rows, body_bytes)

    def guess_rows(self, body_bytes: int) -> int:
        """How many candidates a body is likely to ask about; one that is too long is no sign of overload."""
        row_bytes = self._row_bytes.mean
        return max(1, min(round(body_bytes / row_bytes), self._max_candidates)) if row_bytes else 1

    def check(self, headers: Mapping[bytes, bytes], deadline: float) -> None:
        """Check what is known of a request before its body is read.

        Raises:
            Overloaded: it would be refused when it is read.
        """
        length = headers.get(b"content-length", b"")
        refusal = self._scorer.refusal(self.guess_rows(int(length[:9])) if length.isdigit() else 1, deadline)
        if refusal is not None:
            raise refusal

    def refuse(self, head: Head, arrived: float, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """The whole answer to a request that is not let in; None if it is."""
        body_bytes, deadline_ms, request_id = head
        held = None
        if deadline_ms is None:
            if arrived >= self._holds_until:
                self._look_again(arrived)
            if body_bytes < self._free_bytes:
                self._expect(self.guess_rows(body_bytes), body_bytes)
                return None
            if body_bytes >= self._held_bytes:
                held = self._held
        if held is None:
            rows = self.guess_rows(body_bytes)
            milliseconds = self._deadline_ms if deadline_ms is None else deadline_ms
            refusal = self._scorer.refusal(rows, arrived + milliseconds / 1000)
            if refusal is None:
                self._expect(rows, body_bytes)
                return None
            held = refusal.reason, self._form(refusal, headers)
            if deadline_ms is None:
                self._held, self._held_bytes = held, body_bytes
        reason, form = held
        answer = form.fill(make_request_id(request_id).encode())
        self._metrics.shed(reason)
        self._metrics.request(Overloaded.code, time.monotonic() - arrived)
        return answer

    def _look_again(self, now: float) -> None:
        """Find out how much may be let in, for the next moment."""
        self._holds_until = now + _HOLDS_S
        self._free_bytes = self._scorer.free(now + self._deadline_ms / 1000) * self._row_bytes.mean
        self._held = None

    def _expect(self, rows: int, body_bytes: int) -> None:
        self._free_bytes -= body_bytes
        self._scorer.expect(rows)

    def _form(self, refusal: Overloaded, headers: list[tuple[bytes, bytes]]) -> _Form:
        if headers is not self._headers:  # uvicorn makes them anew every second
            self._headers = headers
            self._forms.clear()
        key = refusal.message, retry_after_s(refusal.wait_s)
        form = self._forms.get(key)
        if form is None:
            form = self._forms[key] = _Form.of(refusal, headers)
        return form


class Shedding(GuardedProtocol):
    """A connection behind the gate that the application put into its lifespan's state."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gate: Gate | None = self.app_state.get(GATE)
        self._let_in = False  # the request that is parsed was looked at
        self._refused_at = 0.0

    def data_received(self, data: bytes) -> None:
        """Refuse a request, or have it parsed."""
        gate, arrived = self._gate, time.monotonic()
        self._let_in = False
        if gate is not None and gate.pressed(arrived) and self._between:
            head = read_head(data)
            if head is not None:
                answer = gate.refuse(head, arrived, self.server_state.default_headers)
                if answer is not None:
                    self._refuse(answer, arrived)
                    return
                self._let_in = True
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """Start the request, whose headers are here."""
        super().on_headers_complete()
        if self._let_in:
            self.cycle.scope[LET_IN] = True  # type: ignore[typeddict-unknown-key]

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, unless it was used since: refusing does not set the timer anew."""
        left_s = self._refused_at + self.timeout_keep_alive - time.monotonic()
        if left_s > 0:
            self._close_after(left_s)
        else:
            super().timeout_keep_alive_handler()

    @property
    def _between(self) -> bool:
        """Whether every request so far was parsed and answered, and others may follow."""
        return self.idle and not (self._deaf or self.flow.write_paused or self._guard.draining)

    def _refuse(self, answer: bytes, now: float) -> None:
        self.transport.write(answer)
        if self._rest is not None:
            self._stop_waiting()
        self.server_state.total_requests += 1
        self._refused_at = now
        if self.timeout_keep_alive_task is None:
            self._close_after(self.timeout_keep_alive)

    def _close_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)
