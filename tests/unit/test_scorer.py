"""The scorer over a fake engine whose answers depend on each row's history and candidate."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batch import Batch, BlockBatch, Floats, Sample
from service.errors import DeadlineExceeded, Internal, InvalidRequest, NotReady, Overloaded
from service.loading import Served
from service.release import Policy
from service.scorer import Scorer
from tests.fakes import MANIFEST, FakeEngine, probability

pytestmark = pytest.mark.anyio

SIZES = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 25))  # ids, tags, candidates


class Attentive(FakeEngine):
    """Pays each element of the history, padding too, an attention that only its place and its candidate have."""

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Give weights that are the candidate's id, and a hundredth for each place in the history."""
        ids, tags = np.arange(batch.seq_id.shape[1]) / 100, np.arange(batch.seq_tag.shape[1]) / 100
        of = batch.target_id[:, :, None]
        return self.run(batch), (of + ids).astype(np.float32), (of + tags).astype(np.float32)


class Stuck(FakeEngine):
    """Scores, and waits at its gate when it should explain."""

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Close the gate first."""
        self.gate.clear()
        return super().explain(batch)


class Answering(FakeEngine):
    """Gives one answer to everything."""

    def __init__(self, answer: Floats) -> None:
        super().__init__()
        self._answer = answer

    def run(self, batch: BlockBatch) -> Floats:
        """Give it."""
        return self._answer


class Mute(FakeEngine):
    """Has no attention to show."""

    explains = False


@pytest.fixture
def engine() -> FakeEngine:
    """The engine behind `served`."""
    return Attentive()


@pytest.fixture
def served(engine: FakeEngine) -> Served:
    """A version that passed its checks."""
    return Served(MANIFEST, engine, 0.0, 0.0)


@pytest.fixture
async def scorer(engine: FakeEngine) -> AsyncIterator[Scorer]:
    """One executor, batches of 10 rows, a queue of 40."""
    scorer = make_scorer()
    await scorer.start()
    yield scorer
    engine.gate.set()
    await scorer.stop(5)


def make_scorer(observed: list[Batch] | None = None) -> Scorer:
    """Make a scorer that notes its batches."""
    batches = [] if observed is None else observed
    return Scorer(Policy(10, 40), 1, lambda _, batch, __: batches.append(batch))


def draw(ids: int, tags: int, candidates: int, seed: int = 1) -> Sample:
    """Make a request of random numbers."""
    rng = np.random.default_rng([seed, ids, tags, candidates])
    return Sample(*(rng.integers(0, 1000, size) for size in (ids, tags, candidates, candidates)))


def soon() -> float:
    """A deadline that no test meets by accident."""
    return time.monotonic() + 60


def expected(sample: Sample) -> list[float]:
    """What the fake engine answers to a sample alone, computed from nothing but the sample."""
    ids, tags = sample.seq_id.tolist(), sample.seq_tag.tolist()
    pairs = zip(sample.target_id.tolist(), sample.target_tag.tolist(), strict=True)
    return [float(probability(ids, tags, *pair)) for pair in pairs]


async def test_score_answers_in_candidate_order(scorer: Scorer, served: Served) -> None:
    """Each candidate gets its own probability, with the version and the times behind it."""
    sample = draw(3, 2, 7)
    scored = await scorer.score(served, sample, soon())
    assert scored.probabilities.tolist() == pytest.approx(expected(sample))
    assert (scored.model, scored.version, scored.attention) == ("din", "1", None)
    assert min(scored.queue_s, scored.pack_s, scored.infer_s) >= 0


@given(st.lists(SIZES, min_size=1, max_size=6), st.booleans())
def test_together_is_as_alone(sizes: list[tuple[int, int, int]], explain: bool) -> None:
    """Requests that share batches, are split over several, or both, get the answers that they get alone."""
    samples = [draw(*size, seed=seed) for seed, size in enumerate(sizes)]
    engine = Attentive()
    served, scorer = (
        Served(MANIFEST, engine, 0.0, 0.0),
        Scorer(Policy(10, 999), 2, lambda *_: None),
    )

    async def together() -> list[list[float]]:
        await scorer.start()
        work = [scorer.score(served, sample, soon(), explain=explain) for sample in samples]
        scored = await asyncio.gather(*work)
        await scorer.stop(5)
        return [each.probabilities.tolist() for each in scored]

    assert asyncio.run(together()) == [pytest.approx(expected(sample)) for sample in samples]


async def test_large_request_is_split(served: Served) -> None:
    """A request larger than a batch runs in several, none too large, and comes back whole and in order."""
    batches: list[Batch] = []
    scorer, sample = make_scorer(batches), draw(4, 1, 25)
    await scorer.start()
    scored = await scorer.score(served, sample, soon(), explain=True)
    assert [batch.rows for batch in batches] == [(10,), (10,), (5,)]
    assert scored.probabilities.tolist() == pytest.approx(expected(sample))
    assert scored.attention is not None
    assert scored.attention[0][:, 0].tolist() == sample.target_id.tolist()
    assert await scorer.stop(5) == 0


async def test_attention_has_the_lengths_of_its_request(scorer: Scorer, served: Served, engine: FakeEngine) -> None:
    """Attention weights come without the padding that a batch with longer histories brings."""
    samples = [draw(1, 1, 1), draw(2, 0, 3), draw(5, 4, 2)]
    engine.gate.clear()
    tasks = [asyncio.create_task(scorer.score(served, sample, soon(), explain=True)) for sample in samples]
    await asyncio.to_thread(engine.entered.acquire)
    engine.gate.set()
    for sample, task in zip(samples, tasks, strict=True):
        attention = (await task).attention
        assert attention is not None
        assert [each.shape for each in attention] == [
            (sample.rows, len(sample.seq_id)),
            (sample.rows, len(sample.seq_tag)),
        ]
        assert attention[0] == pytest.approx(sample.target_id[:, None] + np.arange(len(sample.seq_id)) / 100)
    assert engine.rows == [(1,), (3, 2)]


async def test_explaining_and_plain_requests_do_not_mix(scorer: Scorer, served: Served, engine: FakeEngine) -> None:
    """Only a request that asks for attention gets it, and only such requests share its batch."""
    engine.gate.clear()
    work = [scorer.score(served, draw(1, 1, 2), soon(), explain=explain) for explain in (False, True, True, False)]
    tasks = [asyncio.create_task(each) for each in work]
    await asyncio.to_thread(engine.entered.acquire)
    engine.gate.set()
    assert [(await task).attention is not None for task in tasks] == [False, True, True, False]
    assert engine.rows == [(2,), (2, 2), (2,)]


async def test_version_without_attention_refuses_to_explain(scorer: Scorer) -> None:
    """Asking for what the version cannot do is the caller's mistake, and names the field."""
    engine = Mute()
    with pytest.raises(InvalidRequest) as caught:
        await scorer.explain(Served(MANIFEST, engine, 0.0, 0.0), draw(1, 1, 1), soon(), None, 50)
    assert caught.value.field == "explain"
    assert engine.rows == []


@pytest.mark.parametrize(("top_k", "most"), [(None, 50), (None, 13), (4, 50), (40, 12)])
@pytest.mark.parametrize("executors", [1, 2])
async def test_explanation_is_in_order(served: Served, top_k: int | None, most: int, executors: int) -> None:
    """Explained candidates, split over batches or not, get their own weights and their own answer without an entry."""
    scorer, sample = Scorer(Policy(10, 999), executors, lambda *_: None), draw(4, 4, 25)
    await scorer.start()
    scored, explanation = await scorer.explain(served, sample, soon(), top_k, most)
    await scorer.stop(5)
    alone = expected(sample)
    ranking = sorted(range(25), key=lambda index: -alone[index])[:top_k] if top_k else list(range(25))
    assert scored.probabilities.tolist() == pytest.approx(alone)
    assert explanation.candidates.tolist() == ranking[:most]
    assert explanation.ids[:, 0].tolist() == sample.target_id[ranking[:most]].tolist()
    assert explanation.removed is not None
    assert explanation.removed.tolist() == [3] * len(explanation.candidates)
    assert explanation.without is not None
    shorter = Sample(sample.seq_id[:3], sample.seq_tag[:3], sample.target_id, sample.target_tag)
    assert explanation.without.tolist() == pytest.approx([expected(shorter)[index] for index in ranking[:most]])


async def test_explanation_has_the_deadline_of_its_request(scorer: Scorer) -> None:
    """A request whose time runs out while it is explained is told so, and nothing of it waits any more."""
    engine = Stuck()
    with pytest.raises(DeadlineExceeded):
        await scorer.explain(Served(MANIFEST, engine, 0.0, 0.0), draw(2, 2, 3), time.monotonic() + 0.2, None, 50)
    assert "0 waiting (0 rows)" in scorer.state
    engine.gate.set()


async def test_request_keeps_its_version(scorer: Scorer, served: Served, engine: FakeEngine) -> None:
    """Requests that met different versions run on their own and say so, while the first is still busy."""
    other = Answering(np.full((1, 4), 0.5, np.float32))
    newer = Served(MANIFEST.model_copy(update={"version": "2"}), other, 0.0, 0.0)
    engine.gate.clear()
    work = [scorer.score(each, draw(1, 1, 2), soon()) for each in (served, served, newer, served)]
    tasks = [asyncio.create_task(each) for each in work]
    await asyncio.to_thread(engine.entered.acquire)
    engine.gate.set()
    scored = [await task for task in tasks]
    assert [each.version for each in scored] == ["1", "1", "2", "1"]
    assert scored[2].probabilities.tolist() == [0.5, 0.5]
    assert engine.rows == [(2,), (2,), (2,)]


async def test_deadline_ends_the_wait(scorer: Scorer, served: Served, engine: FakeEngine) -> None:
    """A request whose time runs out behind a busy executor is told so, and none of its parts is run."""
    engine.gate.clear()
    first = asyncio.create_task(scorer.score(served, draw(1, 1, 1), soon()))
    await asyncio.to_thread(engine.entered.acquire)
    with pytest.raises(DeadlineExceeded):
        await scorer.score(served, draw(1, 1, 25), time.monotonic() + 0.001)
    assert "0 waiting (0 rows)" in scorer.state
    engine.gate.set()
    await first
    assert engine.rows == [(1,)]


async def test_cancelled_request_is_not_run(scorer: Scorer, served: Served, engine: FakeEngine) -> None:
    """A request whose caller has gone leaves the queue with all its parts."""
    engine.gate.clear()
    first, second = (asyncio.create_task(scorer.score(served, draw(1, 1, rows), soon())) for rows in (1, 25))
    await asyncio.to_thread(engine.entered.acquire)
    assert "3 waiting (25 rows)" in scorer.state
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert "0 waiting (0 rows)" in scorer.state
    engine.gate.set()
    await first
    assert engine.rows == [(1,)]


async def test_queue_takes_a_request_whole_or_not(scorer: Scorer, served: Served, engine: FakeEngine) -> None:
    """A request of which only a part would fit the queue is refused, and leaves nothing there."""
    engine.gate.clear()
    tasks = [asyncio.create_task(scorer.score(served, draw(1, 1, rows), soon())) for rows in (1, 25)]
    await asyncio.to_thread(engine.entered.acquire)
    with pytest.raises(Overloaded):
        await scorer.score(served, draw(1, 1, 16), soon())
    assert "3 waiting (25 rows)" in scorer.state
    engine.gate.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(np.full((1, 4), np.nan, np.float32), id="nan"),
        pytest.param(np.full((1, 4), np.inf, np.float32), id="infinity"),
        pytest.param(np.zeros((2, 4), np.float32), id="a-block-too-many"),
        pytest.param(np.zeros((0, 4), np.float32), id="nothing"),
    ],
)
async def test_bad_answer_is_a_defect(scorer: Scorer, served: Served, answer: Floats) -> None:
    """An answer that is no number or of another size fails the request, and the next one works."""
    with pytest.raises(Internal):
        await scorer.score(Served(MANIFEST, Answering(answer), 0.0, 0.0), draw(1, 1, 3), soon())
    assert (await scorer.score(served, draw(1, 1, 3), soon())).probabilities.size == 3


async def test_nan_at_padding_is_nothing(scorer: Scorer) -> None:
    """What an engine leaves at padding is nobody's answer, whatever it is."""
    answer = np.array([[0.25, np.nan, np.nan, np.nan]], np.float32)
    scored = await scorer.score(Served(MANIFEST, Answering(answer), 0.0, 0.0), draw(1, 1, 1), soon())
    assert scored.probabilities.tolist() == [0.25]


async def test_alive_until_an_executor_is_lost(scorer: Scorer) -> None:
    """A scorer is alive as long as its executors are, and refuses requests when stopped."""
    assert scorer.alive
    scorer._batcher._executors.stop()
    await asyncio.to_thread(scorer._batcher._executors._threads[0].join)
    assert not scorer.alive


async def test_stopped_scorer_refuses(scorer: Scorer, served: Served) -> None:
    """After stop a request is refused at once."""
    assert await scorer.stop(5) == 0
    with pytest.raises(NotReady):
        await scorer.score(served, draw(1, 1, 1), soon())
