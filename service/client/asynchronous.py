"""The client for asyncio."""

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TypeVar

import httpx2
from pydantic import BaseModel

from service.client import messages
from service.client.answers import Health, ModelInfo, Scores
from service.client.base import Base
from service.client.messages import Columns, Message
from service.client.policy import Answered, Call, Ended, Failed, Send, Wait

T = TypeVar("T", bound=BaseModel)


class AsyncClient(Base):
    """Asks a server from coroutines of one event loop; its options are those of `Base`.

    Use it as `async with AsyncClient(url) as dinserve`, or call `close` at the end.
    """

    def _open(self) -> None:
        self._http = httpx2.AsyncClient(**self._options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self,
        history: Columns,
        candidates: Columns,
        *,
        top_k: int | None = None,
        explain: bool = False,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Scores:
        """Score candidates, as `Client.score` does."""
        message = messages.score(history, candidates, top_k=top_k, explain=explain, headers=headers)
        return await self.ask(message, timeout_s)

    async def model(self, *, timeout_s: float | None = None) -> ModelInfo:
        """The version that serves."""
        return await self.ask(messages.model(), timeout_s)

    async def health(self, *, timeout_s: float | None = None) -> Health:
        """Whether the server can score; that it cannot is an answer too."""
        return await self.ask(messages.health(), timeout_s)

    async def ask(self, message: Message[T], timeout_s: float | None = None) -> T:
        """Send a message of `service.client.messages`, with all that a call is given."""
        call: Call[T] = self._call(time.monotonic(), timeout_s)
        flying: set[asyncio.Task[Ended[T]]] = set()
        try:
            while True:
                now = time.monotonic()
                match call.step(now):
                    case Send():
                        flying.add(asyncio.create_task(self._attempt(message, call, call.deadline - now)))
                    case Wait(until) if flying:
                        done, flying = await asyncio.wait(
                            flying, timeout=until - now, return_when=asyncio.FIRST_COMPLETED
                        )
                        for task in done:
                            call.ended(time.monotonic(), task.result())
                    case Wait(until):
                        await asyncio.sleep(until - now)
                    case Answered(answer):
                        return answer
                    case Failed(error):
                        raise error
        finally:
            for task in flying:
                task.cancel()
            if flying:
                await asyncio.gather(*flying, return_exceptions=True)

    async def _attempt(self, message: Message[T], call: Call[T], remaining_s: float) -> Ended[T]:
        try:
            response = await self._http.send(self._request(message, remaining_s, {}))  # the call's own wait ends it
        except httpx2.TransportError as error:
            return self._failed(error, call)
        return message.judge(response.status_code, response.headers, response.content)
