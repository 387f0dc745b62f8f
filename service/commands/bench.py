"""`dinserve bench`: how a running server does under a steady load."""

import json
import multiprocessing
import random
import signal
import sys
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from service.commands.requests import read_requests
from service.commands.target import Target, targeted
from service.errors import DinserveError

if TYPE_CHECKING:
    from service.commands.figures import Figures
    from service.commands.load import Order, Report

LATE_MS = 1.0  # of the generator itself, at its 99th percentile: beyond, its figures are not the server's
BODIES = 1000  # different ones, sent in turn
_MOST_ID = 250_000
_MOST_TAG = 20
_POSITIVE = click.FloatRange(0, min_open=True)


class GeneratorFailed(DinserveError):
    """The process that sends the requests did not end well."""


@click.command()
@targeted
@click.option("--rate", type=_POSITIVE, default=100.0, show_default=True, help="requests/s, at random times")
@click.option("--seconds", type=click.FloatRange(0, 3600, min_open=True), default=10.0, show_default=True)
@click.option("--candidates", type=click.IntRange(1), default=100, show_default=True, help="in each request")
@click.option("--history", type=click.IntRange(0), default=50, show_default=True, help="entries in each request")
@click.option("--body", type=click.File("r", encoding="utf-8"), help="real requests instead, as `dinserve score` reads")
@click.option("--connections", type=click.IntRange(1, 4096), default=256, show_default=True, help="at most")
@click.option("--timeout", "timeout_s", type=_POSITIVE, default=1.0, show_default=True, metavar="SECONDS")
@click.option("--seed", default=1, show_default=True, help="of bodies and times")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of a table")
def bench(
    target: Target,
    rate: float,
    seconds: float,
    candidates: int,
    history: int,
    body: IO[str] | None,
    connections: int,
    timeout_s: float,
    seed: int,
    as_json: bool,
) -> None:
    """Send requests at a rate, whether or not the server keeps up, and show how long the answers took.

    Latency counts from when a request was due. The generator is one process, good for some thousand requests a second,
    and says when it was late itself. Ctrl-C ends it early.
    """
    from service.client import Client
    from service.commands.figures import Figures
    from service.commands.load import Order

    figures = Figures()

    with Client(target.url, token=target.token, verify=target.context, timeout_s=5) as client:
        served = client.model()
    if body is None:
        chance = random.Random(seed)  # noqa: S311  no secret
        kinds = served.features.id.dtype, served.features.tag.dtype
        bodies = [_draw(chance, history, candidates, kinds) for _ in range(min(BODIES, int(rate * seconds) + 1))]
    else:
        bodies = [json.dumps(request).encode() for _, request in read_requests(body)]
    parts = urlsplit(target.url)
    secure = parts.scheme == "https"
    order = Order(
        host=str(parts.hostname),
        port=parts.port or (443 if secure else 80),
        tls=("settings" if target.context else "system") if secure else "none",
        messages=[to_message(target, each, timeout_s) for each in bodies],
        rate=rate,
        seconds=seconds,
        timeout_s=timeout_s,
        connections=connections,
        seed=seed,
    )
    _run(order, figures, quiet=as_json)
    result = figures.summary(f"{served.name} version {served.version} ({served.engine})", rate)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _show(result)
    if figures.late_ms > LATE_MS:
        late = f"the generator itself was late, by {figures.late_ms:.1f} ms (p99), and the latencies hold that"
        click.echo(f"Warning: {late}: lower the rate, or run it on another machine", err=True)
    sys.exit(not figures.ok)


def _draw(chance: random.Random, history: int, candidates: int, dtypes: tuple[str, str]) -> bytes:
    def columns(count: int) -> dict[str, list[int] | list[str]]:
        drawn = [[chance.randint(1, most) for _ in range(count)] for most in (_MOST_ID, _MOST_TAG)]
        named = zip(("ids", "tags"), drawn, dtypes, strict=True)
        return {name: values if dtype == "int64" else list(map(str, values)) for name, values, dtype in named}

    return json.dumps({"history": columns(history), "candidates": columns(candidates)}).encode()


def to_message(target: Target, body: bytes, timeout_s: float) -> bytes:
    """The whole HTTP request of a body."""
    parts = urlsplit(target.url)
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Deadline-Ms": f"{timeout_s * 1000:g}",
    }
    if target.token is not None:
        headers["Authorization"] = f"Bearer {target.token}"
    lines = [f"POST {parts.path}/score HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def _run(order: "Order", figures: "Figures", *, quiet: bool) -> None:
    """Have a process of its own carry it out, and show how far it is."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from service.commands.load import work

    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    process = spawning.Process(target=work, args=(order, theirs), daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process gets it too, and ends early
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = console.is_terminal and not quiet
    try:
        process.start()
        theirs.close()
        with Progress(*columns, console=console, transient=True, disable=not shown, refresh_per_second=4) as progress:
            task = progress.add_task("starting", total=order.seconds)
            while (report := _hear(ours)) is not None:
                figures.add(report)
                if shown:
                    progress.update(task, completed=figures.seconds, description=_line(figures))
        process.join()
    finally:
        signal.signal(signal.SIGINT, before)
    if process.exitcode:
        raise GeneratorFailed(f"the generator ended with status {process.exitcode}")


def _hear(pipe: Any) -> "Report | None":
    try:
        report: Report | None = pipe.recv()
    except EOFError:  # it ended without a word
        return None
    return report


def _line(figures: "Figures") -> str:
    p99 = figures.latency_ms().get("p99")
    failed = figures.codes.total() - figures.ok
    return f"{figures.sent} sent, {figures.ok} ok, {failed} not" + (f", p99 {p99:.1f} ms" if p99 else "")


def _show(result: dict[str, Any]) -> None:
    from rich.columns import Columns
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("latency", "ms"):
        table.add_column(heading, justify="right")
    for name, value in result["latency_ms"].items():
        table.add_row(name, f"{value:.3f}")
    codes = Table()
    codes.add_column("answers")
    codes.add_column("requests", justify="right")
    for code, count in sorted(result["codes"].items(), key=lambda each: -each[1]):
        codes.add_row(code, str(count), style=None if code == "ok" else "red")
    console = Console(highlight=False)
    console.print(f"{result['server']}: {result['sent']} requests in {result['seconds']:g} s", style="bold")
    console.print(f"{result['ok_per_s']:g} answers/s that are ok, {result['rate']:g} requests/s asked for")
    console.print(Columns((table, codes)))
    if result["waited_for_a_connection"]:
        console.print(f"{result['waited_for_a_connection']} requests waited for a connection", style="yellow")
