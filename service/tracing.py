"""Spans of the requests that are traced, through OpenTelemetry: imported only where traces are asked for.

Whether a request is traced is decided when it arrives. What took how long is measured for every request anyway: the
spans are made of that when they are exported, those of many requests at a time. One by one, between requests of which
few are traced, the same work takes three times as long, as nothing of it is in the core's caches.
"""

import asyncio
import logging
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_SDK_DISABLED
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, format_trace_id

from service import __version__
from service.errors import SettingsError
from service.logs import Ration
from service.notes import Stage, Trace
from service.scorer import Run

FLUSH_S: Final = 2.0  # at the end, for spans that wait; the collector may be gone
SERVICE: Final = "dinserve"  # unless OTEL_SERVICE_NAME says otherwise

_PARENT = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1  # of the flags
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_IDS = RandomIdGenerator()
_QUIET_S = 60.0  # between lines about a collector that cannot be reached

logger = logging.getLogger(__name__)


class Tracing:
    """Decides what is traced, and makes the spans.

    Args:
        processor: gets every request that has ended, and exports it by way of `Spans`.
    """

    def __init__(self, processor: SpanProcessor) -> None:
        ours = Resource.create({"service.name": SERVICE, "service.version": __version__})
        self._processor = processor
        self._resource = _Resource(ours.merge(OTELResourceDetector().detect()))
        self._scope = InstrumentationScope(SERVICE, __version__)
        self._batches: WeakKeyDictionary[Run, SpanContext] = WeakKeyDictionary()

    def sample(self, name: str, traceparent: bytes | None, arrived: float, ratio: float) -> Trace | None:
        """Begin to trace a request that arrived at `arrived` (`time.monotonic()`); None if it is not to be.

        A well-formed `traceparent` decides; one that is not is as none, and then the ratio is the chance.
        """
        found = None if traceparent is None else _PARENT.fullmatch(traceparent)
        if found is None or (found[1] == b"00" and found[5]):
            return _begin(name, None, arrived) if random.random() < ratio else None  # noqa: S311
        if not int(found[4], 16) & _SAMPLED:
            return None
        flags = TraceFlags(int(found[4], 16))
        parent = SpanContext(int(found[2], 16), int(found[3], 16), is_remote=True, trace_flags=flags)
        return _begin(name, parent, arrived)

    def end(
        self,
        trace: Trace,
        attributes: Mapping[str, str | int],
        stages: Iterable[Stage],
        runs: Iterable[Run],
        ended: float,
        *,
        failed: bool,
    ) -> None:
        """Have the spans of a request made: its own, one for each stage, and one for each batch, to which it links."""
        stages, runs = (
            tuple(stages),
            tuple(runs),
        )  # not the request, which may be large and would wait for the collector
        context, epoch = trace.context, _epoch()

        def make() -> Iterator[ReadableSpan]:
            links = []
            for stage in stages:
                times = epoch(stage.started), epoch(stage.ended)
                yield self._span(stage.name, _context(context), *times, parent=context)
            for run in runs:
                batch = self._batches.get(run)
                if batch is None:
                    batch = self._batches[run] = _context(None)  # a trace of its own, as it may have many members
                    yield self._batch(run, batch, epoch)
                links.append(Link(batch))
            yield self._span(
                trace.name,
                context,
                epoch(trace.arrived),
                epoch(ended),
                parent=trace.parent,
                kind=SpanKind.SERVER,
                attributes=attributes,
                links=links,
                status=_ERROR if failed else _UNSET,
            )

        self._processor.on_end(Ended(context, make))

    async def stop(self, longest_s: float) -> None:
        """Send what waits to be sent, for at most `longest_s` seconds, and no longer than `FLUSH_S`."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._processor.shutdown()
            with suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(done.set)

        # No thread of the event loop's own: it would wait for that as long as it takes.
        threading.Thread(target=end, name="last-spans", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), min(longest_s, FLUSH_S))
        except TimeoutError:
            logger.warning("the last spans could not be exported in time")

    def _batch(self, run: Run, context: SpanContext, epoch: Callable[[float], int]) -> ReadableSpan:
        attributes: dict[str, str | int] = {
            "din.engine": run.engine,
            "din.batch.rows": run.rows,
            "din.batch.requests": run.requests,
        }
        ended = run.started + run.pack_s + run.infer_s
        return self._span("batch", context, epoch(run.started), epoch(ended), attributes=attributes)

    def _span(
        self,
        name: str,
        context: SpanContext,
        started: int,
        ended: int,
        *,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
        links: Sequence[Link] = (),
        status: Status = _UNSET,
    ) -> ReadableSpan:
        """Make a span that has ended: a tracer, which makes one that is yet to end, takes fifteen times as long."""
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            links=links,
            kind=kind,
            status=status,
            start_time=started,
            end_time=ended,
            instrumentation_scope=self._scope,
        )


class Ended(ReadableSpan):
    """A request that has ended, as a processor takes it: a span of which it looks at no more than the context.

    Args:
        context: of the request's own span.
        make: its spans.
    """

    def __init__(self, context: SpanContext, make: Callable[[], Iterable[ReadableSpan]]) -> None:
        self._context = context  # all that a span has of what `super().__init__` would set
        self.make = make


class Spans(SpanExporter):
    """Makes the spans of requests that have ended, and passes them on.

    Args:
        exporter: sends them.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans of `Ended`."""
        return self._exporter.export([span for each in spans if isinstance(each, Ended) for span in each.make()])

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is held back: nothing here."""
        return self._exporter.force_flush(timeout_millis)


class _Resource(Resource):
    """A resource that is hashed once: the exporter does it for every span, as JSON, a third of its time."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.attributes, resource.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


def _begin(name: str, parent: SpanContext | None, arrived: float) -> Trace:
    context = _context(parent)
    return Trace(format_trace_id(context.trace_id), name, arrived, context, parent)


def _context(parent: SpanContext | None) -> SpanContext:
    """That of a new span, in the trace of its parent or in a new one."""
    trace_id = _IDS.generate_trace_id() if parent is None else parent.trace_id
    return SpanContext(trace_id, _IDS.generate_span_id(), is_remote=False, trace_flags=TraceFlags(_SAMPLED))


def make_tracing() -> Tracing | None:
    """Trace to where OpenTelemetry's own variables say, OTEL_EXPORTER_OTLP_ENDPOINT and the others.

    None if they say that nothing is to be traced, whatever else is asked for.

    Raises:
        SettingsError: one of them is wrong.
    """
    if os.environ.get(OTEL_SDK_DISABLED, "").strip().lower() == "true":
        return None
    tracing = Tracing(make_processor())
    theirs = logging.getLogger("opentelemetry")
    theirs.handlers, theirs.propagate = [Seldom()], False
    return tracing


def make_processor() -> BatchSpanProcessor:
    """Make what sends spans away, in a thread of its own.

    Raises:
        SettingsError: OpenTelemetry does not take what its variables say.
    """
    try:
        return BatchSpanProcessor(Spans(OTLPSpanExporter()))
    except ValueError as error:
        raise SettingsError(f"an OTEL_ variable is wrong: {error}") from error


class Seldom(logging.Handler):
    """Passes on a line a minute of what OpenTelemetry says for each batch that it cannot deliver."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._ration = Ration(1, _QUIET_S)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass it on, or leave it out."""
        left_out = self._ration.take(time.monotonic())
        if left_out is not None:
            more = f"; lines like this left out: {left_out}" if left_out else ""
            logger.warning("traces: %s%s", record.getMessage(), more)


def _epoch() -> Callable[[float], int]:
    """What turns readings of `time.monotonic()` into nanoseconds since 1970; made anew, as clocks are set."""
    ahead = time.time_ns() - time.monotonic_ns()
    return lambda reading: ahead + round(reading * 1e9)
