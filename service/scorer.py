"""The use case: a sample in, probabilities and the version and times behind them out."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from service.batch import Batch, Floats, Sample
from service.batcher import Batcher
from service.engine import Engine
from service.errors import InvalidRequest, Overloaded
from service.explain import Explanation, choose, reduce, take
from service.loading import Served
from service.release import Policy

Key: TypeAlias = tuple[Served, bool]  # only requests for one version, explained or not, share a batch


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Run:
    """A batch that was run; all its members have this one record."""

    engine: str
    rows: int
    requests: int  # or parts of large ones
    started: float  # laying it out
    pack_s: float  # laying it out
    infer_s: float  # the engine


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The answer to one request."""

    probabilities: Floats  # (C,) in candidate order
    attention: tuple[Floats, Floats] | None  # with explain: weights (C, T) of ids and (C, U) of tags
    model: str
    version: str
    entered: float  # the queue, when it was admitted; as all times here, of `time.monotonic()`
    released: float  # the last of its batches
    runs: list[Run]  # of its batches: one, unless it was larger than a batch may be
    then: tuple["Scored", ...] = ()  # what was scored after that to explain it; their times add up

    @property
    def queue_s(self) -> float:
        """Admitted until its batch was released; of several the last."""
        return self.released - self.entered + sum([each.queue_s for each in self.then])

    @property
    def pack_s(self) -> float:
        """Laying out its batch; of several the longest."""
        return max([run.pack_s for run in self.runs]) + sum([each.pack_s for each in self.then])

    @property
    def infer_s(self) -> float:
        """The engine's run of its batch; of several the longest."""
        return max([run.infer_s for run in self.runs]) + sum([each.infer_s for each in self.then])


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What one sample of a batch gets back from its executor."""

    probabilities: Floats  # (C,)
    attention: tuple[Floats, Floats] | None
    run: Run


Observe: TypeAlias = Callable[[Engine, Batch, Run], None]


class Scorer:
    """Scores samples on the versions they are given with, through a batcher.

    Args:
        policy: bounds of queue and batch.
        executors: batches run at once.
        observe: called with the engine, the batch and the record of each run, in its executor thread.
        stall_s: no batch takes this long; a process whose executor hangs should be replaced.
    """

    def __init__(self, policy: Policy, executors: int, observe: Observe, stall_s: float = 30.0) -> None:
        self._policy = policy
        self._stall_s = stall_s
        self._observe = observe
        self._room = policy.max_queue_rows // 16  # with less left nobody is let in, or else only the small would be
        self._batcher: Batcher[Key, Sample, Part] = Batcher(self._run, policy, executors)

    async def start(self) -> None:
        """Start the executors."""
        await self._batcher.start()

    async def stop(self, grace_s: float) -> int:
        """Refuse new samples, finish those here within `grace_s` seconds; returns how many were cut."""
        return await self._batcher.stop(grace_s)

    @property
    def alive(self) -> bool:
        """Whether every executor is there and none has been with one batch for longer than `stall_s`."""
        return not self._batcher.stalled(self._stall_s)

    @property
    def spare(self) -> bool:
        """Whether an executor is free and nothing waits."""
        return self._batcher.spare

    @property
    def state(self) -> str:
        """Queue and executors in one line."""
        return repr(self._batcher)

    @property
    def queue_rows(self) -> int:
        """Candidates that wait."""
        return self._batcher.rows

    @property
    def wait_s(self) -> float:
        """How long what is here should take; 0 before the first batch has ended."""
        return self._batcher.wait_s

    @property
    def queue_age_s(self) -> float:
        """How long the oldest sample that waits has waited; 0 with none."""
        return self._batcher.age_s

    @property
    def busy_s(self) -> float:
        """How long executors have had a batch, all of them together."""
        return self._batcher.busy_s

    @property
    def busy(self) -> bool:
        """Whether a sample that arrives now finds others here."""
        return self._batcher.busy

    def pressed(self, left_s: float) -> bool:
        """Whether samples with `left_s` seconds left are refused, or will be if many more arrive."""
        return self._batcher.pressed(left_s)

    def refusal(self, rows: int, deadline: float) -> Overloaded | None:
        """Why a sample of about `rows` candidates should not be read; None if it may."""
        return self._batcher.refusal(rows, deadline, self._room)

    def free(self, deadline: float) -> float:
        """Candidates that may come before `refusal` has to be asked."""
        return self._batcher.free(deadline, self._room)

    def expect(self, rows: int) -> None:
        """Count a sample that was let in, until the event loop turns and it is here."""
        self._batcher.expect(rows)

    async def score(self, served: Served, sample: Sample, deadline: float, *, explain: bool = False) -> Scored:
        """Score one sample with `served` before `deadline` (`time.monotonic()` clock, seconds).

        With `explain` its attention comes too, from an engine that explains.

        Raises:
            NotReady: shutting down.
            Overloaded: the queue is full, or too long for the deadline.
            DeadlineExceeded: the deadline passed; what had not started is not run.
            Internal: the engine failed.
        """
        entered = time.monotonic()
        answers = await self._answers((served, explain), sample.parts(self._policy.max_batch_rows), deadline)
        return _join(served, answers, entered)

    async def explain(
        self, served: Served, sample: Sample, deadline: float, top_k: int | None, most: int
    ) -> tuple[Scored, Explanation]:
        """Score one sample, and explain the best `top_k` candidates, or without that all, but at most `most` of them.

        All candidates are scored as ever; those explained are then run once more for the attention, and once more
        without the entry that each attended most.

        Raises:
            RequestError: as of `score`.
            InvalidRequest: the version cannot explain.
        """
        if not served.engine.explains:
            raise InvalidRequest("this model has no explain signature", "explain")
        scored = await self.score(served, sample, deadline)
        candidates = choose(scored.probabilities, top_k, most)
        chosen = take(sample, candidates)
        explained = await self.score(served, chosen, deadline, explain=True)
        assert explained.attention is not None  # noqa: S101  what an engine that explains gives
        ids, tags = explained.attention
        if not len(sample.seq_id):
            return replace(scored, then=(explained,)), Explanation(candidates, ids, tags, None, None)
        removed = ids.argmax(axis=1)
        order, samples = reduce(chosen, removed)
        entered = time.monotonic()
        parts = [part for each in samples for part in each.parts(self._policy.max_batch_rows)]
        again = _join(served, await self._answers((served, False), parts, deadline), entered)
        without = np.empty_like(again.probabilities)
        without[order] = again.probabilities
        return replace(scored, then=(explained, again)), Explanation(candidates, ids, tags, removed, without)

    async def _answers(self, key: Key, parts: list[Sample], deadline: float) -> list[tuple[Part, float]]:
        """Run samples, none larger than a batch, all or none; with each answer comes when its batch was released."""
        self._batcher.admit(sum([part.rows for part in parts]), deadline)
        jobs = [self._batcher.submit(key, part, part.rows, deadline) for part in parts]
        try:
            return [await job.future for job in jobs]
        finally:
            for job in jobs:
                self._batcher.withdraw(job)

    def _run(self, key: Key, samples: list[Sample]) -> Sequence[Part]:
        """In an executor thread or, if it is short, on the event loop: pack, infer, split."""
        (served, explain), engine = key, key[0].engine
        started = time.monotonic()
        batch = engine.pack(samples)
        packed = time.monotonic()
        blocked = engine.explain(batch) if explain else (engine.run(batch),)
        done = time.monotonic()
        parts = [batch.split(each) for each in blocked]
        if not all(math.isfinite(np.dot(each, each)) for each in parts[0]):  # 1 us; np.isfinite(each).all() takes 3
            raise ValueError(f"version {served.version} answered with NaN or infinity")
        run = Run(engine.name, sum(batch.rows), len(samples), started, packed - started, done - packed)
        self._observe(engine, batch, run)
        return [
            Part(parts[0][i], _attention(sample, parts, i) if explain else None, run)
            for i, sample in enumerate(samples)
        ]


def _attention(sample: Sample, parts: list[list[Floats]], i: int) -> tuple[Floats, Floats]:
    """One sample's attention weights without the padding of its batch."""
    return parts[1][i][:, : len(sample.seq_id)], parts[2][i][:, : len(sample.seq_tag)]


def _join(served: Served, answers: list[tuple[Part, float]], entered: float) -> Scored:
    """Put the parts of a request together again, in order."""
    parts = [part for part, _ in answers]
    probabilities, attention = parts[0].probabilities, parts[0].attention
    if len(parts) > 1:
        probabilities = np.concatenate([part.probabilities for part in parts])
        if attention is not None:
            pairs = [part.attention for part in parts if part.attention is not None]
            attention = np.concatenate([ids for ids, _ in pairs]), np.concatenate([tags for _, tags in pairs])
    return Scored(
        probabilities,
        attention,
        served.manifest.name,
        served.version,
        entered,
        max([released for _, released in answers]),
        [part.run for part in parts],
    )
