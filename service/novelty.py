"""Looks up the ids of a few requests among those that training met, when they have been answered."""

import asyncio
from collections.abc import Callable
from typing import Final

from service.batch import Ids, Sample
from service.loading import Served
from service.seen import SeenIds

PAUSE_S: Final = 0.2  # between two requests that are looked at
MOST_IDS: Final = 512  # of a part of one: strings take 0.2 ms

Report = Callable[[str, int, int], None]


class Novelty:
    """Tells how many ids are new.

    Args:
        report: told a part of the request, how many of its ids were looked up, and how many training never met.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._next = 0.0  # monotonic seconds

    def offer(self, served: Served, sample: Sample, now: float) -> None:
        """Look at a request that `served` has scored, unless another was a moment ago; on the event loop's next turn.

        Its answer is sent before that.
        """
        if served.seen is not None and now >= self._next:
            self._next = now + PAUSE_S
            asyncio.get_running_loop().call_soon(self._check, served.seen, sample)

    def _check(self, seen: SeenIds, sample: Sample) -> None:
        for part, ids in (("history", sample.seq_id), ("candidates", sample.target_id)):
            chosen = _spread(ids)
            met = int(seen.contains(chosen).sum())
            self._report(part, len(chosen), len(chosen) - met)


def _spread(ids: Ids) -> Ids:
    """At most `MOST_IDS` of the ids, evenly: callers may have sorted them."""
    return ids[:: max(1, -(-len(ids) // MOST_IDS))]
