"""Which requests are traced, and the spans that are made of measured times."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from service.notes import Stage
from service.scorer import Run
from service.tracing import Seldom, Spans, Tracing, make_tracing
from tests.collector import PARENT, TRACE, kept, traceparent

pytestmark = pytest.mark.anyio


@pytest.fixture
def theirs() -> Iterator[logging.Logger]:
    """OpenTelemetry's logger, as it was."""
    logger = logging.getLogger("opentelemetry")
    before = logger.handlers, logger.propagate
    yield logger
    logger.handlers, logger.propagate = before


def finish(tracing: Tracing, *runs: Run, failed: bool = False) -> None:
    """Trace a request that took ten seconds, from 10 to 20."""
    trace = tracing.sample("POST /score", traceparent().encode(), 10.0, 0.0)
    assert trace is not None
    tracing.end(trace, {"din.request_id": "one"}, [Stage("parse", 11.0, 12.5)], runs, 20.0, failed=failed)


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Those that have ended."""
    return [span for span in spans.get_finished_spans() if span.name == name]


@pytest.mark.parametrize(
    ("header", "ratio", "traced"),
    [
        pytest.param(traceparent(), 0.0, TRACE, id="sampled"),
        pytest.param(traceparent(sampled=False), 1.0, None, id="not-sampled"),
        pytest.param(f"00-{TRACE}-{PARENT}-03", 0.0, TRACE, id="more-flags"),
        pytest.param(f"00-{TRACE}-{PARENT}-02", 1.0, None, id="other-flags"),
        pytest.param(f"cc-{TRACE}-{PARENT}-01-later", 0.0, TRACE, id="later-version"),
        pytest.param(None, 0.0, None, id="none-of-none"),
        pytest.param(None, 1.0, "new", id="all-of-none"),
    ],
)
def test_parent_decides_else_the_ratio(header: str | None, ratio: float, traced: str | None) -> None:
    """A caller's decision is followed, and without one the ratio decides."""
    trace = kept()[0].sample("POST /score", None if header is None else header.encode(), 1.0, ratio)
    assert (trace is not None) == (traced is not None)
    if trace is not None:
        assert (trace.id == TRACE) == (traced == TRACE)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff", id="bytes"),
        pytest.param(f"ff-{TRACE}-{PARENT}-01".encode(), id="version-ff"),
        pytest.param(f"00-{TRACE}-{PARENT}-01-more".encode(), id="too-long"),
        pytest.param(f"00-{TRACE.upper()}-{PARENT}-01".encode(), id="upper-case"),
        pytest.param(f"00-{'0' * 32}-{PARENT}-01".encode(), id="no-trace"),
        pytest.param(f"00-{TRACE}-{'0' * 16}-01".encode(), id="no-span"),
        pytest.param(f"00-{TRACE}-{PARENT}-01\n".encode(), id="line-break"),
    ],
)
def test_malformed_parent_is_as_none(header: bytes) -> None:
    """What is no traceparent neither names a parent nor decides."""
    assert kept()[0].sample("POST /score", header, 1.0, 0.0) is None
    trace = kept()[0].sample("POST /score", header, 1.0, 1.0)
    assert trace is not None
    assert trace.parent is None


def test_ratio_is_a_share() -> None:
    """About a tenth of those without a parent are traced."""
    tracing, _ = kept()
    traced = sum(tracing.sample("POST /score", None, 1.0, 0.1) is not None for _ in range(5000))
    assert 350 < traced < 650


def test_spans_have_the_measured_times() -> None:
    """Spans lie where the monotonic clock says, on the clock on the wall, the stages below the request's own."""
    tracing, spans = kept()
    finish(tracing)
    (parse,), (root,) = named(spans, "parse"), named(spans, "POST /score")
    assert root.start_time
    assert abs(root.start_time - (time.time_ns() - time.monotonic_ns() + 10 * 10**9)) < 10**9
    offsets = [(span.start_time or 0) - root.start_time for span in (parse, root)]
    lengths = [(span.end_time or 0) - (span.start_time or 0) for span in (parse, root)]
    assert [round(each / 1e6) for each in (*offsets, *lengths)] == [1000, 0, 1500, 10_000]
    assert parse.parent == root.context
    assert root.parent is not None
    assert (f"{root.parent.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    assert root.kind is SpanKind.SERVER
    assert root.attributes == {"din.request_id": "one"}


def test_failure_is_the_spans_status() -> None:
    """The span of a request that the server failed is an error; another's has no status."""
    tracing, spans = kept()
    finish(tracing)
    finish(tracing, failed=True)
    assert [span.status.is_unset for span in named(spans, "POST /score")] == [True, False]


def test_members_link_to_their_batches() -> None:
    """Members of one batch link to one span, and a request in several batches links to each, in order."""
    tracing, spans = kept()
    one, other = Run("fake", 12, 2, 13.0, 1.0, 2.0), Run("fake", 5, 1, 14.0, 1.0, 2.0)
    finish(tracing, one, other)
    finish(tracing, one)
    batches = named(spans, "batch")
    assert [span.attributes for span in batches] == [
        {"din.engine": "fake", "din.batch.rows": 12, "din.batch.requests": 2},
        {"din.engine": "fake", "din.batch.rows": 5, "din.batch.requests": 1},
    ]
    first, second = [span.context for span in batches]
    links = [[link.context for link in span.links] for span in named(spans, "POST /score")]
    assert links == [[first, second], [first]]
    assert [span.parent for span in batches] == [None, None]


def test_spans_are_made_when_they_are_exported() -> None:
    """At a request's end nothing is made of it, and those of many requests are exported at once, in order."""
    held: list[ReadableSpan] = []
    tracing, spans = Tracing(Stuck(held)), InMemorySpanExporter()
    finish(tracing)
    finish(tracing, Run("fake", 12, 2, 13.0, 1.0, 2.0))
    assert len(held) == 2
    assert all(span.context is not None and span.context.trace_flags.sampled for span in held)
    Spans(spans).export(held)
    assert [span.name for span in spans.get_finished_spans()] == [
        "parse",
        "POST /score",
        "parse",
        "batch",
        "POST /score",
    ]


def test_batch_is_forgotten_with_its_members() -> None:
    """Nothing is kept of a batch whose members have gone."""
    tracing, _ = kept()
    finish(tracing, Run("fake", 12, 2, 13.0, 1.0, 2.0))
    assert len(tracing._batches) == 0


def test_sdk_that_is_disabled_traces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With OTEL_SDK_DISABLED no request is traced, whatever is asked for."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert make_tracing() is None


class Stuck(SpanProcessor):
    """Holds what has ended, and does not end before it may."""

    def __init__(self, held: list[ReadableSpan] | None = None) -> None:
        self.held = [] if held is None else held
        self.may_end = threading.Event()
        self.ended = False

    def on_end(self, span: ReadableSpan) -> None:
        """Take it."""
        self.held.append(span)

    def on_start(self, span: Span, parent_context: object = None) -> None:
        """Take it."""

    def shutdown(self) -> None:
        """Wait."""
        self.may_end.wait()
        self.ended = True


async def test_end_waits_for_the_last_spans() -> None:
    """Stopping returns when the spans have been sent."""
    stuck = Stuck()
    stuck.may_end.set()
    await Tracing(stuck).stop(10)
    assert stuck.ended


async def test_end_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A collector that does not take the last spans costs no more than the time for that, and is logged."""
    stuck = Stuck()
    await Tracing(stuck).stop(0.05)
    assert not stuck.ended
    assert [each.message for each in caplog.records] == ["the last spans could not be exported in time"]
    stuck.may_end.set()
    (last,) = [each for each in threading.enumerate() if each.name == "last-spans"]
    await asyncio.to_thread(last.join)


async def test_opentelemetry_says_what_fails_once_a_minute(
    theirs: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    """Of its many lines about a collector that is down one a minute is logged, under our name."""
    tracing = make_tracing()
    assert tracing is not None
    for _ in range(3):
        logging.getLogger("opentelemetry.exporter").error("it is down")
    assert [(each.name, each.message) for each in caplog.records] == [("service.tracing", "traces: it is down")]
    await tracing.stop(10)


def test_lines_left_out_are_counted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The line after a minute says how many there were meanwhile."""
    now = iter([0.0, 1.0, 2.0, 61.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    seldom = Seldom()
    for _ in range(4):
        seldom.handle(logging.LogRecord("x", logging.ERROR, "x.py", 1, "down", (), None))
    assert [each.message for each in caplog.records] == ["traces: down", "traces: down; lines like this left out: 2"]
