"""What /metrics says of the time between two looks at it. Pure: text in, figures out."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Scrape:
    """One look: every sample by name and labels.

    Raises:
        ValueError: the text is no exposition.
    """

    def __init__(self, text: str, at: float) -> None:
        self.at = at  # seconds, of a clock that goes forward
        self._samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value

    def series(self, name: str) -> Mapping[Labels, float]:
        """Every sample of a name."""
        return self._samples.get(name, {})

    def gauge(self, name: str) -> float | None:
        """The one value of a metric without labels; None: the server has no such metric."""
        return self.series(name).get(frozenset())

    def labels_of(self, name: str) -> dict[str, str]:
        """Labels of the sample that is not 0, such as those of the version that serves."""
        return next((dict(labels) for labels, value in self.series(name).items() if value), {})


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram's observations of an interval: bucket bounds with cumulative counts, in order."""

    buckets: tuple[tuple[float, float], ...]
    total: float  # sum of what was observed

    @property
    def count(self) -> float:
        """How many there were."""
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def mean(self) -> float | None:
        """None: nothing was observed."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The value that `share` of the observations do not exceed, as Prometheus's histogram_quantile interpolates."""
        rank, low, before = share * self.count, 0.0, 0.0
        if not self.count:
            return None
        for bound, count in self.buckets:
            if count >= rank and count > before:
                if math.isinf(bound):
                    return low
                return low + (bound - low) * (rank - before) / (count - before)
            low, before = bound, count
        return low


class Interval:
    """What happened between two looks. A counter that went back was started again, and counts from 0."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self.before = before
        self.after = after
        self.seconds = max(after.at - before.at, 1e-9)

    def rates(self, name: str, label: str) -> dict[str, float]:
        """Increase per second of a counter by one of its labels."""
        rates: dict[str, float] = {}
        for labels, value in self._increases(name):
            key = dict(labels).get(label, "")
            rates[key] = rates.get(key, 0.0) + value / self.seconds
        return rates

    def rate(self, name: str) -> float:
        """Increase per second of a counter, all labels together."""
        return sum(value for _, value in self._increases(name)) / self.seconds

    def distribution(self, name: str, **labels: str) -> Distribution:
        """The observations of a histogram, of the series with these labels, all together."""
        wanted, buckets = set(labels.items()), dict[float, float]()
        for found, value in self._increases(f"{name}_bucket"):
            if wanted <= found:
                bound = float(dict(found)["le"])
                buckets[bound] = buckets.get(bound, 0.0) + value
        total = sum(value for found, value in self._increases(f"{name}_sum") if wanted <= found)
        return Distribution(tuple(sorted(buckets.items())), total)

    def _increases(self, name: str) -> Iterator[tuple[Labels, float]]:
        before = self.before.series(name)
        for labels, value in self.after.series(name).items():
            earlier = before.get(labels, 0.0)
            yield labels, value - earlier if value >= earlier else value
