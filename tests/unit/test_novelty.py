"""Which requests are looked up, and what is told of them."""

import asyncio
from typing import Any

import numpy as np
import pytest

from service.batch import Sample
from service.loading import Served
from service.novelty import MOST_IDS, PAUSE_S, Novelty
from service.seen import make_seen
from tests.fakes import MANIFEST, FakeEngine

pytestmark = pytest.mark.anyio

TAGS = np.array([1, 2])
SEEN = make_seen(np.arange(1000), 1e-9)  # whose false positives no test will see
Told = list[tuple[str, int, int]]


def served(seen: Any = SEEN) -> Served:
    """A version that met the ids below 1000."""
    return Served(MANIFEST, FakeEngine(), 0.0, 0.0, seen=seen)


def sample(history: list[int], candidates: Any) -> Sample:
    """A request of these ids."""
    return Sample(np.array(history, np.int64), TAGS, np.array(candidates), TAGS)


async def looked_up(*offers: tuple[Sample, float], version: Served | None = None) -> Told:
    """What is told of requests that are offered at these times, on the event loop's next turn and not before."""
    told: Told = []
    novelty = Novelty(lambda *of: told.append(of))
    for offered, now in offers:
        novelty.offer(version or served(), offered, now)
    assert told == []
    await asyncio.sleep(0)
    return told


async def test_new_ids_are_counted_by_part() -> None:
    """Ids that training never met are counted, those of history and candidates apart."""
    told = await looked_up((sample([1, 5000, 6000], [1, 2, 3, 7000]), 100.0))
    assert told == [("history", 3, 2), ("candidates", 4, 1)]


async def test_empty_history_has_no_ids() -> None:
    """Of an empty history nothing is looked up."""
    assert (await looked_up((sample([], [1]), 100.0)))[0] == ("history", 0, 0)


async def test_few_requests_are_looked_up() -> None:
    """Of the requests of a moment only the first, so that at most so many a second cost anything."""
    moments = [100.0 + PAUSE_S * i / 4 for i in range(9)]
    told = await looked_up(*[(sample([], [at]), moment) for at, moment in enumerate(moments)])
    assert len(told) == 2 * 3


async def test_long_requests_are_looked_up_in_part() -> None:
    """Of many candidates some are looked up, evenly: half are new here, sorted to the end."""
    (_, (_, checked, unseen)) = await looked_up((sample([], np.repeat([1, 5000], 1000)), 100.0))
    assert MOST_IDS / 2 < checked <= MOST_IDS
    assert unseen == pytest.approx(checked / 2, abs=1)


async def test_version_without_a_filter_costs_nothing() -> None:
    """Where the ids of training are not known nothing is told, and the next version's request is not skipped for it."""
    assert await looked_up((sample([], [1]), 100.0), version=served(None)) == []
