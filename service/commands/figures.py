"""The figures of a load: latencies in HDR histograms, answers by code."""

from collections import Counter
from typing import Any

from hdrh.histogram import HdrHistogram

from service.commands.load import Report

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)
_LONGEST_US = 3_600_000_000
_DIGITS = 3  # of a value that are exact


class Figures:
    """Adds up reports."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sent = 0
        self.waited = 0
        self.codes: Counter[str] = Counter()
        self._latency_us = HdrHistogram(1, _LONGEST_US, _DIGITS)
        self._late_us = HdrHistogram(1, _LONGEST_US, _DIGITS)

    def add(self, report: Report) -> None:
        """Take one more."""
        self.seconds, self.sent = report.seconds, report.sent
        self.waited += report.waited
        for code, took_s in report.ended:
            self.codes[code] += 1
            if code == "ok":
                self._latency_us.record_value(_us(took_s))
        for late_s in report.late_s:
            self._late_us.record_value(_us(late_s))

    @property
    def ok(self) -> int:
        """Good answers."""
        return self.codes["ok"]

    @property
    def late_ms(self) -> float:
        """What the generator was late itself, p99."""
        return float(self._late_us.get_value_at_percentile(99)) / 1000

    def latency_ms(self) -> dict[str, float]:
        """Percentiles and mean of good answers; empty: there were none. Takes milliseconds."""
        if not self.ok:
            return {}
        found = {_name(each): self._latency_us.get_value_at_percentile(each) / 1000 for each in PERCENTILES}
        return {**found, "mean": round(self._latency_us.get_mean_value() / 1000, 3)}

    def summary(self, server: str, rate: float) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "server": server,
            "rate": rate,
            "seconds": round(self.seconds, 3),
            "sent": self.sent,
            "ok_per_s": round(self.ok / self.seconds, 1) if self.seconds else 0.0,
            "codes": dict(self.codes),
            "latency_ms": self.latency_ms(),
            "generator_late_ms": self.late_ms,
            "waited_for_a_connection": self.waited,
        }


def _us(seconds: float) -> int:
    return min(max(1, round(seconds * 1e6)), _LONGEST_US)


def _name(percentile: float) -> str:
    return "max" if percentile == 100 else f"p{percentile:g}"  # noqa: PLR2004
