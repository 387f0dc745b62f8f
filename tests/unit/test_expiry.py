"""Futures that end at their deadlines, on a real event loop."""

import asyncio
import time
from typing import Any

import pytest

from service.expiry import Expiry

pytestmark = pytest.mark.anyio

SOON_S = 0.02
LATER_S = 60.0


@pytest.fixture
def expired() -> list[asyncio.Future[Any]]:
    """What has expired, in order."""
    return []


@pytest.fixture
def expiry(expired: list[asyncio.Future[Any]]) -> Expiry:
    """Ends futures with "late", and notes them."""

    def end(future: asyncio.Future[Any]) -> None:
        expired.append(future)
        future.set_result("late")

    return Expiry(end)


def held(expiry: Expiry, seconds: float) -> asyncio.Future[Any]:
    """Make a future that expires in so many seconds."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    expiry.add(future, time.monotonic() + seconds)
    return future


async def test_each_ends_at_its_own_deadline(expiry: Expiry, expired: list[asyncio.Future[Any]]) -> None:
    """Futures end in the order of their deadlines, not before them, whatever the order in which they came."""
    started = time.monotonic()
    last, never, first, second = (held(expiry, seconds) for seconds in (3 * SOON_S, LATER_S, SOON_S, 2 * SOON_S))
    assert await first == "late"
    assert time.monotonic() - started >= SOON_S
    assert not second.done()
    await second
    assert not last.done()
    await last
    assert time.monotonic() - started >= 3 * SOON_S
    assert expired == [first, second, last]
    assert not never.done()
    assert len(expiry) == 1
    expiry.stop()


async def test_what_came_too_late_ends_at_once(expiry: Expiry) -> None:
    """A deadline that has passed ends its future with the event loop's next turns, not within the call."""
    future = held(expiry, -1)
    assert not future.done()
    assert await asyncio.wait_for(future, 5) == "late"


async def test_what_is_done_is_left_alone(expiry: Expiry, expired: list[asyncio.Future[Any]]) -> None:
    """A future that was done in time keeps its result, and one behind it still ends at its deadline."""
    done, late = held(expiry, SOON_S), held(expiry, 2 * SOON_S)
    done.set_result("in time")
    assert await late == "late"
    assert done.result() == "in time"
    assert expired == [late]


async def test_same_deadline(expiry: Expiry, expired: list[asyncio.Future[Any]]) -> None:
    """Futures with the very same deadline end in the order in which they came."""
    deadline = time.monotonic() + SOON_S
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for future in futures:
        expiry.add(future, deadline)
    await futures[-1]
    assert expired == futures


async def test_what_is_done_is_forgotten(expiry: Expiry) -> None:
    """What was answered does not wait for its deadline: the heap is as long as what is in flight."""
    for _ in range(100):
        held(expiry, LATER_S).set_result("in time")
    assert len(expiry) == 1
    expiry.stop()
    assert len(expiry) == 0


async def test_no_deadline(expiry: Expiry, expired: list[asyncio.Future[Any]]) -> None:
    """A future that may take for ever sets no timer."""
    expiry.add(asyncio.get_running_loop().create_future(), float("inf"))
    late = held(expiry, SOON_S)
    await late
    assert expired == [late]


async def test_nothing_ends_after_a_stop(expiry: Expiry, expired: list[asyncio.Future[Any]]) -> None:
    """Stopped, it ends nothing, and can be used again."""
    future = held(expiry, SOON_S)
    expiry.stop()
    assert await held(expiry, 2 * SOON_S) == "late"
    assert not future.done()
    assert len(expired) == 1
