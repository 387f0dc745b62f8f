"""One picture of a running server, for `dinserve top`."""

from collections.abc import Iterable, Sequence

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.commands.scrape import Distribution, Interval
from service.spec import STAGES

_BLOCKS = "▁▂▃▄▅▆▇█"
_MS = 1000


def draw(url: str, interval: Interval, rates: Sequence[float]) -> RenderableType:
    """Draw what happened in an interval; `rates` are the requests/s of this one and those before it."""
    after = interval.after
    model = after.labels_of("din_model_info")
    serving = (
        f"{model['name']} version {model['version']} on {model['engine']}" if model else "no version is serving yet"
    )
    head = Text.assemble((url, "bold"), f"  {serving}  the last {interval.seconds:.1f} s")
    tables = (_requests(interval), _stages(interval), _queue(interval), _batches(interval))
    answers = _rates("answers", interval.rates("din_requests_total", "code"), good="ok")
    shed = _rates("shed", interval.rates("din_shed_total", "reason"))
    return Group(head, Text(f"requests/s {sparkline(rates)}"), Columns((*tables, answers, shed), padding=(0, 2)))


def sparkline(values: Sequence[float]) -> str:
    """A bar for each value, the highest of them full."""
    most = max(values, default=0.0)
    return "".join(_BLOCKS[round(value / most * (len(_BLOCKS) - 1)) if most else 0] for value in values)


def _requests(interval: Interval) -> Table:
    took = interval.distribution("din_request_duration_seconds")
    after = interval.after
    return _pairs(
        "requests",
        (
            ("per s", _number(interval.rate("din_requests_total"))),
            ("p50 ms", _quantile(took, 0.5)),
            ("p99 ms", _quantile(took, 0.99)),
            ("in flight", _number(after.gauge("din_in_flight_requests"))),
            ("connections", _number(after.gauge("din_connections"))),
        ),
    )


def _queue(interval: Interval) -> Table:
    after = interval.after
    rows = [
        ("rows", _number(after.gauge("din_queue_rows"))),
        ("wait ms", _number(after.gauge("din_predicted_wait_seconds"), _MS)),
    ]
    if (age := after.gauge("din_queue_age_seconds")) is not None:
        rows.append(("oldest ms", _number(age, _MS)))
    if executors := after.gauge("din_executors"):
        rows.append(("busy %", _number(interval.rate("din_executor_busy_seconds_total") / executors, 100)))
    return _pairs("queue", rows)


def _batches(interval: Interval) -> Table:
    rows = interval.distribution("din_batch_rows")
    return _pairs(
        "batches",
        (
            ("per s", _number(rows.count / interval.seconds)),
            ("rows", _number(rows.mean)),
            ("requests", _number(interval.distribution("din_batch_requests").mean)),
            ("padding %", _number(interval.distribution("din_batch_padding_ratio").mean, 100)),
        ),
    )


def _stages(interval: Interval) -> Table:
    table = Table(title="stages, ms", title_justify="left", box=None)
    for heading in ("", "mean", "p50", "p99"):
        table.add_column(heading, justify="right" if heading else "left")
    for stage in STAGES:
        took = interval.distribution("din_stage_duration_seconds", stage=stage)
        table.add_row(stage, _number(took.mean, _MS), _quantile(took, 0.5), _quantile(took, 0.99))
    return table


def _rates(title: str, rates: dict[str, float], good: str = "") -> Table:
    table = Table(title=f"{title}, per s", title_justify="left", box=None, show_header=False)
    for name, rate in sorted(rates.items(), key=lambda each: -each[1]):
        table.add_row(name, _number(rate), style="red" if rate and name != good else None)
    return table


def _pairs(title: str, rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _quantile(took: Distribution, share: float) -> str:
    """In ms; below the first bound nothing more is known, nor above the last."""
    value = took.quantile(share)
    if value is None:
        return "-"
    first, last = took.buckets[0][0], took.buckets[-2][0]
    if value <= first:
        return f"<{_number(first, _MS)}"
    return f"{'>' if value >= last else ''}{_number(value, _MS)}"


def _number(value: float | None, scale: float = 1) -> str:
    """Three digits, or more before the point; a dash where there is nothing to tell."""
    if value is None:
        return "-"
    scaled = value * scale
    return f"{scaled:,.0f}" if abs(scaled) >= 100 or scaled == int(scaled) else f"{scaled:.3g}"  # noqa: PLR2004
