"""Histograms cheaper than Prometheus' own where much is observed, and the series of each version."""

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from service.drift import Window

MOST_VERSIONS = 8  # of which series are kept: a server that gets a version an hour would otherwise keep thousands


def several() -> bool:
    """Whether several processes add up their metrics, through files from which nothing can be removed."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class _Fed(MetricWrapperBase):
    """A collector of which some is still in ledgers; it is counted when the collector is read."""

    _ledgers: "tuple[Ledger, ...]" = ()

    def feed(self, ledger: "Ledger") -> None:
        """A ledger has some of it."""
        self._ledgers = (*self._ledgers, ledger)

    def _child_samples(self) -> Iterable[Sample]:
        for ledger in self._ledgers:
            ledger.count()
        return super()._child_samples()


class Tally(_Fed, Histogram):
    """A histogram that counts many values at once."""

    def observe_all(self, values: NDArray[Any]) -> None:
        """Count every value (N,)."""
        self._count(np.searchsorted(self._upper_bounds, values), values)  # the first bound that is no less

    def _count(self, places: NDArray[np.intp], values: NDArray[Any]) -> None:
        """Count values (N,) in buckets `places` (N,)."""
        for bucket, count in zip(self._buckets, np.bincount(places).tolist(), strict=False):
            if count:
                bucket.inc(count)
        self._sum.inc(float(values.sum()))

    def mark(self, value: float, exemplar: dict[str, str]) -> None:
        """Keep an exemplar of the bucket that holds `value`, which only OpenMetrics shows."""
        bucket = self._buckets[bisect_left(self._upper_bounds, value)]
        bucket.set_exemplar(Exemplar(exemplar, value, time.time()))


class Count(_Fed, Counter):
    """A counter of the rows of ledgers."""


class Ledger:
    """Rows of numbers, of which each column goes to a histogram, counted together when somebody reads one of them.

    A row takes 0.15 us, and as much again when it is counted; a call of each histogram takes 0.8 us, and several times
    that on a request's way, where nothing of it is in the core's caches.

    Args:
        columns: histograms.
        counter: of the rows.
    """

    _MOST = 512  # rows that wait; counting them takes less than half a millisecond

    def __init__(self, columns: Sequence[Tally], counter: Count | None = None) -> None:
        self._columns = columns
        self._counter = counter
        self._rows: list[tuple[float, ...]] = []  # one list for ever: a thread may be about to append to it
        self._counting = Lock()
        for each in [*columns, *([counter] if counter else [])]:
            each.feed(self)

    def add(self, row: tuple[float, ...]) -> None:
        """Count a value in each column, soon."""
        self._rows.append(row)
        if len(self._rows) >= self._MOST:
            self.count()

    def count(self) -> None:
        """Count what waits."""
        with self._counting:
            rows = self._rows[:]
            del self._rows[: len(rows)]
            if not rows:
                return
            number = len(self._columns)
            flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * number)  # half of np.array's time
            for column, values in zip(self._columns, flat.reshape(-1, number).T, strict=True):
                column.observe_all(values)
            if self._counter is not None:
                self._counter.inc(len(rows))


class Journal(Ledger):
    """A ledger that keeps nothing: several processes read each other's histograms from files, at any time."""

    def add(self, row: tuple[float, ...]) -> None:
        """Count a value in each column."""
        for column, value in zip(self._columns, row, strict=True):
            column.observe(value)
        if self._counter is not None:
            self._counter.inc()


def make_ledger(columns: Sequence[Tally], counter: Count | None = None) -> Ledger:
    """The ledger for this process, alone or one of several."""
    return (Journal if several() else Ledger)(columns, counter)


class Spread(Tally):
    """A histogram of shares that come in arrays, which are counted together: a twentieth of the time, one by one.

    Its bounds are those of equal bins from 0 to 1, so that a bin is found by a product; a search takes twice as long.
    """

    _MOST_ARRAYS, _MOST_VALUES = 256, 32_768  # that wait; counting them takes less than half a millisecond
    _LONGEST_S = 1.0
    _counted: float
    _values: int

    def add(self, values: NDArray[np.float32], now: float) -> None:
        """Count every value, soon; `now` in monotonic seconds."""
        self._arrays.append(values)
        self._values += len(values)
        full = self._values >= self._MOST_VALUES or len(self._arrays) >= self._MOST_ARRAYS
        if full or now - self._counted >= self._LONGEST_S:
            self._counted = now
            self.count()

    def observe_all(self, values: NDArray[np.float32]) -> None:
        """Count every value (N,)."""
        bins = len(self._upper_bounds) - 1  # and one beyond 1
        # In doubles, as a float32 times so small a number is exact in them: what is on a bound does not get beyond it.
        places = np.ceil(np.multiply(values, bins, dtype=np.float64)).astype(np.intp) - 1
        self._count(places.clip(0, bins), values)

    def _metric_init(self) -> None:
        super()._metric_init()
        self._arrays: list[NDArray[np.float32]] = []
        self._counted, self._values = 0.0, 0

    def count(self) -> None:
        """Count what waits."""
        arrays, self._arrays, self._values = self._arrays, [], 0
        if arrays:
            self.observe_all(np.concatenate(arrays))

    def _child_samples(self) -> Iterable[Sample]:
        self.count()
        return super()._child_samples()


class Drift(Collector):
    """What another collector has, and how far the probabilities in it are from those of training.

    Made of what is read, so that it costs no request anything and, of several workers, counts the scores of all.
    """

    def __init__(self, source: Collector, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._source = source
        self._text = text
        self._clock = clock
        self._windows: dict[str, Window] = {}  # by version

    def expect(self, version: str, shares: tuple[float, ...]) -> None:
        """A version gave these shares of its scores in training."""
        self._windows[version] = Window(shares)

    def forget(self, version: str) -> None:
        """A version is of no interest any more."""
        self._windows.pop(version, None)

    def collect(self) -> Iterable[Metric]:
        """All metrics; those without a value yet are there without a sample."""
        for family in self._source.collect():
            yield family
            if family.name == "din_probability":
                yield self._look(family)

    def _look(self, family: Metric) -> Metric:
        counts: dict[str, list[float]] = {version: [] for version in self._windows}
        for sample in family.samples:
            if sample.name == "din_probability_bucket" and sample.labels["version"] in counts:
                counts[sample.labels["version"]].append(sample.value)
        gauge = GaugeMetricFamily("din_score_drift_psi", self._text, labels=["version"])
        for version, values in counts.items():
            bins = np.diff(values[:-1], prepend=0)  # they come added up, and the last is beyond 1
            if len(bins) and (psi := self._windows[version].look(bins, self._clock())) is not None:
                gauge.add_metric([version], psi)
        return gauge


@dataclass(frozen=True, slots=True)
class Facts:
    """Gauges, by version, of what its manifest and its loading say."""

    created: Gauge
    loaded: Gauge
    click_ratio: Gauge

    def set(self, version: str, values: tuple[float | None, ...]) -> None:
        """Those of a version in the order above; what is None is not told."""
        for gauge, value in zip((self.created, self.loaded, self.click_ratio), values, strict=True):
            if value is not None:
                gauge.labels(version).set(value)

    def remove(self, version: str) -> None:
        """Drop those of a version."""
        for gauge in (self.created, self.loaded, self.click_ratio):
            gauge.remove(version)


class Versions:
    """The series of each version; of all but the last few that answered or came they are dropped, where possible."""

    def __init__(self, duration: Tally, difference: Histogram, probability: Spread, facts: Facts, drift: Drift) -> None:
        self._duration = duration
        self._difference = difference
        self._probability = probability
        self._facts = facts
        self._drift = drift
        self._known: dict[str, dict[str, Ledger]] = {}  # by version, by role; the last that answered or came last
        self._last = ""  # of them
        self._scores: dict[str, Spread] = {}  # by version: a look-up of labels takes 1 us

    def loaded(self, version: str, facts: tuple[float | None, ...], shares: tuple[float, ...] | None) -> None:
        """A version is ready; shares of its scores in training, if they are known."""
        self._meet(version)
        self._facts.set(version, facts)
        if shares is not None:
            self._drift.expect(version, shares)

    def answered(self, version: str, role: str, duration_s: float, probabilities: NDArray[np.float32]) -> None:
        """A version answered a request."""
        roles = self._known[version] if version == self._last else self._meet(version)
        duration = roles.get(role)
        if duration is None:
            duration = roles[role] = make_ledger([self._duration.labels(version, role)])
        duration.add((duration_s,))
        self._scores[version].add(probabilities, time.monotonic())

    def differed(self, version: str, difference: float) -> None:
        """A shadow was compared."""
        self._difference.labels(version).observe(difference)

    def count(self) -> None:
        """Count the probabilities that wait, for those who do not read them from here."""
        for version in self._known:
            self._probability.labels(version).count()

    def _meet(self, version: str) -> dict[str, Ledger]:
        roles = self._known[version] = self._known.pop(version, {})  # now the last
        self._last = version
        self._scores.setdefault(version, self._probability.labels(version))
        if len(self._known) > MOST_VERSIONS:
            self._drop(next(iter(self._known)))
        return roles

    def _drop(self, version: str) -> None:
        roles = self._known.pop(version)
        del self._scores[version]
        self._drift.forget(version)
        if several():
            return
        for role in roles:
            self._duration.remove(version, role)
        self._difference.remove(version)
        self._probability.remove(version)
        self._facts.remove(version)
