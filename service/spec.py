"""What describes a metric, and the buckets and label values that several share."""

from dataclasses import dataclass
from typing import Literal

from service.drift import BOUNDS

# From half a millisecond, the fastest answer worth telling apart, to ten seconds, longer than any sane deadline.
TIME_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROW_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LENGTH_BUCKETS = (0, *ROW_BUCKETS)
REQUEST_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128)
RATIO_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

SHARE_BUCKETS = BOUNDS
DIFFERENCE_BUCKETS = (1e-6, 1e-5, 1e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)

PHASES = ("load", "traffic")
SHED = ("queue", "deadline", "standing")
CONNECTIONS_REFUSED = ("limit", "header_timeout", "body_timeout", "headers_too_large", "malformed", "unread")
STAGES = ("parse", "queue", "pack", "infer", "respond")
SEQUENCES = ("ids", "tags")
PARTS = ("history", "candidates")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a metric is, in one place: the collectors and the README table are made from it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
