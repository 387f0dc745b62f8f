"""From events to samples: what a user did next against random items, or every rating and impression as it was.

Dimension letters: M events, N samples, n positives, k negatives of each, V items.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.training import Samples
from service.training.events import Events
from service.training.runs import runs

Sampling: TypeAlias = Literal["next-item", "ratings"]


class Built(NamedTuple):
    """Samples by user and time, ties in file order, and what splitting them takes."""

    samples: Samples  # N of them
    unit: NDArray[np.int64]  # (N,) what no split may part: a positive with its negatives
    time: NDArray[Any]  # (N,) of the event that a sample was made of
    click_rate: float | None  # share of positives if all of the unmet items were negatives; None: none was drawn


def build(events: Events, seed: int, max_history: int, sampling: Sampling = "next-item", negatives: int = 1) -> Built:
    """Make samples of events.

    A history is what the user liked strictly before, newest `max_history`; it may be empty, because a server meets new
    users too. With "ratings", and of impressions anyway, every event is a sample, positive if liked. Else each liked
    item is one, and as many different random items (of those in the events) as `negatives`, which its user never met
    at all, are others. Users with fewer unmet items than that give no sample.
    """
    order = np.lexsort((events.time, events.user))
    user, item, tag, time = (column[order] for column in (events.user, events.item, events.tag, events.time))
    liked = events.liked[order]
    start, stop = _histories(user, time, liked, max_history)
    if sampling == "ratings" or events.impressions:
        row, target, target_tag, label, rate = np.arange(len(user)), item, tag, liked, None
        unit = row
    else:
        row, drawn, rate = _drawn(events, user, liked, seed, negatives)
        target, target_tag = _beside(item[row], drawn), _beside(tag[row], _first_tags(events)[drawn])
        label = np.tile([True] + [False] * negatives, len(row))
        unit = np.repeat(np.arange(len(row)), 1 + negatives)
        row = np.repeat(row, 1 + negatives)
    samples = Samples(
        event_id=events.items[item[liked]],
        event_tag=events.tags[tag[liked]],
        id_start=start[row],
        id_stop=stop[row],
        tag_start=start[row],
        tag_stop=stop[row],
        target_id=events.items[target],
        target_tag=events.tags[target_tag],
        label=label.astype(np.float32),
        user=user[row],
    )
    return Built(samples, unit, time[row], rate)


def _histories(
    user: NDArray[np.int64], time: NDArray[Any], liked: NDArray[np.bool_], max_history: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and stop (M,), among the liked events, of what each event's user liked strictly before it."""
    before = np.concatenate([[0], np.cumsum(liked)])  # (M+1,) liked events ahead of each event
    stop = before[runs(user, time)[0]]
    return np.maximum(stop - max_history, before[runs(user)[0]]), stop


def _drawn(
    events: Events, user: NDArray[np.int64], liked: NDArray[np.bool_], seed: int, negatives: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], float | None]:
    """Rows (n,) of the sorted events that become positives, the items (n, k) drawn against each, and the click rate."""
    met, catalogue = _met(events), len(events.items)
    unmet = catalogue - np.bincount(met // catalogue)  # (users,)
    row = np.flatnonzero(liked & (unmet >= negatives)[user])
    drawn = _negatives(met, catalogue, user[row], seed, negatives)
    candidates = len(row) + int(unmet[user[row]].sum())
    return row, drawn, len(row) / candidates if candidates else None


def _first_tags(events: Events) -> NDArray[np.int64]:
    """The tag (V,) that each item has in its first event."""
    tags = np.empty(len(events.items), np.int64)
    tags[events.item[::-1]] = events.tag[::-1]  # of repeated assignments the last one stays
    return tags


def _beside(first: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Arrays (n,) and (n, k) as first, its others, next first, ... (n (1 + k),)."""
    return np.column_stack([first, others]).ravel()


def _met(events: Events) -> NDArray[np.int64]:
    """Who met what, as ascending numbers user * V + item without repeats, (P,)."""
    pairs = np.sort(events.user * len(events.items) + events.item)  # np.unique hashes: five times slower at 5M events
    first: NDArray[np.bool_] = runs(pairs)[0] == np.arange(len(pairs))
    return np.asarray(pairs[first])


def _negatives(
    met: NDArray[np.int64], catalogue: int, user: NDArray[np.int64], seed: int, count: int = 1
) -> NDArray[np.int64]:
    """Draw for each of `user` (n,) as many different items as `count`, uniformly from those the user never met, (n, k).

    Exact, without rejection. With a user's items s_0 < s_1 < ... the r-th item not met is r + |{j: s_j - j <= r}|, and
    because s_j - j never falls, one binary search over (user, s_j - j) counts them for all rows at once.

    Raises:
        ValueError: one of them has fewer unmet items.
    """
    met_by = met // catalogue
    ends = np.cumsum(np.bincount(met_by))  # (users,)
    starts = np.concatenate([[0], ends[:-1]])
    missed = met - (np.arange(len(met)) - starts[met_by])  # (P,) user * V + (s_j - j)
    rank = _ranks(catalogue - (ends - starts)[user], count, seed)
    user = user[:, None]
    return np.asarray(rank + np.searchsorted(missed, user * catalogue + rank, side="right") - starts[user])


def _ranks(below: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """For each of `below` (n,), `count` different numbers from 0 and less than it, in the order drawn, (n, k)."""
    rng = np.random.default_rng(seed)
    ranks = np.empty((len(below), count), np.int64)
    for draw in range(count):
        rank = rng.integers(0, below - draw)
        for earlier in np.sort(ranks[:, :draw], axis=1).T:  # the rank-th of those that are left
            rank += rank >= earlier
        ranks[:, draw] = rank
    return ranks
