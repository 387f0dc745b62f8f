"""The waits a request makes on its connection: for its body, and for its client to leave before it is answered."""

import asyncio
import math
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import DeadlineExceeded, RequestTimeout

T = TypeVar("T")


class Started(Generic[T]):
    """A coroutine run up to its first wait: one that is done by then needs no timer and no task beside it (20 us).

    Raises:
        BaseException: what the coroutine raises before it waits.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._waits_for: Any = None  # None: for the event loop's next turn
        self._result: list[T] = []
        self._step(coroutine.send, None)

    @property
    def done(self) -> bool:
        """Whether awaiting this will wait for nothing."""
        return bool(self._result)

    @types.coroutine
    def turn(self) -> Generator[Any, Any, None]:
        """Go on with the event loop's next turn, if the coroutine waits for nothing else."""
        if not self._result and self._waits_for is None:
            yield from self._pass_on()

    def __await__(self) -> Generator[Any, Any, T]:
        """Go on to the end."""
        while not self._result:
            yield from self._pass_on()
        return self._result[0]

    def _pass_on(self) -> Generator[Any, Any, None]:
        """Wait for what the coroutine waits for, and give it what comes of that."""
        try:
            passed = yield self._waits_for
        except BaseException as error:  # noqa: BLE001  a cancellation most of all
            self._step(self._coroutine.throw, error)
        else:
            self._step(self._coroutine.send, passed)

    def _step(self, step: Callable[[Any], Any], passed: Any) -> None:
        try:
            self._waits_for = step(passed)
        except StopIteration as end:
            self._result.append(end.value)


async def read_body(receive: Receive, deadline: float, latest: float = math.inf) -> bytes:
    """Read the whole body before `deadline`, when the client stops waiting, and before `latest`, when we do.

    Both on the clock of `time.monotonic()`.

    Raises:
        ClientDisconnect: the client left.
        DeadlineExceeded: the body did not arrive before the deadline.
        RequestTimeout: it did not arrive before `latest`, which was earlier.
        BodyTooLarge: it is longer than the limit.
    """
    reading = Started(_read(receive))
    if reading.done:
        return await reading
    try:
        async with asyncio.timeout(min(deadline, latest) - time.monotonic()):
            return await reading
    except TimeoutError:
        if latest < deadline:
            raise RequestTimeout("the body took too long to arrive") from None
        raise DeadlineExceeded("the body did not arrive before the deadline") from None


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`; when the client leaves first, cancel it.

    Raises:
        ClientDisconnect: the client left.
    """
    working = Started(work)
    await working.turn()
    if working.done:
        return await working
    task, waiting = _current_task(), True

    def cancel(_: asyncio.Task[None]) -> None:
        if waiting:
            task.cancel()

    watcher = asyncio.create_task(_disconnected(receive))
    watcher.add_done_callback(cancel)
    try:
        return await working
    except asyncio.CancelledError:
        if not watcher.done():
            raise  # somebody else's cancellation
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        waiting = False
        watcher.cancel()


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine under asyncio always runs in a task
    return task


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
