import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training import Samples, events, sampling
from service.training.sampling import build

MEETING = st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 6), st.booleans())  # user, item, time, liked


def _events(meetings: list[tuple[int, int, int, bool]], *, impressions: bool = False) -> events.Events:
    """Events whose item i has the name 100 + i and the tag i mod 3; items are numbered by first appearance."""
    user, item, time, liked = (np.array(column) for column in zip(*meetings, strict=True))
    numbers, items = events.number(pl.Series(item + 100, dtype=pl.Int64))
    return events.Events(user, numbers, item % 3, time, liked.astype(bool), items, np.array([5, 6, 7]), impressions)


def _history(samples: Samples, row: int) -> list[int]:
    ids: list[int] = samples.event_id[samples.id_start[row] : samples.id_stop[row]].tolist()
    return ids


def test_build_by_hand() -> None:
    """Positives come by time, each with its negative, behind what was liked in earlier seconds only."""
    meetings = [(0, 3, 9, True), (0, 1, 2, True), (0, 2, 2, True), (0, 4, 1, False), (0, 0, 1, True), (1, 5, 1, False)]
    samples, unit, *_ = build(_events(meetings), seed=1, max_history=2)
    assert samples.target_id[::2].tolist() == [100, 101, 102, 103]
    assert samples.target_id[1::2].tolist() == [105] * 4  # the only item that user 0 never met
    assert samples.target_tag.tolist() == [5, 7, 6, 7, 7, 7, 5, 7]
    assert [_history(samples, row) for row in range(0, 8, 2)] == [[], [100], [100], [101, 102]]
    assert samples.label.tolist() == [1, 0] * 4
    assert unit.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_build_from_impressions() -> None:
    """Impressions are their own negatives, behind what was liked and not behind what was shown."""
    meetings = [(0, 1, 1, True), (0, 2, 2, False), (0, 3, 3, True)]
    samples, unit, *_ = build(_events(meetings, impressions=True), seed=1, max_history=5)
    assert samples.target_id.tolist() == [101, 102, 103]
    assert samples.label.tolist() == [1, 0, 1]
    assert [_history(samples, row) for row in range(3)] == [[], [101], [101]]
    assert unit.tolist() == [0, 1, 2]


def test_build_skips_who_met_everything() -> None:
    """A user who met every item has no negative, hence no sample."""
    samples, *_ = build(_events([(0, 1, 1, True), (0, 2, 2, True), (1, 1, 1, True)]), seed=1, max_history=5)
    assert samples.user.tolist() == [1, 1]
    assert samples.target_id.tolist() == [101, 102]


def test_build_is_deterministic() -> None:
    """The seed decides the negatives, and nothing else."""
    meetings = [(user, (user * 7 + item) % 40, item, True) for user in range(20) for item in range(15)]
    same, again, other = (build(_events(meetings), seed, 5)[0] for seed in (1, 1, 2))
    assert same.target_id.tolist() == again.target_id.tolist()
    assert same.target_id.tolist() != other.target_id.tolist()
    assert same.target_id[::2].tolist() == other.target_id[::2].tolist()


def test_negatives_are_uniform() -> None:
    """Each item that the user never met is drawn about as often as the others."""
    meetings = [(0, item, item, True) for item in (1, 4, 5)] + [(1, item, 0, False) for item in range(8)]
    read = _events(meetings)
    drawn = sampling._negatives(sampling._met(read), len(read.items), np.zeros(5000, np.int64), seed=3)[:, 0]
    names, counts = np.unique(read.items[drawn], return_counts=True)
    assert names.tolist() == [100, 102, 103, 106, 107]
    assert counts.min() > 900
    assert counts.max() < 1100


def test_build_draws_several_negatives() -> None:
    """As many different unmet items as asked for follow each positive, and share its unit, history and time."""
    meetings = [(0, 0, 1, True), (0, 1, 2, True), (1, 2, 1, False), (1, 3, 1, False), (1, 4, 1, True)]
    built = build(_events(meetings), seed=1, max_history=5, negatives=3)
    assert built.samples.target_id[::4].tolist() == [100, 101]  # user 1 has two unmet items: no sample
    for first in (0, 4):
        assert sorted(built.samples.target_id[first + 1 : first + 4].tolist()) == [102, 103, 104]
    assert built.samples.label.tolist() == [1, 0, 0, 0] * 2
    assert built.unit.tolist() == [0] * 4 + [1] * 4
    assert built.time.tolist() == [1] * 4 + [2] * 4
    assert [_history(built.samples, row) for row in range(4, 8)] == [[100]] * 4
    assert built.click_rate == 2 / (2 + 3 + 3)  # two clicks among them and all that could have been drawn


def test_build_of_ratings() -> None:
    """Each rating is a sample, liked or not, behind what was liked earlier; nothing is drawn."""
    meetings = [(0, 1, 1, True), (0, 2, 2, False), (0, 3, 2, True), (0, 4, 3, False)]
    built = build(_events(meetings), seed=1, max_history=5, sampling="ratings", negatives=3)
    assert built.samples.target_id.tolist() == [101, 102, 103, 104]
    assert built.samples.label.tolist() == [1, 0, 1, 0]
    assert [_history(built.samples, row) for row in range(4)] == [[], [101], [101], [101, 103]]
    assert built.unit.tolist() == [0, 1, 2, 3]
    assert built.click_rate is None


def test_several_negatives_are_uniform() -> None:
    """Every ordered pair of different items is drawn about as often as the others."""
    ranks = sampling._ranks(np.full(12_000, 4), 2, seed=3)
    pairs, counts = np.unique(ranks, axis=0, return_counts=True)
    assert pairs.tolist() == [[a, b] for a in range(4) for b in range(4) if a != b]
    assert counts.min() > 880
    assert counts.max() < 1120


@given(st.lists(MEETING, min_size=1, max_size=40), st.integers(0, 3), st.integers(1, 3))
def test_negatives_differ_and_were_never_met(
    meetings: list[tuple[int, int, int, bool]], seed: int, negatives: int
) -> None:
    """What is drawn against a click are different items, none of which its user meets, before or after."""
    samples, unit, *_ = build(_events(meetings), seed, 3, negatives=negatives)
    met = {(user, item + 100) for user, item, *_ in meetings}
    for number in range(len(samples) // (1 + negatives)):
        own = samples.take(unit == number)
        assert own.label.tolist() == [1] + [0] * negatives
        assert len(set(own.target_id.tolist())) == 1 + negatives
        assert not met & set(zip(own.user[1:].tolist(), own.target_id[1:].tolist(), strict=True))


@pytest.mark.parametrize("mode", ["next-item", "ratings", "impressions"])
@given(st.lists(MEETING, min_size=1, max_size=40), st.integers(0, 3))
def test_build_never_leaks(mode: str, meetings: list[tuple[int, int, int, bool]], seed: int) -> None:
    """A history is exactly the newest of what was liked before its sample, and a drawn negative was never met."""
    every = mode != "next-item"
    read = _events(meetings, impressions=mode == "impressions")
    samples, unit, *_ = build(read, seed, 3, "ratings" if mode == "ratings" else "next-item")
    by_user = {
        user: sorted((m for m in meetings if m[0] == user), key=lambda m: m[2]) for user in {m[0] for m in meetings}
    }
    catalogue = len({m[1] for m in meetings})
    expected = [
        m
        for user in sorted(by_user)
        for m in by_user[user]
        if every or (m[3] and len({other[1] for other in by_user[user]}) < catalogue)
    ]
    rows = range(0, len(samples), 1 if every else 2)
    assert [(samples.user[row], samples.target_id[row] - 100) for row in rows] == [m[:2] for m in expected]
    for row, (user, _, time, _) in zip(rows, expected, strict=True):
        assert _history(samples, row) == [100 + m[1] for m in by_user[user] if m[3] and m[2] < time][-3:]
        if not every:
            assert samples.target_id[row + 1] - 100 not in {m[1] for m in by_user[user]}
            assert unit[row] == unit[row + 1]
            assert _history(samples, row + 1) == _history(samples, row)
