"""The parts of `score`, `bench` and `top` that ask nobody."""

import asyncio
import io
import json
import math
import subprocess
import sys
from typing import Any, cast

import click
import numpy as np
import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from rich.console import Console

from service.cli import main
from service.client import Scores
from service.commands import bench, frame, load, table
from service.commands.figures import Figures
from service.commands.requests import read_requests
from service.commands.scrape import Distribution, Interval, Scrape
from service.commands.target import Target, find
from service.metrics import Metrics
from service.schema import RESPONSE_EXAMPLE

REQUEST = {"history": {"ids": [7, 8, 9], "tags": [1]}, "candidates": {"ids": [21, 22], "tags": [3, 4]}}


def text_of(drawn: Any) -> str:
    """What a terminal of 120 columns would show."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(drawn)
    return console.export_text()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param('{"a": 1}\n', [(1, {"a": 1})], id="one"),
        pytest.param('\n{"a": 1}\n\n{"b": 2}', [(2, {"a": 1}), (4, {"b": 2})], id="lines"),
        pytest.param('{\n "a":\n 1}\n', [(1, {"a": 1})], id="one-on-several-lines"),
    ],
)
def test_requests_are_read(text: str, found: list[tuple[int, Any]]) -> None:
    """A file is one request, however it is broken into lines, or one a line; blank lines are nothing."""
    assert list(read_requests(text.splitlines(keepends=True))) == found


def test_requests_are_read_as_they_come() -> None:
    """Of a pipe, a request is there before the next line is."""

    def lines() -> Any:
        yield '{"a": 1}\n'
        pytest.fail("the next line was asked for")

    assert next(read_requests(lines())) == (1, {"a": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "there is no request in it", id="empty"),
        pytest.param("[1]", "line 1: a request is a JSON object", id="no-object"),
        pytest.param('{"a": 1}\n{"b": }\n', "line 2: not JSON: Expecting value", id="line"),
        pytest.param('{"a": 1}\n3\n', "line 2: a request is a JSON object", id="line-no-object"),
        pytest.param('\n{\n"a": }\n', "line 3: not JSON: Expecting value", id="within-one"),
    ],
)
def test_wrong_requests_are_told_by_line(text: str, message: str) -> None:
    """What is no request is a usage error that names its line."""
    with pytest.raises(click.BadParameter) as caught:
        list(read_requests(text.splitlines(keepends=True)))
    assert caught.value.message == message


def scores(**more: Any) -> Scores:
    """An answer to `REQUEST`."""
    return Scores.model_validate({**RESPONSE_EXAMPLE, "ranking": None, **more})


def test_candidates_are_shown_best_first() -> None:
    """Without a ranking all candidates are shown by probability, with one only its own."""
    assert table.order(scores()) == [1, 0]
    assert table.order(scores(ranking=[0])) == [0]
    shown = text_of(table.ranked(REQUEST, scores())).splitlines()
    rows = [line.split() for line in shown if "0.7" in line or "0.41" in line]
    assert [row[3] for row in rows if row[1] in {"1", "2"}] == ["22", "21"]
    assert any("din version 1" in line for line in shown)


def test_explanations_are_shown() -> None:
    """With attention, the entry of the kept history that a candidate looked at most is named, and what it was worth."""
    attention = {"candidates": [1], "ids": [[0.2, 0.8]], "tags": [[1.0]], "removed": [1], "without": [0.25]}
    shown = text_of(table.ranked(REQUEST, scores(ranking=[1], attention=attention)))
    assert "9 (80%)" in shown
    assert "0.2500" in shown


def test_table_needs_no_tags() -> None:
    """A request of ids alone, whose tags a catalog has, is shown as well."""
    request = {"history": {"ids": []}, "candidates": {"ids": [21, 22]}}
    assert "22" in text_of(table.ranked(request, scores(attention=None)))


@pytest.mark.parametrize(
    ("content", "code"),
    [(b'{"error": {"code": "overloaded"}}', "overloaded"), (b"<html>", "status 503"), (b"{}", "status 503")],
    ids=["ours", "html", "json"],
)
def test_refusals_are_counted_by_code(content: bytes, code: str) -> None:
    """A refusal counts under the server's code, or under its status when it is somebody else's."""
    assert load.code_of(503, content) == code


class Scrapped:
    """Takes the place of a transport."""

    aborted = False

    def write(self, data: bytes) -> None:
        """Send nothing."""

    def abort(self) -> None:
        """Note it."""
        self.aborted = True


@pytest.mark.parametrize(
    ("pieces", "ends", "usable"),
    [
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 2\r\n\r\n{", b"}"], ["ok"], True, id="pieces"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"], ["ok"], False, id="closing"
        ),
        pytest.param([b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"], ["status 502"], True, id="proxy"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n"], ["no HTTP"], False, id="no-http"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"], [], True, id="unfinished"),
    ],
)
def test_connection_of_a_load_reads_answers(pieces: list[bytes], ends: list[str], usable: bool) -> None:
    """An answer counts once it is whole, however it comes; a connection that is no good is not used again."""
    ended: list[str] = []
    connection = load.Connection(lambda *end: ended.append(end[2]))
    connection.connection_made(cast("asyncio.Transport", Scrapped()))
    connection.send(b"request", 1.0)
    for piece in pieces:
        connection.data_received(piece)
    assert (ended, connection.usable) == (ends, usable)
    connection.connection_lost(None)
    assert ended == (ends or ["lost"])


def test_message_is_a_whole_request() -> None:
    """What the load sends is the request, with the path of the URL, the token and the deadline."""
    message = bench.to_message(Target("http://[::1]:80/ctr", token="t"), b"{}", 0.5)  # noqa: S106
    head, _, body = message.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /ctr/score HTTP/1.1"
    assert {b"Host: [::1]:80", b"Content-Length: 2", b"X-Deadline-Ms: 500", b"Authorization: Bearer t"} < set(
        head.split(b"\r\n")
    )
    assert body == b"{}"


def test_report_is_summarised() -> None:
    """Reports add up to rates, counts and percentiles of good answers; before the first there are none."""
    figures = Figures()
    assert figures.summary("din", 5.0)["ok_per_s"] == 0
    figures.add(load.Report(1.0, 60, [("ok", each / 1000) for each in range(1, 51)], [0.0001] * 60, 3))
    figures.add(
        load.Report(2.0, 110, [("ok", each / 1000) for each in range(51, 101)] + [("lost", 9.0)] * 10, [0.5], 1)
    )
    found = figures.summary("din", 5.0)
    assert (found["sent"], found["ok_per_s"], found["waited_for_a_connection"]) == (110, 50.0, 4)
    assert found["codes"] == {"ok": 100, "lost": 10}
    latency = [found["latency_ms"][each] for each in ("p50", "p99", "max", "mean")]
    assert latency == pytest.approx([50, 99, 100, 50.5], rel=1e-3)
    assert found["generator_late_ms"] == pytest.approx(0.1, rel=1e-3)


class Watched:
    """A server's metrics, and what is seen of them."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())

    def look(self, at: float) -> Scrape:
        """Read them."""
        return Scrape(self.metrics.exposition("")[0].decode(), at)


def test_interval_is_what_happened_in_it() -> None:
    """Rates and distributions are those between two looks, whatever was before."""
    server = Watched()
    for _ in range(1000):
        server.metrics.request("ok", 5.0)
    before = server.look(10.0)
    for _ in range(8):
        server.metrics.request("ok", 0.0015)
    for _ in range(2):
        server.metrics.request("overloaded", 0.02)
    interval = Interval(before, server.look(14.0))
    assert interval.rates("din_requests_total", "code") == {"ok": 2.0, "overloaded": 0.5}
    assert interval.rate("din_requests_total") == 2.5
    took = interval.distribution("din_request_duration_seconds")
    assert took.count == 10
    assert took.mean == pytest.approx(0.0052)
    assert took.quantile(0.4) == pytest.approx(0.0015)
    assert took.quantile(0.9) == pytest.approx(0.02)


def test_restarted_server_counts_from_zero() -> None:
    """Counters that went back belong to a new process: all they say is new."""
    server = Watched()
    for _ in range(9):
        server.metrics.request("ok", 1.0)
    before, again = server.look(0.0), Watched()
    again.metrics.request("ok", 1.0)
    assert Interval(before, again.look(1.0)).rate("din_requests_total") == 1.0


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [
        pytest.param(((1.0, 0.0), (2.0, 10.0), (math.inf, 10.0)), 0.5, 1.5, id="between"),
        pytest.param(((1.0, 0.0), (2.0, 5.0), (math.inf, 10.0)), 0.9, 2.0, id="beyond-the-last-bound"),
        pytest.param(((1.0, 4.0), (math.inf, 4.0)), 1.0, 1.0, id="all"),
        pytest.param(((1.0, 0.0), (math.inf, 0.0)), 0.5, None, id="nothing"),
        pytest.param((), 0.5, None, id="no-histogram"),
    ],
)
def test_quantile_is_prometheus(buckets: tuple[tuple[float, float], ...], share: float, value: float | None) -> None:
    """Quantiles are interpolated within a bucket; there is none of nothing, and none beyond the last bound."""
    assert Distribution(buckets, 0.0).quantile(share) == value


def test_frame_shows_what_happened() -> None:
    """A picture has the model, rates, quantiles, stages, queue, batches, codes and what was shed."""
    server = Watched()
    before = server.look(0.0)
    server.metrics.model("din", "7", "native")
    for _ in range(300):
        server.metrics.request("ok", 0.0015)
    server.metrics.shed("queue")
    stages_s = 0.0001, 0.0002, 0.0003, 0.004, 0.0005
    server.metrics.request("ok", 0.0015, (1, 2, 3), ("7", "serving", 0.001, stages_s, np.zeros(1, np.float32)))
    server.metrics.batch("native", 96, 2, 0.25, 0)
    server.metrics.queue(41, 0.0123, 0.004)
    shown = text_of(frame.draw("http://server", Interval(before, server.look(2.0)), [75.0, 150.0]))
    for said in ("http://server", "din version 7 on native", "150", "<0.5", "12.3", "41", "96", "25", "infer", "▅█"):
        assert said in shown


def test_frame_of_a_server_without_a_version() -> None:
    """A server that has nothing to serve yet, and has done nothing, can be looked at too."""
    look = Watched().look(0.0)
    shown = text_of(frame.draw("http://server", Interval(look, look), []))
    assert "no version is serving yet" in shown


def test_text_that_is_no_exposition_is_an_error() -> None:
    """A page of something else is refused."""
    with pytest.raises(ValueError, match=r"."):
        Scrape("<html><body class='a'>no</body></html>", 0.0)


@pytest.mark.parametrize("values", [[], [0.0, 0.0]])
def test_sparkline_of_nothing_is_flat(values: list[float]) -> None:
    """Where nothing happened the line is at the bottom."""
    assert frame.sparkline(values) == "▁" * len(values)


def test_target_is_what_the_environment_describes(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without a URL the settings name the server; they have the token in any case."""
    monkeypatch.setenv("DIN_PORT", "9000")
    (tmp_path / "tokens").write_text("# ours\nsixteen-letters-or-more\n")
    monkeypatch.setenv("DIN_TOKEN_FILE", str(tmp_path / "tokens"))
    assert find(None) == Target("http://127.0.0.1:9000", "sixteen-letters-or-more")
    assert find("http://other/").url == "http://other"


@pytest.mark.parametrize("command", ["score", "bench", "top"])
def test_wrong_url_is_a_usage_error(command: str) -> None:
    """What is no URL is refused with exit status 2, before anything is asked."""
    done = CliRunner().invoke(main, [command, "--url", "127.0.0.1:8000"], input=json.dumps(REQUEST))
    assert done.exit_code == 2
    assert "is no URL of a server, such as http://" in done.stderr


@pytest.mark.parametrize(("command", "missing"), [("score", "httpx2"), ("bench", "hdrh"), ("top", "rich")])
def test_missing_extra_is_named(command: str, missing: str) -> None:
    """A command whose extra is not installed says which one it is, in one line."""
    code = f"import sys; sys.modules[{missing!r}] = None; from service.cli import main; main([{command!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, input="{}", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: this command needs {missing}: pip install 'dinserve[tools]'\n",
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell: str) -> None:
    """Each shell gets a script for `dinserve`, and where it goes."""
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_DINSERVE_COMPLETE" in done.stdout
    assert f"dinserve completion {shell}" in done.stdout.splitlines()[-1]


def test_unknown_command_suggests_one() -> None:
    """A slip of the keyboard is answered with what was probably meant."""
    done = CliRunner().invoke(main, ["scroe"])
    assert done.exit_code == 2
    assert "Did you mean 'score'?" in done.stderr
