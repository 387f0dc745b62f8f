"""What many measured numbers come to: percentiles, medians, and one load run's figures."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ascending values that at least `share` (0 to 1] of them do not exceed; 0.0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def count_by(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs."""
    return dict(Counter(values))


@dataclass(frozen=True, slots=True)
class Load:
    """One load run, as its client saw it. Times are milliseconds; the window leaves out the warm-up."""

    window_s: float
    offered: float  # requests/s asked for; 0 in a closed loop
    answered: int  # with status 200 and the right number of probabilities
    errors: dict[str, int]  # by status, or what was wrong
    requests_per_s: float
    candidates_per_s: float
    p50: float
    p90: float
    p99: float
    worst: float
    stages: dict[str, float]  # medians of what the answers said of themselves
    overhead: float  # median of client-side latency minus the answer's own `infer`
    client_cpu: float  # share of one core that the load generator used
    server_cpu_us: float  # CPU microseconds the server used per answered request; 0 where unknown
    reused: bool  # whether bodies had to be sent more than once
    in_time: float = 0.0  # share of the answered whose latency is within the order's deadline
    candidates_in_time_per_s: float = 0.0
    refused_p99: float = 0.0  # until an answer that says no
    sent_late_p99: float = 0.0  # from when a request was due until the load generator sent it

    @property
    def failed(self) -> int:
        """How many requests got no good answer."""
        return sum(self.errors.values())


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of rounds that ran beside each other; infinite where theirs is 0."""
    return median([a / b if b else math.inf for a, b in zip(ours, theirs, strict=True)])
