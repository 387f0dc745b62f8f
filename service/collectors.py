"""Histograms cheaper than Prometheus' own where much is observed, and the series of each version."""

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample

from service.drift import Window
from service.ledgers import BUILT, Journal, Ledger, Table

MOST_VERSIONS = 8  # of which series are kept: a server that gets a version an hour would otherwise keep thousands


def several() -> bool:
    """Whether several processes add up their metrics, through files from which nothing can be removed."""
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


class _Fed(MetricWrapperBase):
    """A collector of which some is still in ledgers; it is counted when the collector is read."""

    _ledgers: tuple[Ledger, ...] = ()

    def feed(self, ledger: Ledger) -> None:
        """A ledger has some of it."""
        self._ledgers = (*self._ledgers, ledger)

    def starve(self, ledger: Ledger) -> None:
        """A ledger has no more of it."""
        self._ledgers = tuple(each for each in self._ledgers if each is not ledger)

    def _child_samples(self) -> Iterable[Sample]:
        for ledger in self._ledgers:
            ledger.count()
        return super()._child_samples()


class Tally(_Fed, Histogram):
    """A histogram that ledgers feed."""

    @property
    def bounds(self) -> tuple[float, ...]:
        """The upper ones of its buckets, rising; the last is infinity."""
        return tuple(self._upper_bounds)

    def tell(self, counts: Sequence[int], total: float) -> None:
        """Count so many values in each bucket, which add up to `total`."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)

    def mark(self, value: float, exemplar: dict[str, str]) -> None:
        """Keep an exemplar of the bucket that holds `value`, which only OpenMetrics shows."""
        bucket = self._buckets[bisect_left(self._upper_bounds, value)]
        bucket.set_exemplar(Exemplar(exemplar, value, time.time()))


class Count(_Fed, Counter):
    """A counter of the rows of ledgers."""


def make_ledger(columns: Sequence[Tally], counter: Count | None = None, spread: "Spread | None" = None) -> Ledger:
    """The ledger for this process, alone or one of several."""
    return (Table if BUILT and not several() else Journal)(columns, counter, spread)


class Spread(Tally):
    """A histogram of shares, with the bounds of equal bins from 0 to 1.

    So a bin is found by a product; a search takes twice as long.
    """

    def observe_all(self, values: NDArray[np.float32]) -> None:
        """Count every value (N,)."""
        bins = len(self._upper_bounds) - 1  # and one beyond 1
        # In doubles, as a float32 times so small a number is exact in them: what is on a bound does not get beyond it.
        places = np.ceil(np.multiply(values, bins, dtype=np.float64)).astype(np.intp) - 1
        self.tell(np.bincount(places.clip(0, bins), minlength=bins + 1).tolist(), float(values.sum()))


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
    """The series of each version; of all but the last few that answered or came they are dropped, where possible.

    Args:
        duration: of its answers, by version and role.
        difference: of its scores from those it is the shadow of.
        probability: that it gave.
        facts: of it.
        drift: of what it gave.
        columns: what else is known of each request that it answers as anything but a shadow.
        counter: of those requests.
    """

    def __init__(
        self,
        duration: Tally,
        difference: Histogram,
        probability: Spread,
        facts: Facts,
        drift: Drift,
        columns: Sequence[Tally],
        counter: Count,
    ) -> None:
        self._duration = duration
        self._difference = difference
        self._probability = probability
        self._facts = facts
        self._drift = drift
        self._columns = columns
        self._counter = counter
        self._known: dict[str, dict[str, Ledger]] = {}  # by version, by role; the last that answered or came last
        self._last = ""  # of them

    def loaded(self, version: str, facts: tuple[float | None, ...], shares: tuple[float, ...] | None) -> None:
        """A version is ready; shares of its scores in training, if they are known."""
        self._meet(version)
        self._facts.set(version, facts)
        if shares is not None:
            self._drift.expect(version, shares)

    def ledger(self, version: str, role: str) -> Ledger:
        """Where the answers of a version are written.

        Its columns are the seconds that an answer took and, but for the role `shadow`, those of all versions.
        """
        roles = self._known[version] if version == self._last else self._meet(version)
        return roles.get(role) or self._open(roles, version, role)

    def differed(self, version: str, difference: float) -> None:
        """A shadow was compared."""
        self._difference.labels(version).observe(difference)

    def count(self) -> None:
        """Count what waits, for those who do not read it from here."""
        for roles in self._known.values():
            for ledger in roles.values():
                ledger.count()

    def _open(self, roles: dict[str, Ledger], version: str, role: str) -> Ledger:
        duration, probability = self._duration.labels(version, role), self._probability.labels(version)
        if role == "shadow":
            roles[role] = make_ledger([duration], spread=probability)
        else:
            roles[role] = make_ledger([duration, *self._columns], self._counter, probability)
        return roles[role]

    def _meet(self, version: str) -> dict[str, Ledger]:
        roles = self._known[version] = self._known.pop(version, {})  # now the last
        self._last = version
        if len(self._known) > MOST_VERSIONS:
            self._drop(next(iter(self._known)))
        return roles

    def _drop(self, version: str) -> None:
        roles = self._known.pop(version)
        for ledger in roles.values():
            ledger.close()
        self._drift.forget(version)
        if several():
            return
        for role in roles:
            self._duration.remove(version, role)
        self._difference.remove(version)
        self._probability.remove(version)
        self._facts.remove(version)
