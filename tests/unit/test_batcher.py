"""The batcher on a real event loop, with a run function that waits at a gate and gives answers of its own payloads."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator
from typing import TypeAlias

import pytest

from service.batcher import Batcher
from service.errors import DeadlineExceeded, Internal, NotReady, Overloaded, RequestError
from service.release import Job, Policy
from tests.fakes import Gate

pytestmark = pytest.mark.anyio

Jobs: TypeAlias = Job[str, int, str]
Running: TypeAlias = Batcher[str, int, str]

FAR = float("inf")  # a deadline that never comes


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """Open at the end, so that a failing test leaves no thread behind."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
async def batcher(gate: Gate) -> AsyncIterator[Running]:
    """One executor, batches of 10 rows, a queue of 20."""
    batcher = Batcher(gate, Policy(max_batch_rows=10, max_queue_rows=20), 1)
    await batcher.start()
    yield batcher
    gate.opened.set()
    await batcher.stop(5)


@pytest.fixture
async def blocked(batcher: Running, gate: Gate) -> Jobs:
    """A job that occupies the executor until the gate opens."""
    job = enter(batcher, 0)
    await gate.reached()
    return job


def enter(batcher: Running, payload: int, rows: int = 1, *, key: str = "a", deadline: float = FAR) -> Jobs:
    """Admit and submit one job."""
    batcher.admit(rows, FAR)
    return batcher.submit(key, payload, rows, deadline)


async def outcome(job: Jobs) -> str | type[BaseException]:
    """What became of a job: its answer, or the type of its error."""
    try:
        return (await job.future)[0]
    except RequestError as error:
        return type(error)


async def test_runs_at_once_when_idle(batcher: Running, gate: Gate) -> None:
    """A job that meets an idle executor is run without waiting for company, and answered with its time of release."""
    entered = time.monotonic()
    job = enter(batcher, 1)
    await gate.reached()
    assert gate.calls == [("a", [1])]
    assert repr(batcher) == "<Batcher open: 0 waiting (0 rows), 1 of 1 executors running>"
    gate.opened.set()
    answer, released = await job.future
    assert answer == "a1"
    assert entered <= released <= time.monotonic()


async def test_what_waits_runs_together(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """Jobs that wait for the executor share the next batch up to its rows, and each gets its own answer."""
    jobs = [enter(batcher, payload, 4) for payload in (1, 2, 3)]
    assert repr(batcher) == "<Batcher open: 3 waiting (12 rows), 1 of 1 executors running>"
    gate.opened.set()
    assert [await outcome(job) for job in (blocked, *jobs)] == ["a0", "a1", "a2", "a3"]
    assert gate.calls == [("a", [0]), ("a", [1, 2]), ("a", [3])]


async def test_keys_do_not_share_a_batch(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """Jobs of different keys run in turn, in order of arrival."""
    jobs = [enter(batcher, payload, key=key) for payload, key in ((1, "a"), (2, "b"), (3, "a"))]
    gate.opened.set()
    assert [await outcome(job) for job in jobs] == ["a1", "b2", "a3"]
    assert gate.calls[1:] == [("a", [1]), ("b", [2]), ("a", [3])]


async def test_oldest_that_waits_has_an_age(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """The age is that of the job at the front of the queue, and 0 when none waits."""
    assert batcher.age_s == 0
    first, second = enter(batcher, 1), enter(batcher, 2)
    for oldest in (first, second):
        before = time.monotonic()
        age_s, after = batcher.age_s, time.monotonic()
        assert before - oldest.entered <= age_s <= after - oldest.entered
        batcher.withdraw(oldest)
    assert batcher.age_s == 0
    gate.opened.set()


async def test_idle_executor_holds_nothing() -> None:
    """What a batch was made of is free when it has ended, however long its executor then waits for the next."""

    class Version:
        """A key whose end can be seen."""

    batcher: Batcher[Version, int, int] = Batcher(lambda _, payloads: payloads, Policy(10, 20), 2)
    await batcher.start()
    version = Version()
    gone = asyncio.Event()
    weakref.finalize(version, asyncio.get_running_loop().call_soon_threadsafe, gone.set)
    await batcher.submit(version, 1, 1, FAR).future
    del version
    await asyncio.wait_for(gone.wait(), 10)
    await batcher.stop(5)


async def test_busy_time_goes_on_while_a_batch_runs(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """An executor is busy from a batch's release to its answers, and its time counts before it has ended."""
    first = batcher.busy_s
    assert 0 < first < (during := batcher.busy_s) <= time.monotonic() - blocked.entered
    gate.opened.set()
    await blocked.future
    after = batcher.busy_s
    assert during <= after <= time.monotonic() - blocked.entered
    assert batcher.busy_s == after  # idle


async def test_failed_batch_was_busy_too(batcher: Running, gate: Gate) -> None:
    """A batch that fails has had its executor all the same."""
    gate.failure = ValueError("boom")
    gate.opened.set()
    assert await outcome(enter(batcher, 1)) is Internal
    assert batcher.busy_s > 0


async def test_full_queue_refuses_at_once(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """What does not fit the queue is refused immediately; what fits and what is queued is answered."""
    first = enter(batcher, 1, 15)
    with pytest.raises(Overloaded):
        batcher.admit(6, FAR)
    last = enter(batcher, 2, 5)
    with pytest.raises(Overloaded):
        batcher.admit(1, FAR)
    gate.opened.set()
    assert [await outcome(job) for job in (blocked, first, last)] == ["a0", "a1", "a2"]


async def test_expired_job_is_not_admitted(batcher: Running) -> None:
    """What comes after its deadline is told so, not that the server is overloaded."""
    with pytest.raises(DeadlineExceeded):
        batcher.admit(1, time.monotonic())


async def test_wait_beyond_the_deadline_is_refused(batcher: Running, gate: Gate) -> None:
    """Once the pace is known, what would wait too long is refused at once, and what has the time is let in."""
    job = enter(batcher, 1)
    await gate.reached()
    await asyncio.to_thread(time.sleep, 0.02)  # the pace: at least 20 ms a row
    gate.opened.set()
    await job.future
    gate.opened.clear()
    running, waiting = enter(batcher, 2), enter(batcher, 3, 9)
    await gate.reached()
    assert batcher.wait_s > 0.02 * 10
    with pytest.raises(Overloaded) as caught:
        batcher.admit(1, time.monotonic() + 0.02)
    assert caught.value.reason == "deadline"
    assert caught.value.wait_s > 0.02 * 11
    batcher.admit(1, FAR)
    gate.opened.set()
    assert [await outcome(each) for each in (running, waiting)] == ["a2", "a3"]


async def test_hanging_executor_lengthens_the_wait(batcher: Running, gate: Gate) -> None:
    """While a batch runs on beyond its time, the wait that is predicted grows with it."""
    gate.opened.set()
    await enter(batcher, 1).future
    gate.opened.clear()
    hanging = enter(batcher, 2)
    await gate.reached()
    before = batcher.wait_s
    await asyncio.to_thread(time.sleep, 0.05)
    assert batcher.wait_s - before > 0.04
    gate.opened.set()
    await hanging.future


async def test_idle_batcher_admits_whatever_the_pace(batcher: Running, gate: Gate) -> None:
    """With nothing running or waiting even a request that looks hopeless enters: it may run faster than the last."""
    slow = enter(batcher, 1)
    await gate.reached()
    await asyncio.to_thread(time.sleep, 0.02)
    gate.opened.set()
    await slow.future
    batcher.admit(20, time.monotonic() + 0.1)


async def test_expected_rows_count_until_the_loop_turns(batcher: Running) -> None:
    """What is let in and not yet submitted takes its room in the queue, until the event loop has turned."""
    batcher.expect(15)
    assert batcher.busy
    refusal = batcher.refusal(6, FAR)
    assert refusal is not None
    assert refusal.reason == "queue"
    await asyncio.sleep(0)
    assert not batcher.busy
    assert batcher.refusal(20, FAR) is None


async def test_withdrawn_job_leaves_at_once(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """A withdrawn job gives its rows back immediately, is not run, and takes nobody with it."""
    withdrawn, kept = enter(batcher, 1, 15), enter(batcher, 2)
    batcher.withdraw(withdrawn)
    assert repr(batcher) == "<Batcher open: 1 waiting (1 rows), 1 of 1 executors running>"
    batcher.admit(19, FAR)
    gate.opened.set()
    assert await outcome(kept) == "a2"
    assert withdrawn.future.cancelled()
    assert gate.calls[1:] == [("a", [2])]


async def test_withdrawing_a_running_job_spares_its_batch(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """A job withdrawn while its batch runs is forgotten, and its neighbours are answered."""
    jobs = [enter(batcher, 1), enter(batcher, 2)]
    gate.opened.set()
    await blocked.future
    batcher.withdraw(jobs[0])
    assert await outcome(jobs[1]) == "a2"


async def test_withdrawing_twice_does_nothing(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """A second withdrawal, or one of a finished job, changes no count."""
    job = enter(batcher, 1, 3)
    batcher.withdraw(job)
    batcher.withdraw(job)
    gate.opened.set()
    await blocked.future
    batcher.withdraw(blocked)
    assert repr(batcher) == "<Batcher open: 0 waiting (0 rows), 0 of 1 executors running>"


async def test_cancelled_job_is_not_run(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """A job whose waiter was cancelled is dropped without being withdrawn."""
    cancelled, kept = enter(batcher, 1), enter(batcher, 2)
    cancelled.future.cancel()
    gate.opened.set()
    assert await outcome(kept) == "a2"
    assert gate.calls[1:] == [("a", [2])]


async def test_expired_job_is_not_run(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """A job whose deadline passes in the queue is told so, and not run."""
    expired, kept = enter(batcher, 1, deadline=time.monotonic()), enter(batcher, 2)
    gate.opened.set()
    assert [await outcome(expired), await outcome(kept)] == [DeadlineExceeded, "a2"]
    assert gate.calls[1:] == [("a", [2])]


async def test_job_that_comes_too_late_fails_at_once(batcher: Running, gate: Gate) -> None:
    """A job that arrives after its deadline has its error when `submit` returns."""
    late = enter(batcher, 1, deadline=time.monotonic())
    assert isinstance(late.future.exception(), DeadlineExceeded)
    assert repr(batcher) == "<Batcher open: 0 waiting (0 rows), 0 of 1 executors running>"
    assert gate.calls == []


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(ValueError("bad weights"), id="error"),
        pytest.param(SystemExit(3), id="exit"),
        pytest.param(KeyboardInterrupt(), id="interrupt"),
    ],
)
async def test_failing_batch_fails_alone(
    batcher: Running, gate: Gate, blocked: Jobs, failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a run raises is logged once and fails the members of its batch; the executor goes on to the next."""
    gate.failure = failure
    gate.opened.set()
    assert await outcome(blocked) is Internal
    gate.failure = None
    assert await outcome(enter(batcher, 1)) == "a1"
    assert [record.message for record in caplog.records] == ["a batch of 1 failed"]
    assert not batcher.stalled(60)


@pytest.mark.parametrize("missing", [pytest.param(1, id="too-few"), pytest.param(2, id="none")])
async def test_wrong_number_of_answers_fails_the_batch(
    batcher: Running, gate: Gate, blocked: Jobs, missing: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that answers not each of its payloads fails all of them, and says how many it answered."""
    jobs = [enter(batcher, 1), enter(batcher, 2)]
    gate.missing = missing
    gate.opened.set()
    assert [await outcome(job) for job in jobs] == [Internal, Internal]
    assert f"{2 - missing} answers for 2 payloads" in caplog.text


@pytest.fixture
async def inline(gate: Gate) -> AsyncIterator[Running]:
    """A batcher with time for batches on the event loop, which has learnt that they are short; the gate is open."""
    gate.opened.set()
    batcher = Batcher(gate, Policy(max_batch_rows=10, max_queue_rows=20, inline_s=60), 1)
    await batcher.start()
    await enter(batcher, 0).future
    yield batcher
    gate.opened.set()
    await batcher.stop(5)


async def test_short_batch_is_over_in_a_turn(inline: Running, gate: Gate) -> None:
    """Once batches are known to be short, jobs that come in one turn of the event loop run together in the next."""
    jobs = [enter(inline, 1), enter(inline, 2)]
    assert repr(inline) == "<Batcher open: 2 waiting (2 rows), 0 of 1 executors running>"
    await asyncio.sleep(0)
    assert [job.future.result()[0] for job in jobs] == ["a1", "a2"]
    assert gate.calls[1:] == [("a", [1, 2])]
    assert repr(inline) == "<Batcher open: 0 waiting (0 rows), 0 of 1 executors running>"


async def test_failure_on_the_event_loop_fails_its_batch(
    inline: Running, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that fails on the event loop fails its own jobs and is logged, and the next one runs."""
    gate.failure = SystemExit(3)
    assert await outcome(enter(inline, 1)) is Internal
    gate.failure = None
    assert await outcome(enter(inline, 2)) == "a2"
    assert [record.message for record in caplog.records] == ["a batch of 1 failed"]


async def test_event_loop_turns_between_batches(inline: Running, gate: Gate) -> None:
    """With more here than one batch takes, each has a turn of the event loop, and what comes meanwhile has its own."""
    jobs = [enter(inline, payload, 6) for payload in (1, 2)]
    seen = []
    for _ in range(3):
        await asyncio.sleep(0)
        seen.append([job.future.done() for job in jobs])
        if len(jobs) < 3:
            jobs.append(enter(inline, 3, 6))
    assert seen == [[True, False], [True, True, False], [True, True, True]]
    assert [await outcome(job) for job in jobs] == ["a1", "a2", "a3"]
    assert gate.calls[1:] == [("a", [1]), ("a", [2]), ("a", [3])]


async def test_what_happens_between_batches_is_a_part_of_their_pace(inline: Running) -> None:
    """With batches in a row, a wait is predicted by when they end, not by what they take: the loop does more."""

    async def wait_after(pause_s: float) -> float:
        jobs = [enter(inline, payload, 6) for payload in (1, 2, 3)]
        for _ in jobs:
            asyncio.get_running_loop().call_soon(time.sleep, pause_s)
            await asyncio.sleep(0)
        assert all(job.future.done() for job in jobs)
        last = enter(inline, 4, 6)
        predicted = inline.wait_s
        await last.future
        return predicted

    for _ in range(20):
        busy_s = await wait_after(0.002)
    assert 0.001 < busy_s < 0.2
    for _ in range(40):
        idle_s = await wait_after(0)
    assert idle_s < busy_s / 4


async def test_stop_finishes_batches_of_later_turns(inline: Running) -> None:
    """Batches that wait for the event loop to turn again are finished while stopping, and it ends with the last."""
    jobs = [enter(inline, payload, 6) for payload in (1, 2, 3)]
    assert await inline.stop(5) == 0
    assert [await outcome(job) for job in jobs] == ["a1", "a2", "a3"]


async def test_long_batch_leaves_the_event_loop(gate: Gate) -> None:
    """What should take longer than the event loop may run has an executor, and jobs that come wait for that."""
    gate.opened.set()
    batcher = Batcher(gate, Policy(max_batch_rows=10, max_queue_rows=20, inline_s=1e-9), 1)
    await batcher.start()
    await enter(batcher, 0).future
    gate.opened.clear()
    jobs = [enter(batcher, 1)]
    await gate.reached()
    jobs.append(enter(batcher, 2))
    await asyncio.sleep(0)
    assert repr(batcher) == "<Batcher open: 1 waiting (1 rows), 1 of 1 executors running>"
    gate.opened.set()
    assert [await outcome(job) for job in jobs] == ["a1", "a2"]
    assert await batcher.stop(5) == 0


async def test_stop_before_the_turn_finishes_what_is_here(inline: Running) -> None:
    """A job that waits for the event loop to turn is finished while stopping."""
    job = enter(inline, 1)
    assert await inline.stop(5) == 0
    assert await outcome(job) == "a1"


async def test_executors_run_at_once(gate: Gate) -> None:
    """As many batches run at once as there are executors, and one more waits."""
    batcher = Batcher(gate, Policy(10, 20), 2)
    await batcher.start()
    jobs = [enter(batcher, payload) for payload in (1, 2, 3)]
    await gate.reached()
    await gate.reached()
    assert repr(batcher) == "<Batcher open: 1 waiting (1 rows), 2 of 2 executors running>"
    gate.opened.set()
    assert [await outcome(job) for job in jobs] == ["a1", "a2", "a3"]
    assert await batcher.stop(5) == 0


@pytest.mark.parametrize("inline_s", [pytest.param(0, id="at-once"), pytest.param(60, id="with-the-next-turn")])
async def test_delay_holds_until_the_batch_is_full(gate: Gate, inline_s: float) -> None:
    """With a delay a job waits for company beside an idle executor, and leaves as soon as no more fits."""
    gate.opened.set()
    batcher = Batcher(gate, Policy(10, 20, max_delay_s=3600, inline_s=inline_s), 1)
    await batcher.start()
    jobs = [enter(batcher, 1, 4)]
    await asyncio.sleep(0)
    assert repr(batcher) == "<Batcher open: 1 waiting (4 rows), 0 of 1 executors running>"
    jobs.append(enter(batcher, 2, 6))
    assert [await outcome(job) for job in jobs] == ["a1", "a2"]
    assert gate.calls == [("a", [1, 2])]
    assert await batcher.stop(5) == 0


async def test_delay_ends_by_itself(gate: Gate) -> None:
    """A job that finds no company leaves when its delay is over, even while stopping."""
    gate.opened.set()
    batcher = Batcher(gate, Policy(10, 20, max_delay_s=0.001), 1)
    await batcher.start()
    assert await outcome(enter(batcher, 1)) == "a1"
    last = enter(batcher, 2)
    assert await batcher.stop(5) == 0
    assert await outcome(last) == "a2"


async def test_stop_finishes_what_is_here(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """While stopping, new jobs are refused and those here are answered; nothing is cut."""
    waiting = enter(batcher, 1)
    stopping = asyncio.create_task(batcher.stop(60))
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        batcher.admit(1, FAR)
    gate.opened.set()
    assert await stopping == 0
    assert [await outcome(blocked), await outcome(waiting)] == ["a0", "a1"]
    assert repr(batcher) == "<Batcher closed: 0 waiting (0 rows), 0 of 1 executors running>"


async def test_stop_cuts_what_takes_too_long(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """After the grace period whatever is unfinished gets an error and is counted; its late answer is ignored."""
    waiting, withdrawn = enter(batcher, 1), enter(batcher, 2)
    withdrawn.future.cancel()
    assert await batcher.stop(0) == 2
    assert [await outcome(blocked), await outcome(waiting)] == [NotReady, NotReady]
    assert repr(batcher) == "<Batcher closed: 0 waiting (0 rows), 1 of 1 executors running>"
    batcher.withdraw(withdrawn)
    gate.opened.set()
    assert await batcher.stop(5) == 0
    assert gate.calls == [("a", [0])]


async def test_not_started_refuses(gate: Gate) -> None:
    """Before it is started nothing enters, and there is nothing to stop."""
    batcher: Running = Batcher(gate, Policy(10, 20), 1)
    with pytest.raises(NotReady):
        batcher.admit(1, FAR)
    assert await batcher.stop(0) == 0


async def test_stalled_by_a_long_batch(batcher: Running, gate: Gate, blocked: Jobs) -> None:
    """An executor that is with one batch for too long is noticed, and forgiven when it ends."""
    assert not batcher.stalled(60)
    assert batcher.stalled(0)
    gate.opened.set()
    await blocked.future
    assert not batcher.stalled(0)


async def test_stalled_by_a_lost_executor(batcher: Running) -> None:
    """An executor that has ended while the batcher is open is noticed."""
    batcher._executors.stop()
    await asyncio.to_thread(batcher._executors._threads[0].join)
    assert batcher.stalled(60)


def test_batch_outlives_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that ends after the event loop has closed is reported to the log and nobody else."""
    gate = Gate()
    batcher: Running = Batcher(gate, Policy(10, 20), 1)

    async def leave() -> None:
        await batcher.start()
        enter(batcher, 1)
        await gate.reached()

    asyncio.run(leave())
    gate.opened.set()
    batcher._executors.stop()
    batcher._executors._threads[0].join()
    assert "a batch of 1 ended after the event loop" in caplog.text
