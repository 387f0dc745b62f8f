"""When Python's garbage collector runs: in idle moments, and when too much has come together."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from service import garbage

pytestmark = pytest.mark.anyio


class Loop:
    """Refers to itself, so that only the collector ends it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def taken_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The collector does nothing by itself, and looks are frequent."""
    monkeypatch.setattr(garbage, "PERIOD_S", 0.01)
    garbage.take_over()
    yield
    gc.enable()
    gc.unfreeze()


async def look(*, busy: bool = False) -> None:
    """Time enough for a few looks."""
    task = asyncio.create_task(garbage.collect_when_idle(lambda: busy))
    await asyncio.sleep(0.2)
    task.cancel()


@pytest.mark.parametrize(
    ("worth", "most", "busy", "collected"),
    [
        pytest.param(-1, 10**9, False, True, id="idle"),
        pytest.param(-1, 10**9, True, False, id="busy"),
        pytest.param(10**9, 10**9, False, False, id="too-little"),
        pytest.param(10**9, -1, True, True, id="too-much"),
    ],
)
async def test_collects(monkeypatch: pytest.MonkeyPatch, worth: int, most: int, *, busy: bool, collected: bool) -> None:
    """Enough is collected when nobody is served, too much at any time, and nothing else."""
    monkeypatch.setattr(garbage, "WORTH", worth)
    monkeypatch.setattr(garbage, "MOST", most)
    seen = weakref.ref(Loop())
    await look(busy=busy)
    assert (seen() is None) is collected


@pytest.mark.parametrize(("most", "collected"), [(10**9, False), (100_000, True)])
async def test_what_is_kept_is_not_looked_through_before_much_is(
    monkeypatch: pytest.MonkeyPatch, most: int, *, collected: bool
) -> None:
    """What was in use at a look, as an open connection is, costs nothing at those that follow but the very rare."""
    monkeypatch.setattr(garbage, "WORTH", 100)
    monkeypatch.setattr(garbage, "MOST", most)
    kept = [Loop() for _ in range(1000)]
    await look()
    seen = weakref.ref(kept[0])
    kept.clear()
    more = [[] for _ in range(150_000)]  # type: ignore[var-annotated]
    await look()
    assert (seen() is None) is collected
    assert len(more) == 150_000
