from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from service.artifact import Feature, Features
from service.training import Samples
from service.training.din import Pair, Rows
from service.training.vocabulary import (
    Vocabulary,
    count_buckets,
    make_vocabularies,
    make_vocabulary,
    replace_rows,
    to_rows,
)

FEATURES = Features(
    id=Feature(dtype="int64", buckets=10, dimension=2, max_history=5),
    tag=Feature(dtype="int64", buckets=4, dimension=2, max_history=5),
)


def make_samples() -> Samples:
    """Three hashed samples over the events 7 5 7 2, the last of which is in no history."""
    return Samples(
        event_id=np.array([7, 5, 7, 2], np.int32),
        event_tag=np.array([1, 1, 3], np.int32),
        id_start=np.array([0, 0, 1]),
        id_stop=np.array([2, 3, 3]),
        tag_start=np.array([0, 1, 0]),
        tag_stop=np.array([0, 2, 3]),
        target_id=np.array([7, 9, 9], np.int32),
        target_tag=np.array([3, 3, 0], np.int32),
        label=np.array([1, 0, 1], np.float32),
        user=np.array([0, 0, 1]),
    )


def test_counts_by_hand() -> None:
    """Targets count once each, entries once for each history they stand in, events once if they stand in any."""
    counts = count_buckets(make_samples(), FEATURES)
    assert counts["id"].targets.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 2]
    assert counts["id"].entries.tolist() == [0, 0, 0, 0, 0, 3, 0, 4, 0, 0]
    assert counts["id"].events.tolist() == [0, 0, 0, 0, 0, 1, 0, 2, 0, 0]
    assert counts["tag"].targets.tolist() == [1, 0, 0, 2]
    assert counts["tag"].entries.tolist() == [0, 3, 0, 1]
    assert counts["tag"].events.tolist() == [0, 2, 0, 1]


@pytest.mark.parametrize(
    ("min_count", "met", "count"),
    [
        pytest.param(0, [5, 7, 9], [0, 3, 5, 2], id="none-is-one"),
        pytest.param(1, [5, 7, 9], [0, 3, 5, 2], id="one"),
        pytest.param(2, [7, 9], [3, 5, 2], id="two"),
        pytest.param(3, [7], [5, 5], id="three"),
        pytest.param(4, [], [10], id="four"),
    ],
)
def test_rare_buckets_share_the_default_row(min_count: int, met: list[int], count: list[int]) -> None:
    """Buckets met often enough have rows of their own, in order; all others are row 0, with what they are met."""
    vocabulary = make_vocabularies([make_samples()], FEATURES, min_count)["id"]
    expected = np.zeros(10, np.int32)
    expected[met] = np.arange(1, len(met) + 1)
    np.testing.assert_array_equal(vocabulary.row, expected)
    assert vocabulary.row.dtype == np.int32
    assert (vocabulary.count.tolist(), vocabulary.embeddings) == (count, len(met) + 1)


def test_rare_buckets_have_rows_of_what_is_shared() -> None:
    """With places, each bucket that is met has a row between its knots; a rare one's own embedding is the default."""
    place = np.full(10, np.nan)
    place[[5, 7, 9]] = [0.0, 0.5, 0.75]
    vocabulary = make_vocabularies([make_samples()], FEATURES, 3, "met", lambda: place, 3)["id"]
    assert vocabulary.row.tolist() == [0, 0, 0, 0, 0, 1, 0, 2, 0, 3]
    assert vocabulary.blend is not None
    assert vocabulary.blend.own.tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(vocabulary.blend.weights[1:], np.array([[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]))
    np.testing.assert_allclose(vocabulary.blend.weights[0], [1 / 3, 0.5, 1 / 6], rtol=1e-6)
    assert (vocabulary.count.tolist(), vocabulary.embeddings) == ([5, 5], 2)
    assert vocabulary.own(np.array([2, 3, 0, 2])).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("place", "knots"), [pytest.param(None, 8, id="no-order"), pytest.param(np.zeros(10), 1, id="one-knot")]
)
def test_nothing_is_shared(place: Any, knots: int) -> None:
    """Without an order, and with fewer than two knots, each row has an embedding of its own."""
    vocabulary = make_vocabularies([make_samples()], FEATURES, 2, "met", lambda: place, knots)["id"]
    assert vocabulary.blend is None
    assert vocabulary.own(vocabulary.row).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0, 2]
    assert vocabulary.embeddings == 3


def test_tags_share_nothing() -> None:
    """Places are those of ids; tags keep rows of their own."""
    vocabularies = make_vocabularies([make_samples()], FEATURES, 1, "met", lambda: np.zeros(10), 4)
    assert vocabularies["id"].blend is not None
    assert vocabularies["tag"].blend is None


def test_parts_add_up() -> None:
    """Samples that come in parts make the same vocabulary as in one, where they share no events."""
    samples = make_samples()
    parts = samples.take(np.array([0])), samples.take(np.array([1, 2]))
    apart = make_vocabularies(parts, FEATURES)["id"]
    together = make_vocabularies([samples], FEATURES)["id"]
    for name in ("row", "targets", "entries"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name))


def test_no_samples() -> None:
    """Where training meets nothing there is the default row only."""
    nothing = make_samples().take(np.arange(0))
    vocabulary = make_vocabularies([nothing], FEATURES)["id"]
    assert (vocabulary.embeddings, vocabulary.row.tolist()) == (1, [0] * 10)


def test_samples_in_rows() -> None:
    """Buckets of events and targets become rows; what was not met becomes the default."""
    samples = make_samples()
    vocabularies = make_vocabularies([samples], FEATURES, min_count=2)
    other = replace(samples, target_id=np.array([7, 9, 4], np.int32))
    encoded = to_rows(other, vocabularies)
    assert encoded.event_id.tolist() == [1, 0, 1, 0]
    assert encoded.target_id.tolist() == [1, 2, 0]
    assert encoded.event_tag.tolist() == [1, 1, 2]
    assert encoded.target_tag.tolist() == [2, 2, 0]


def draw_rows() -> Rows:
    """Rows of tables, none of them the default."""
    rng = np.random.default_rng(1)
    return Rows(
        *(tf.constant(rng.integers(1, 9, (500, 40)), tf.int32) for _ in range(2)),
        *(tf.constant(rng.integers(0, 41, 500), tf.int32) for _ in range(2)),
        *(tf.constant(rng.integers(1, 9, 500), tf.int32) for _ in range(2)),
    )


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_replacement_has_its_rate(rate: float) -> None:
    """Entries and targets become row 0 at the rate, independently of each other; what is left is as it was."""
    rows = draw_rows()
    replaced: Any = replace_rows(rows, rate, tf.constant([1, 2]))
    for name in ("seq_id", "seq_tag", "target_id", "target_tag"):
        before, after = getattr(rows, name).numpy(), getattr(replaced, name).numpy()
        gone = after == 0
        assert gone.mean() == pytest.approx(rate, abs=0.06)
        np.testing.assert_array_equal(after[~gone], before[~gone])
        assert after.dtype == before.dtype
    assert replaced.seq_id_length is rows.seq_id_length
    if 0 < rate < 1:
        assert ((replaced.target_id.numpy() == 0) != (replaced.target_tag.numpy() == 0)).any()


def test_replacement_is_a_function_of_its_seed() -> None:
    """The same seed replaces the same entries, another one others; pairs by name are replaced as rows are."""
    rows = draw_rows()
    first, again, other = (replace_rows(rows, 0.2, tf.constant([7, seed])) for seed in (1, 1, 2))
    by_name: Any = replace_rows(rows.pairs, 0.2, tf.constant([7, 1]))
    assert isinstance(first, Rows)
    assert isinstance(again, Rows)
    assert isinstance(other, Rows)
    assert isinstance(by_name["id"], Pair)
    np.testing.assert_array_equal(first.seq_id, again.seq_id)
    np.testing.assert_array_equal(first.seq_id, by_name["id"].sequence)
    assert (first.seq_id.numpy() != other.seq_id.numpy()).any()


def test_replacement_moves_the_counts() -> None:
    """Where a tenth is replaced, a tenth of all that is met is expected in the default row."""
    vocabulary = make_vocabulary(count_buckets(make_samples(), FEATURES)["id"], 2)
    big = Vocabulary(vocabulary.row, vocabulary.targets * 100, vocabulary.entries * 100)
    assert big.count.tolist() == [300, 500, 200]
    assert big.replaced(0.1).count.tolist() == [370, 450, 180]
    assert big.replaced(0).count.tolist() == [300, 500, 200]
