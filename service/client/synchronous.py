"""The client for threads."""

import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel

from service.client import messages
from service.client.answers import Health, ModelInfo, Scores
from service.client.base import Base
from service.client.messages import Columns, Message
from service.client.policy import Answered, Call, Ended, Failed, Send, Wait

T = TypeVar("T", bound=BaseModel)


class _Left(dict[str, float]):
    """Timeouts as httpx2 looks them up, at the beginning of each wait: what the call has left then."""

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._deadline = deadline

    def get(self, name: str, default: Any = None) -> Any:
        """Seconds; a socket takes 0 for something else."""
        return max(self._deadline - time.monotonic(), 0.001)


class Client(Base):
    """Asks a server; its options are those of `Base`. Threads may share one, and should: they share its connections.

    Use it as `with Client(url) as dinserve`, or call `close` at the end. With `hedge_s`, attempts run in threads of the
    client; one that is no longer needed ends there when it is answered or its call's time is up.
    """

    def _open(self) -> None:
        self._http = httpx2.Client(**self._options())
        self._threads: ThreadPoolExecutor | None = None
        if self._rules.hedge_s is not None:
            self._threads = ThreadPoolExecutor(self._connections, "dinserve-client")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._http.close()

    def score(
        self,
        history: Columns,
        candidates: Columns,
        *,
        top_k: int | None = None,
        explain: bool = False,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Scores:
        """Score candidates against a history.

        Args:
            history: ids and tags of what the user did, oldest first. Tags of None are left out, for a server with a
                catalog.
            candidates: ids and tags of the items to score; likewise.
            top_k: how many of the best to name in `ranking`.
            explain: whether to return the attention paid to the history.
            timeout_s: instead of the client's.
            headers: more of them, such as `traceparent`, or an `X-Request-Id` of your own.

        Raises:
            Refused: the server said no, one class for each of its codes.
            TimedOut: the call's time ran out.
            Unreachable: there was no connection, or it ended before the answer.
            ClientError: the root of all these.
            TypeError: a value is neither an integer of 64 bits nor text.
        """
        return self.ask(messages.score(history, candidates, top_k=top_k, explain=explain, headers=headers), timeout_s)

    def model(self, *, timeout_s: float | None = None) -> ModelInfo:
        """The version that serves."""
        return self.ask(messages.model(), timeout_s)

    def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server can score; that it cannot is an answer too."""
        return self.ask(messages.health(), timeout_s)

    def ask(self, message: Message[T], timeout_s: float | None = None) -> T:
        """Send a message of `service.client.messages`, with all that a call is given."""
        call: Call[T] = self._call(time.monotonic(), timeout_s)
        flying: set[Future[Ended[T]]] = set()
        while True:
            now = time.monotonic()
            match call.step(now):
                case Send() if self._threads is not None:
                    flying.add(self._threads.submit(self._attempt, message, call))
                case Send():
                    outcome = self._attempt(message, call)
                    call.ended(time.monotonic(), outcome)
                case Wait(until) if flying:
                    done, flying = wait(flying, until - now, FIRST_COMPLETED)
                    for future in done:
                        call.ended(time.monotonic(), future.result())
                case Wait(until):
                    time.sleep(until - now)
                case Answered(answer):
                    return answer
                case Failed(error):
                    raise error

    def _attempt(self, message: Message[T], call: Call[T]) -> Ended[T]:
        request = self._request(message, call.deadline - time.monotonic(), _Left(call.deadline))
        content = b""
        try:
            response = self._http.send(request, stream=True)
            try:
                for piece in response.iter_bytes():
                    content += piece
                    if time.monotonic() >= call.deadline:  # an answer may come in drops
                        return Failed(call.timed_out())
            finally:
                response.close()
        except httpx2.TransportError as error:
            return self._failed(error, call)
        return message.judge(response.status_code, response.headers, content)
