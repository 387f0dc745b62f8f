"""Which candidates are explained, and what is left of a history without its most attended entry."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.artifact import read_manifest
from service.batch import Sample
from service.config import EngineChoice
from service.engine import choice
from service.explain import choose, reduce, take
from service.loading import Served
from service.release import Policy
from service.scorer import Scorer
from tests.readme import ROOT

COMMITTED = ROOT / "model_artifacts" / "din" / "1"


@pytest.mark.parametrize(
    ("top_k", "most", "chosen"),
    [
        pytest.param(None, 9, [0, 1, 2, 3], id="all"),
        pytest.param(None, 3, [0, 1, 2], id="the-first-so-many"),
        pytest.param(2, 9, [2, 1], id="the-ranking"),
        pytest.param(9, 3, [2, 1, 3], id="the-best-so-many"),
        pytest.param(2**70, 9, [2, 1, 3, 0], id="more-than-there-are"),
    ],
)
def test_ranking_is_explained_or_all(top_k: int | None, most: int, chosen: list[int]) -> None:
    """With top_k the best are explained, best first, without it all in their order; never more than the limit."""
    assert choose(np.array([0.1, 0.3, 0.9, 0.3], np.float32), top_k, most).tolist() == chosen


@given(st.data())
def test_each_candidate_loses_its_own_entry(data: st.DataObject) -> None:
    """Candidates that lose one entry share a sample, and each is found again with its own shorter history."""
    ids = data.draw(st.lists(st.integers(0, 99), min_size=1, max_size=6))
    tags = data.draw(st.lists(st.integers(0, 99), max_size=6))
    removed = np.array(data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=8)))
    targets = np.arange(len(removed))
    order, samples = reduce(Sample(np.array(ids), np.array(tags, int), targets, targets + 100), removed)
    assert len(samples) == len(set(removed.tolist()))
    rows = [(each.seq_id.tolist(), each.seq_tag.tolist(), row) for each in samples for row in range(each.rows)]
    assert [row for each in samples for row in each.target_id.tolist()] == order.tolist()
    assert [row for each in samples for row in each.target_tag.tolist()] == (order + 100).tolist()
    assert sorted(order.tolist()) == targets.tolist()
    for candidate, (left_ids, left_tags, _) in zip(order, rows, strict=True):
        place = removed[candidate]
        assert left_ids == ids[:place] + ids[place + 1 :]
        assert left_tags == (tags[:place] + tags[place + 1 :] if len(tags) == len(ids) else tags)


@pytest.mark.anyio
@pytest.mark.parametrize("engine", ["native", "tensorflow"])
async def test_committed_model_is_explained(engine: EngineChoice) -> None:
    """Both engines: weights sum to 1, nothing else changes the answer, and the score without an entry is that asked."""
    if engine == "native":
        pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")
    manifest, rng = read_manifest(COMMITTED), np.random.default_rng(1)
    served = Served(manifest, choice.load(Path(COMMITTED), manifest, engine), 0.0, 0.0)
    scorer = Scorer(Policy(100, 10_000), 1, lambda *_: None)
    await scorer.start()
    for ids, tags, candidates in ((1, 1, 3), (5, 2, 7), (50, 50, 120), (0, 3, 4)):
        sample = Sample(*(rng.integers(1, 2000, size) for size in (ids, tags, candidates, candidates)))
        plain = await scorer.score(served, sample, math.inf)
        scored, explanation = await scorer.explain(served, sample, math.inf, 20, 50)
        assert np.array_equal(scored.probabilities, plain.probabilities)
        assert explanation.candidates.tolist() == np.argsort(-plain.probabilities, kind="stable")[:20].tolist()
        for weights, length in ((explanation.ids, ids), (explanation.tags, tags)):
            assert weights.shape == (min(candidates, 20), length)
            assert weights.sum(axis=1) == pytest.approx(1 if length else 0, abs=1e-5)
        if not ids:
            assert explanation.removed is None
            assert explanation.without is None
            continue
        assert explanation.removed is not None
        assert explanation.without is not None
        for n, candidate in enumerate(explanation.candidates):
            place = int(np.argmax(explanation.ids[n]))
            assert explanation.removed[n] == place
            left = np.delete(sample.seq_tag, place) if ids == tags else sample.seq_tag
            shorter = Sample(np.delete(sample.seq_id, place), left, sample.target_id, sample.target_tag)
            alone = await scorer.score(served, take(shorter, np.array([candidate])), math.inf)
            assert explanation.without[n] == pytest.approx(alone.probabilities[0], abs=1e-6)
    await scorer.stop(5)
    served.engine.close()
