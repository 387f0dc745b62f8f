"""Histograms cheaper than Prometheus' own where much is observed, and the series of each version."""

import os
import time
from bisect import bisect_left
from collections.abc import Iterable
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Histogram
from prometheus_client.samples import Exemplar, Sample

MOST_VERSIONS = 8  # of which series are kept: a server that gets a version an hour would otherwise keep thousands


def several() -> bool:
    """Whether several processes add up their metrics, through files from which nothing can be removed."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class Tally(Histogram):
    """A histogram that counts what it observed together: 0.15 us an observation in place of 0.8.

    For one process only: several read each other's from files, which hold nothing of what waits here.
    """

    _MOST = 1024  # that wait; counting them takes a tenth of a millisecond

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count `amount`, soon; each bucket keeps its last exemplar, which only OpenMetrics shows."""
        self._amounts.append(amount)
        if len(self._amounts) >= self._MOST:
            self._count()
        if exemplar is not None:
            bucket = self._buckets[bisect_left(self._upper_bounds, amount)]
            bucket.set_exemplar(Exemplar(exemplar, amount, time.time()))

    def _metric_init(self) -> None:
        super()._metric_init()
        self._amounts: list[float] = []  # one list for ever: a thread may be about to append to it
        self._counting = Lock()

    def _count(self) -> None:
        with self._counting:
            amounts = self._amounts[:]
            del self._amounts[: len(amounts)]
            if not amounts:
                return
            places = np.searchsorted(self._upper_bounds, amounts)  # the first bound that is no less
            for bucket, count in zip(self._buckets, np.bincount(places).tolist(), strict=False):
                if count:
                    bucket.inc(count)
            self._sum.inc(sum(amounts))

    def _child_samples(self) -> Iterable[Sample]:
        self._count()
        return super()._child_samples()


class Spread(Histogram):
    """A histogram of what comes in arrays, which are counted together: a twentieth of the time, one by one."""

    _EVERY = 64  # arrays
    _LONGEST_S = 1.0
    _counted: float

    def observe_all(self, values: NDArray[np.float32], now: float) -> None:
        """Count every value, soon; `now` in monotonic seconds."""
        self._arrays.append(values)
        if len(self._arrays) >= self._EVERY or now - self._counted >= self._LONGEST_S:
            self._counted = now
            self._count()

    def _metric_init(self) -> None:
        super()._metric_init()
        self._arrays: list[NDArray[np.float32]] = []
        self._counted = 0.0

    def _count(self) -> None:
        arrays, self._arrays = self._arrays, []
        if not arrays:
            return
        values = np.concatenate(arrays)
        places = np.searchsorted(self._upper_bounds, values)  # the first bound that is no less
        for bucket, count in zip(self._buckets, np.bincount(places).tolist(), strict=False):
            if count:
                bucket.inc(count)
        self._sum.inc(float(values.sum()))

    def _child_samples(self) -> Iterable[Sample]:
        self._count()
        return super()._child_samples()


class Versions:
    """The series of each version; of all but the last few they are dropped, where that is possible."""

    def __init__(self, duration: Histogram, difference: Histogram, probability: Spread) -> None:
        self._duration = duration
        self._difference = difference
        self._probability = probability
        self._known: dict[str, dict[str, Histogram]] = {}  # by version, by role; latest new one last
        self._scores: dict[str, Spread] = {}  # by version: a look-up of labels takes 1 us

    def answered(self, version: str, role: str, duration_s: float, probabilities: NDArray[np.float32]) -> None:
        """A version answered a request."""
        roles = self._known.get(version) or self._meet(version)
        duration = roles.get(role)
        if duration is None:
            duration = roles[role] = self._duration.labels(version, role)
        duration.observe(duration_s)
        self._scores[version].observe_all(probabilities, time.monotonic())

    def differed(self, version: str, difference: float) -> None:
        """A shadow was compared."""
        self._difference.labels(version).observe(difference)

    def _meet(self, version: str) -> dict[str, Histogram]:
        known = self._known
        known[version] = {}
        self._scores[version] = self._probability.labels(version)
        if len(known) > MOST_VERSIONS and not several():
            oldest = next(iter(known))
            for role in known.pop(oldest):
                self._duration.remove(oldest, role)
            self._difference.remove(oldest)
            self._probability.remove(oldest)
            del self._scores[oldest]
        return known[version]
