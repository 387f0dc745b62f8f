"""Every collector of the service in one object; its callers report events and never see Prometheus."""

import importlib.metadata
import platform
from contextlib import suppress
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from service import __version__
from service.collectors import Count, Drift, Facts, Spread, Tally, Versions, make_ledger, several
from service.ledgers import Ledger
from service.spec import CONNECTIONS_REFUSED, PARTS, PHASES, SEQUENCES, SHED, STAGES
from service.specs import MODES, SPEC, SPECS

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter and histogram, unread


# What is counted of a request that was scored: the version and its role (`serving` or `canary`), seconds from when it
# arrived until it was scored, those of each of `STAGES`, and the probabilities (C,). Plain: a named one takes longer.
Answered: TypeAlias = tuple[str, str, float, tuple[float, float, float, float, float], NDArray[np.float32]]


class Metrics:
    """The collectors, registered in `registry`; hot label children are bound once.

    `exposed` is what is read instead, where several processes' metrics are added up.
    """

    def __init__(self, registry: CollectorRegistry, exposed: CollectorRegistry | None = None) -> None:
        self._registry = registry
        self._drift = Drift(exposed or registry, SPEC["din_score_drift_psi"].help)
        self._requests = self._count("din_requests_total")
        self._duration = self._tally("din_request_duration_seconds")
        self._codes: dict[str, Ledger] = {}
        stages = self._tally("din_stage_duration_seconds")
        self._stages = [stages.labels(stage) for stage in STAGES]
        lengths = self._tally("din_history_length")
        shape = [self._tally("din_request_candidates"), *[lengths.labels(sequence) for sequence in SEQUENCES]]
        self._asked = make_ledger(shape)
        self._batch = [self._tally(f"din_batch_{each}") for each in ("rows", "requests", "padding_ratio")]
        self._in_flight = self._gauge("din_in_flight_requests")
        self.here = 0  # requests in flight; callers count, as a call takes longer
        if not several():
            self._in_flight.set_function(lambda: self.here)
        self._connections = self._gauge("din_connections")
        ended = self._counter("din_connections_refused_total")
        self._connections_refused = {reason: ended.labels(reason) for reason in CONNECTIONS_REFUSED}
        self._queue_rows = self._gauge("din_queue_rows")
        self._queue_age_s = self._gauge("din_queue_age_seconds")
        self._wait_s = self._gauge("din_predicted_wait_seconds")
        self._executors = self._gauge("din_executors")
        self._busy = self._counter("din_executor_busy_seconds_total")
        self._busy_s = 0.0  # counted there
        shed = self._count("din_shed_total")
        self._shed = {reason: make_ledger([], shed.labels(reason)) for reason in SHED}
        self._truncated = self._counter("din_history_truncated_total")
        self._empty = self._counter("din_empty_histories_total")
        self._model_info = self._gauge("din_model_info")
        self._model: Gauge | None = None
        self._batches = self._count("din_batches_total")
        self._engines: dict[str, Ledger] = {}
        self._fallbacks = self._counter("din_engine_fallbacks_total")
        compilations = self._counter("din_compilations_total")
        self._compilations = {phase: compilations.labels(phase) for phase in PHASES}
        self._loads = self._counter("din_version_loads_total")
        self._by_version = Versions(
            self._tally("din_version_duration_seconds"),
            self._tally("din_shadow_difference"),
            self._spread("din_probability"),
            Facts(
                self._gauge("din_model_created_timestamp_seconds"),
                self._gauge("din_model_loaded_timestamp_seconds"),
                self._gauge("din_training_click_ratio"),
            ),
            self._drift,
            [self._duration, *shape, *self._stages],
            self._requests.labels("ok"),
        )
        self._shadow = self._counter("din_shadow_requests_total")
        self._ready_s = self._gauge("din_ready_seconds")
        self._load_s = self._gauge("din_load_seconds")
        self._load_memory = self._gauge("din_load_memory_bytes")
        checked, unseen = self._counter("din_ids_checked_total"), self._counter("din_ids_unseen_total")
        self._ids = {part: (checked.labels(part), unseen.labels(part)) for part in PARTS}
        self._gauge("din_build_info").labels(**_build()).set(1)
        self._catalog_items = self._gauge("din_catalog_items")
        read = self._counter("din_catalog_loads_total")
        self._catalog_loads = {result: read.labels(result) for result in ("loaded", "refused")}
        self._unknown_ids = self._counter("din_catalog_unknown_ids_total")

    @staticmethod
    def table() -> list[tuple[str, str, tuple[str, ...], str]]:
        """Name, type, labels and help of every metric, for the README."""
        return [(spec.name, spec.kind, spec.labels, spec.help) for spec in SPECS]

    def connected(self) -> None:
        """A connection was opened."""
        self._connections.inc()

    def disconnected(self) -> None:
        """A connection was closed, by whomever."""
        self._connections.dec()

    def connection_refused(self, reason: str) -> None:
        """A connection is closed by the server, for one of `CONNECTIONS_REFUSED`."""
        self._connections_refused[reason].inc()

    def request(
        self,
        code: str,
        duration_s: float,
        shape: tuple[int, ...] = (),
        answered: Answered | None = None,
        exemplar: dict[str, str] | None = None,
    ) -> None:
        """A request ended.

        Args:
            code: `ok`, an error code, or `client_closed`.
            duration_s: since it arrived.
            shape: its candidates, and its history's lengths in the order of `SEQUENCES`, if it was parsed.
            answered: if it was scored.
            exemplar: names its trace.
        """
        stages_s: tuple[float, ...] = ()
        if answered is not None:
            version, role, took_s, stages_s, probabilities = answered
            self._by_version.ledger(version, role).add((took_s, duration_s, *shape, *stages_s), probabilities)
        else:
            (self._codes.get(code) or self._of_code(code)).add((duration_s,))
            if shape:
                self._asked.add(shape)
        if exemplar is not None:
            for child, each_s in zip((self._duration, *self._stages), (duration_s, *stages_s), strict=False):
                child.mark(each_s, exemplar)

    def shed(self, reason: str) -> None:
        """A request was refused as overloaded, for one of `SHED`."""
        self._shed[reason].add(())

    def queue(self, rows: int, wait_s: float, age_s: float) -> None:
        """So many candidates wait now, a request that arrives now should wait so long, and the oldest has waited so."""
        self._queue_rows.set(rows)
        self._wait_s.set(wait_s)
        self._queue_age_s.set(age_s)

    def executors(self, count: int) -> None:
        """So many batches run at once."""
        self._executors.set(count)

    def busy(self, seconds: float) -> None:
        """The executors have been at work for so long in all, each counted, since they started."""
        self._busy.inc(max(0.0, seconds - self._busy_s))
        self._busy_s = seconds

    def history(self, *, truncated: bool, empty: bool) -> None:
        """A request's history is longer than what the model reads, or empty."""
        self._truncated.inc(truncated)
        self._empty.inc(empty)

    def loaded(
        self, ready_s: float | None, load_s: float, memory_bytes: int, compilations: int, *, fallback: bool = False
    ) -> None:
        """A version is ready: since the process started, if it is the first, and what loading it took."""
        self._loads.labels("loaded").inc()
        self._fallbacks.inc(fallback)
        if ready_s is not None:
            self._ready_s.set(ready_s)
        self._load_s.set(load_s)
        self._load_memory.set(memory_bytes)
        self._compilations["load"].inc(compilations)

    def version(
        self,
        version: str,
        loaded_s: float,
        created_s: float | None,
        click_ratio: float | None,
        shares: tuple[float, ...] | None,
    ) -> None:
        """A version is ready, loaded and made at these Unix times; of training: its clicks, and its scores by bin."""
        self._by_version.loaded(version, (created_s, loaded_s, click_ratio), shares)

    def ids(self, part: str, checked: int, unseen: int) -> None:
        """So many ids of one of `PARTS` were looked up, and so many of them training never met."""
        for counter, count in zip(self._ids[part], (checked, unseen), strict=True):
            counter.inc(count)

    def refused(self) -> None:
        """A version has failed its checks."""
        self._loads.labels("refused").inc()

    def count(self) -> None:
        """Count what waits to be counted, so that other processes may read it."""
        self._by_version.count()
        self._in_flight.set(self.here)

    def shadow(self, outcome: str) -> None:
        """A request of the shadow's share was `compared`, `skipped` or `failed`."""
        self._shadow.labels(outcome).inc()

    def compared(self, version: str, took_s: float, probabilities: NDArray[np.float32], difference: float) -> None:
        """A shadow computed probabilities (C,), in the mean so far from those of the version that answered."""
        self.shadow("compared")
        self._by_version.differed(version, difference)
        self._by_version.ledger(version, "shadow").add((took_s,), probabilities)

    def catalog(self, items: int | None) -> None:
        """The catalog was read and has as many items; None: its file is none."""
        self._catalog_loads["refused" if items is None else "loaded"].inc()
        if items is not None:
            self._catalog_items.set(items)

    def unknown_ids(self, number: int) -> None:
        """So many ids of a request have no tag in the catalog."""
        self._unknown_ids.inc(number)

    def batch(self, engine: str, rows: int, requests: int, padding: float, compilations: int) -> None:
        """An engine ran a batch, and compiled as many programs first."""
        ledger = self._engines.get(engine)
        if ledger is None:
            ledger = self._engines[engine] = make_ledger(self._batch, self._batches.labels(engine))
        ledger.add((rows, requests, padding))
        if compilations:
            self._compilations["traffic"].inc(compilations)

    def model(self, name: str, version: str, engine: str) -> None:
        """This version is serving now."""
        serving = self._model_info.labels(name, version, engine)
        if self._model is not None and self._model is not serving:
            self._model.set(0)  # not removed: several processes cannot agree on a removal
        serving.set(1)
        self._model = serving

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics as text and its content type, in the format that the Accept header prefers."""
        self._by_version.count()  # what is read from files, too, where several processes are
        encode, content_type = choose_encoder(accept)
        return encode(self._drift), content_type

    def _of_code(self, code: str) -> Ledger:
        ledger = self._codes[code] = make_ledger([self._duration], self._requests.labels(code))
        return ledger

    def _count(self, name: str) -> Count:
        spec = SPEC[name]
        return Count(name, spec.help, spec.labels, registry=self._registry)

    def _counter(self, name: str) -> Counter:
        spec = SPEC[name]
        return Counter(name, spec.help, spec.labels, registry=self._registry)

    def _gauge(self, name: str) -> Gauge:
        spec = SPEC[name]
        return Gauge(name, spec.help, spec.labels, registry=self._registry, multiprocess_mode=MODES[name])

    def _spread(self, name: str) -> Spread:
        spec = SPEC[name]
        return Spread(name, spec.help, spec.labels, registry=self._registry, buckets=spec.buckets)

    def _tally(self, name: str) -> Tally:
        spec = SPEC[name]
        return Tally(name, spec.help, spec.labels, registry=self._registry, buckets=spec.buckets)


def _build() -> dict[str, str]:
    """What runs: the labels of din_build_info."""
    found = dict.fromkeys(("tensorflow", "tensorflow-cpu", "prometheus-client"), "")
    for name in found:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "tensorflow": found["tensorflow"] or found["tensorflow-cpu"],
        "prometheus": found["prometheus-client"],
        "machine": platform.machine(),
    }
