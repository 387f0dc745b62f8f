"""The process_* metrics of several workers added up; of one process prometheus_client tells them itself."""

import asyncio
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

_EVERY_S: Final = 1.0
_LEAST = ("process_start_time_seconds", "process_max_fds")  # of which the least is told; others add up


class Processes:
    """This worker's process, told to the others through the files in which all of them keep their metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._source = ProcessCollector(registry=None)
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, Counter] = {}
        self._counted: dict[str, float] = {}
        for family in self._source.collect():
            if family.type == "counter":
                self._counters[family.name] = Counter(family.name, family.documentation, registry=registry)
            else:
                mode: Literal["livemin", "livesum"] = "livemin" if family.name in _LEAST else "livesum"
                self._gauges[family.name] = Gauge(
                    family.name, family.documentation, registry=registry, multiprocess_mode=mode
                )

    async def publish(self) -> None:
        """Tell them every second: any worker may be asked for the metrics of all."""
        while True:
            self.report()
            await asyncio.sleep(_EVERY_S)

    def report(self) -> None:
        """Tell them now."""
        for family in self._source.collect():
            value = family.samples[0].value
            if family.name in self._gauges:
                self._gauges[family.name].set(value)
            else:  # what a worker that is gone has used stays counted
                self._counters[family.name].inc(value - self._counted.get(family.name, 0.0))
                self._counted[family.name] = value
