"""Copies of requests, run by a version beside the one that answers."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.batch import Floats, Sample
from service.loading import Served
from service.shadow import MOST_WAITING, Copy, Shadow
from tests.fakes import MANIFEST, FakeEngine, probability

pytestmark = pytest.mark.anyio

SAMPLE = Sample(*(np.array(column) for column in ([1, 2], [3], [4, 5], [6, 7])))


class Told:
    """Notes what a shadow reports."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, str, float]] = []
        self.answers: list[tuple[str, list[float]]] = []
        self.more = asyncio.Event()

    def shadow(self, outcome: str) -> None:
        """Note an outcome."""
        self.outcomes.append((outcome, "", 0.0))
        self.more.set()

    def compared(self, version: str, took_s: float, probabilities: Floats, difference: float) -> None:
        """Note probabilities."""
        assert took_s > 0
        self.answers.append((version, probabilities.tolist()))
        self.outcomes.append(("compared", version, difference))
        self.more.set()

    async def until(self, count: int) -> None:
        """Wait for so many outcomes."""
        while len(self.outcomes) < count:
            self.more.clear()
            await self.more.wait()


def serve(engine: Any, version: str = "2") -> Served:
    """A version with an engine."""
    return Served(MANIFEST.model_copy(update={"version": version}), engine, 0.0, 0.0)


def copy(served: Served, answered: list[float], sample: Callable[[], Sample] = lambda: SAMPLE) -> Copy:
    """A copy of SAMPLE that was answered so."""
    return Copy(served, sample, np.array(answered, np.float32))


async def test_copy_is_compared_with_what_was_answered() -> None:
    """The mean absolute difference and the shadow's own probabilities are reported."""
    told = Told()
    shadow = Shadow(lambda: True, told)
    theirs = [float(probability([1, 2], [3], *pair)) for pair in ((4, 6), (5, 7))]
    shadow.offer(copy(serve(FakeEngine()), [theirs[0] + 0.25, theirs[1] - 0.5]))
    await told.until(1)
    ((outcome, version, difference),) = told.outcomes
    assert (outcome, version) == ("compared", "2")
    assert difference == pytest.approx(0.375, abs=1e-6)
    ((version, ours),) = told.answers
    assert version == "2"
    assert ours == pytest.approx(theirs)
    shadow.stop()


async def test_busy_executors_come_first() -> None:
    """A copy is not run while something waits or every executor is busy."""
    told, engine = Told(), FakeEngine()
    shadow = Shadow(lambda: False, told)
    shadow.offer(copy(serve(engine), [0, 0]))
    await told.until(1)
    assert told.outcomes == [("skipped", "", 0.0)]
    assert engine.rows == []
    shadow.stop()


async def test_few_copies_wait() -> None:
    """While the shadow is with one copy a few wait, and more are skipped at once."""
    told, engine = Told(), FakeEngine()
    shadow = Shadow(lambda: True, told)
    engine.gate.clear()
    served = serve(engine)
    shadow.offer(copy(served, [0, 0]))
    await asyncio.to_thread(engine.entered.acquire)
    for _ in range(MOST_WAITING + 3):
        shadow.offer(copy(served, [0, 0]))
    assert told.outcomes == [("skipped", "", 0.0)] * 3
    engine.gate.set()
    await told.until(3 + 1 + MOST_WAITING)
    assert [outcome for outcome, *_ in told.outcomes[3:]] == ["compared"] * (1 + MOST_WAITING)
    shadow.stop()


@pytest.mark.parametrize("kind", ["engine", "sample", "nan"])
async def test_failing_shadow_is_counted_and_logged_once(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong with a shadow ends there, and the log has it once."""

    def fail() -> Sample:
        raise ValueError("no such sample")

    told, engine = Told(), FakeEngine()
    shadow = Shadow(lambda: True, told)
    engine.failure = RuntimeError("no such kernel") if kind == "engine" else None
    answered = [float("nan"), 0] if kind == "nan" else [0.0, 0.0]
    for _ in range(3):
        shadow.offer(copy(serve(engine), answered, fail if kind == "sample" else lambda: SAMPLE))
    await told.until(3)
    assert told.outcomes == [("failed", "", 0.0)] * 3
    assert caplog.text.count("failed on a request") == 1
    shadow.stop()


async def test_idle_shadow_holds_no_version() -> None:
    """Once its copies have run, nothing in the shadow keeps a version from being freed."""
    told = Told()
    shadow = Shadow(lambda: True, told)
    served = serve(FakeEngine())
    freed = asyncio.Event()
    weakref.finalize(served, asyncio.get_running_loop().call_soon_threadsafe, freed.set)
    shadow.offer(copy(served, [0, 0]))
    await told.until(1)
    del served
    gc.collect()
    await asyncio.wait_for(freed.wait(), 10)
    shadow.stop()


async def test_stopped_shadow_drops_what_waits() -> None:
    """After a stop the copy under way ends, and no other begins."""
    told, engine = Told(), FakeEngine()
    shadow = Shadow(lambda: True, told)
    engine.gate.clear()
    for _ in range(3):
        shadow.offer(copy(serve(engine), [0, 0]))
    await asyncio.to_thread(engine.entered.acquire)
    thread = shadow._thread
    assert thread is not None
    shadow.stop()
    engine.gate.set()
    await asyncio.to_thread(thread.join)
    assert len(engine.rows) == 1
