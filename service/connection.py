"""The waits a request makes on its connection: for its body, and for its client to leave before it is answered."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, Generic, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.errors import DeadlineExceeded, RequestTimeout

T = TypeVar("T")

LEAVING: Final = "dinserve.leaving"  # where a scope has its `Leaving`, under a server that knows


class Leaving:
    """When the client of one request leaves, told without a task that waits for it (15 us).

    Args:
        resume: reads on, as a connection must to show its end.
    """

    __slots__ = ("_resume", "_then", "left")

    def __init__(self, resume: Callable[[], None]) -> None:
        self._resume = resume
        self._then: Callable[[], object] | None = None
        self.left = False

    def watch(self, then: Callable[[], object]) -> None:
        """Call `then` when the client leaves."""
        self._then = then
        self._resume()

    def unwatch(self) -> None:
        """Call nothing any more."""
        self._then = None

    def tell(self) -> None:
        """The client has left."""
        self.left = True
        if self._then is not None:
            self._then()


class Started(Generic[T]):
    """A coroutine run up to its first wait: one that is done by then needs no timer and no task beside it (20 us).

    Raises:
        BaseException: what the coroutine raises before it waits.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine
        self._waits_for: Any = None
        self._result: list[T] = []
        self._step(coroutine.send, None)

    @property
    def done(self) -> bool:
        """Whether awaiting this will wait for nothing."""
        return bool(self._result)

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


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T], leaving: Leaving | None = None) -> T:
    """Await `work`; when the client leaves first, cancel it. Without `leaving` a task asks the server for that.

    Raises:
        ClientDisconnect: the client left.
    """
    task, watcher = _current_task(), None
    if leaving is None:
        leaving = Leaving(lambda: None)
        watcher = asyncio.create_task(_ask(receive, leaving))
    elif leaving.left:
        work.close()
        raise ClientDisconnect
    leaving.watch(task.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if not leaving.left:
            raise  # somebody else's cancellation
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        leaving.unwatch()
        if watcher is not None:
            watcher.cancel()


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine under asyncio always runs in a task
    return task


async def _ask(receive: Receive, leaving: Leaving) -> None:
    """Wait for a server's message that the client has left, and tell."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        leaving.tell()


async def _read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
