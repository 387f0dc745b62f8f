"""Running a coroutine up to its first wait and the rest of it later, as if it had been awaited; limits of a body."""

import asyncio
import time

import pytest

from service.connection import Started, read_body
from service.errors import DeadlineExceeded, RequestTimeout

pytestmark = pytest.mark.anyio


async def give(value: int, *waits: asyncio.Future[int]) -> int:
    """Add up a value and what comes of the waits."""
    return value + sum([await each for each in waits])


async def fail(*waits: asyncio.Future[int]) -> int:
    """Raise after the waits."""
    await give(0, *waits)
    raise ValueError("told to")


def future(value: int | None = None) -> asyncio.Future[int]:
    """Make a future, with a value or pending."""
    made: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    if value is not None:
        made.set_result(value)
    return made


async def test_without_a_wait_all_is_done() -> None:
    """A coroutine that never waits is done at once, and awaiting it gives its result as often as asked."""
    started = Started(give(1, future(2)))
    assert started.done
    assert [await started, await started] == [3, 3]


async def test_error_before_a_wait_is_raised_at_once() -> None:
    """What a coroutine raises before it waits is raised where it is started."""
    with pytest.raises(ValueError, match="told to"):
        Started(fail())


async def test_waits_go_on_to_the_end() -> None:
    """A coroutine that waits is not done; awaiting it waits for the same, and for what comes after."""
    first, second = future(), future()
    started = Started(give(1, first, second))
    assert not started.done
    loop = asyncio.get_running_loop()
    loop.call_soon(first.set_result, 10)
    loop.call_soon(loop.call_soon, second.set_result, 100)
    assert await started == 111


async def test_error_after_a_wait_is_raised_where_it_is_awaited() -> None:
    """What a coroutine raises after a wait comes out of awaiting it."""
    wait = future()
    started = Started(fail(wait))
    asyncio.get_running_loop().call_soon(wait.set_result, 0)
    with pytest.raises(ValueError, match="told to"):
        await started


async def test_cancellation_reaches_the_coroutine() -> None:
    """A cancelled task cancels inside the coroutine, which may still wait for its own end."""
    seen, last = [], future()

    async def tidy() -> int:
        try:
            return await future()
        except asyncio.CancelledError:
            seen.append(await last)
            raise

    async def whole() -> int:
        return await Started(tidy())

    task = asyncio.create_task(whole())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    last.set_result(7)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [7]


@pytest.mark.parametrize(
    ("deadline_s", "latest_s", "error"),
    [
        pytest.param(0, 60, DeadlineExceeded, id="deadline-first"),
        pytest.param(60, 0, RequestTimeout, id="ours-first"),
        pytest.param(0, 0, DeadlineExceeded, id="both"),
    ],
)
async def test_body_has_two_limits(deadline_s: float, latest_s: float, error: type[Exception]) -> None:
    """A body that does not come is the client's deadline or our own limit, whichever was first."""
    pieces: list[dict[str, object]] = [{"type": "http.request", "body": b"a", "more_body": True}]

    async def receive() -> dict[str, object]:
        return pieces.pop() if pieces else await asyncio.get_running_loop().create_future()

    now = time.monotonic()
    with pytest.raises(error):
        await read_body(receive, now + deadline_s, now + latest_s)
