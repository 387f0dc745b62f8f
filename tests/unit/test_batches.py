import numpy as np
import pytest

from service.training import Samples
from service.training.batches import MULTIPLE, WINDOW, Batches, by_length, in_order, shuffle
from service.training.data import gather


@pytest.fixture
def samples() -> Samples:
    """Of histories of 0 to 20 ids and 0 to 10 tags."""
    rng, rows = np.random.default_rng(1), 1000
    ids, tags = 21 * np.arange(rows), 11 * np.arange(rows)
    values = rng.integers(1, 99, 21 * rows)
    id_stop, tag_stop = ids + rng.integers(0, 21, rows), tags + rng.integers(0, 11, rows)
    label = rng.integers(0, 2, rows).astype(np.float32)
    return Samples(
        values, values, ids, id_stop, tags, tag_stop, values[:rows], values[:rows], label, np.zeros(rows, int)
    )


@pytest.mark.parametrize("first", [0, 3])
def test_batches_are_the_gathered_samples(samples: Samples, first: int) -> None:
    """A batch holds the samples of its turn, histories padded to a multiple; a resumed epoch leaves some out."""
    order = np.random.default_rng(2).permutation(len(samples))
    batches = list(Batches(samples, 64)(order, first))
    assert len(batches) == 16 - first
    for number, (rows, label) in enumerate(batches, first):
        expected = gather(samples, order[64 * number : 64 * (number + 1)])
        np.testing.assert_array_equal(label, expected.label)
        for name in ("target_id", "target_tag", "seq_id_length", "seq_tag_length"):
            np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name))
        for name in ("seq_id", "seq_tag"):
            padded, exact = getattr(rows, name).numpy(), getattr(expected, name)
            assert padded.shape[1] == -(-exact.shape[1] // MULTIPLE) * MULTIPLE
            np.testing.assert_array_equal(padded[:, : exact.shape[1]], exact)
            assert not padded[:, exact.shape[1] :].any()


def test_histories_may_all_be_empty(samples: Samples) -> None:
    """Samples without any history, and without any event at all, make batches of padding."""
    none, zero = np.zeros(0, np.int64), np.zeros(len(samples), np.int64)
    bare = Samples(none, none, zero, zero, zero, zero, samples.target_id, samples.target_tag, samples.label, zero)
    rows, _ = next(Batches(bare, 8)(np.arange(len(bare))))
    assert rows.seq_id.shape == (8, MULTIPLE)
    assert not rows.seq_id.numpy().any()
    assert not rows.seq_id_length.numpy().any()


def test_shuffling_keeps_every_sample_and_little_padding(samples: Samples) -> None:
    """Every sample comes once, by the seed; lengths inside a batch are alike, and batches in no order of length."""
    order = shuffle(samples, 32, np.random.default_rng(3))
    assert sorted(order) == list(range(len(samples)))
    np.testing.assert_array_equal(order, shuffle(samples, 32, np.random.default_rng(3)))
    assert (order != shuffle(samples, 32, np.random.default_rng(4))).any()
    length = np.maximum(samples.id_stop - samples.id_start, samples.tag_stop - samples.tag_start)[order]
    spread = [np.ptp(batch) for batch in np.split(length[: 32 * 31], 31)]
    assert np.mean(spread) < 21 / WINDOW * 3
    assert (np.diff(length[: 32 * 31 : 32]) < 0).any()


def test_answers_go_back_to_their_places(samples: Samples) -> None:
    """Numbers computed in the order of the lengths come back in that of the samples."""
    order = by_length(samples)
    parts = [label.numpy() for _, label in Batches(samples, 100)(order)]
    np.testing.assert_array_equal(in_order(parts, order), samples.label)
