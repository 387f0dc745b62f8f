"""Running a coroutine up to its first wait and the rest of it later, as if it had been awaited; limits of a body."""

import asyncio
import time

import pytest
from starlette.requests import ClientDisconnect

from service.connection import Leaving, Started, read_body, while_connected
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


async def unasked() -> dict[str, object]:
    """Stand for a server's messages where the server tells who leaves."""
    pytest.fail("the server was asked")


def leaving() -> tuple[Leaving, list[str]]:
    """Make one, and a list of the times that reading was resumed."""
    resumed: list[str] = []
    return Leaving(lambda: resumed.append("resumed")), resumed


async def test_client_that_leaves_cancels_the_work() -> None:
    """A client that leaves cancels the work, which may tidy up; the connection was read on meanwhile."""
    client, resumed = leaving()
    tidied = []

    async def work() -> None:
        try:
            await future()
        finally:
            tidied.append("tidied")

    asyncio.get_running_loop().call_later(0.01, client.tell)
    with pytest.raises(ClientDisconnect):
        await while_connected(unasked, work(), client)
    assert tidied == ["tidied"]
    assert resumed == ["resumed"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_client_that_has_left_has_no_work_done() -> None:
    """For a client that left before, the work is not even begun."""
    client, _ = leaving()
    begun = []

    async def work() -> None:
        begun.append("begun")

    client.tell()
    with pytest.raises(ClientDisconnect):
        await while_connected(unasked, work(), client)
    assert begun == []


async def test_client_that_leaves_with_its_answer_changes_nothing() -> None:
    """A client that leaves as the work ends, or later, neither loses the result nor cancels what follows."""
    client, _ = leaving()

    async def work() -> int:
        return 1

    assert await while_connected(unasked, work(), client) == 1
    client.tell()
    for _ in range(5):  # a late cancellation would arrive here
        await asyncio.sleep(0)


async def test_cancellation_from_elsewhere_is_passed_on() -> None:
    """Whoever else cancels is not taken for the client."""
    client, _ = leaving()
    task = asyncio.create_task(while_connected(unasked, future_of_its_own(), client))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def future_of_its_own() -> int:
    """Wait for ever."""
    return await future()
