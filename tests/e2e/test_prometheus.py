"""The real Prometheus, with the project's own rules, over a real server whose every metric is moved."""

import json
import math
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service import artifact
from tests.image import ROOT
from tests.loads import TOKEN, admin
from tests.monitoring import Prometheus, dashboard, expressions, panels, rules, run_prometheus, substitute
from tests.servers import Server, run_server

COMMITTED = ROOT / "model_artifacts" / "din"
CALLERS = 8
PAUSE_S = 0.02  # between two requests of a caller: the load is for all kinds of answers, not for capacity
LONGEST_S = 120.0
REFUSED = "din_version_loads_total{result='refused'}"


def body(candidates: int, history: int, first: int = 1) -> bytes:
    """A request."""
    ids = [first + i for i in range(max(candidates, history))]
    tags = [1 + i % 19 for i in range(max(candidates, history))]
    columns = {"candidates": candidates, "history": history}
    return json.dumps({name: {"ids": ids[:size], "tags": tags[:size]} for name, size in columns.items()}).encode()


# What is sent in turn, with which header: a usual one, an empty history, one too long, strangers, one whose tags the
# catalog should have, a mistake; then so many candidates that the queue is full, that the wait would be too long, or
# that the time runs out.
REQUESTS: list[tuple[bytes, dict[str, str]]] = [
    (body(50, 20), {}),
    (body(10, 0), {}),
    (body(100, 80), {}),
    (body(50, 20, first=10**9), {}),
    (b'{"history": {"ids": [1]}, "candidates": {"ids": [1, 2]}}', {}),
    (b'{"history": 1}', {}),
    (body(2000, 50), {}),
    (body(2000, 50), {}),
    (body(2000, 50), {"X-Deadline-Ms": "20"}),
    (body(2000, 50), {"X-Deadline-Ms": "1"}),
]


@dataclass
class Load:
    """What the callers saw."""

    codes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


@contextmanager
def load(server: Server) -> Iterator[Load]:
    """Ask the server all kinds of things while the block runs; all answers have arrived when it is over."""
    seen, ended, lock = Load(), threading.Event(), threading.Lock()

    def call(number: int) -> None:
        with httpx2.Client(base_url=server.url, timeout=10) as client:
            at = number
            while not ended.wait(PAUSE_S):
                content, headers = REQUESTS[at % len(REQUESTS)]
                started = time.monotonic()
                answer = client.post("/score", content=content, headers={"Content-Type": "application/json", **headers})
                spent_s = time.monotonic() - started
                with lock:
                    seen.codes["ok" if answer.is_success else answer.json()["error"]["code"]] += 1
                    seen.slowest_s = max(seen.slowest_s, spent_s)
                at += 1

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(call, number) for number in range(CALLERS)]
        try:
            yield seen
        finally:
            ended.set()
    for caller in callers:
        caller.result()


@dataclass
class Watched:
    """A Prometheus that has watched a server under load, and what the load was."""

    prometheus: Prometheus
    load: Load
    empty: dict[str, str]  # what the panels ask and get no answer to


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server with a serving version, a canary that is also the shadow, and one that is refused; all kinds of load."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "items.csv").write_text("id,tag\n1,3\n")
    model_dir = shutil.copytree(COMMITTED, folder / "din")
    renumber(model_dir / "1", "2")
    settings: dict[str, Any] = {
        "poll_s": 0.5,
        "admin_token": TOKEN,
        "executors": 1,
        "max_queue_rows": 4000,
        "trace_ratio": 0.5,
        "catalog": folder / "items.csv",
    }
    with (
        run_server(folder / "log", model_dir, **settings) as server,
        run_prometheus(folder / "prometheus", server.port) as prometheus,
    ):
        for share in ("canary", "shadow"):
            assert admin(server, "PUT", share, {"version": "1", "percent": 40}).status_code == 200
        (model_dir / "3").mkdir()
        with load(server) as seen:
            empty = until_answered(prometheus)
        until_scraped(prometheus, sum(seen.codes.values()))
        yield Watched(prometheus, seen, empty)


def renumber(folder: Path, version: str) -> None:
    """Copy a version beside itself, as another."""
    manifest = artifact.read_manifest(folder)
    copied = shutil.copytree(folder, folder.with_name(version))
    artifact.write_manifest(copied, manifest.model_copy(update={"version": version}))


def until_answered(prometheus: Prometheus) -> dict[str, str]:
    """Wait until every query of the dashboard has an answer; those that have none in the end."""
    queries = {**expressions(), **{name: name for name in ("din_requests_total{code='deadline_exceeded'}", REFUSED)}}
    queries |= {reason: f"din_shed_total{{reason='{reason}'}} > 0" for reason in ("queue", "deadline")}
    started = time.monotonic()
    while queries and time.monotonic() - started < LONGEST_S:
        time.sleep(1)  # a scrape more
        queries = {name: query for name, query in queries.items() if not numbers(prometheus.query(query))}
    return queries


def until_scraped(prometheus: Prometheus, requests: int) -> None:
    """Wait until so many requests have been counted."""
    started = time.monotonic()
    while prometheus.value("sum(din_requests_total)") < requests and time.monotonic() - started < LONGEST_S:
        time.sleep(0.2)


def numbers(series: list[dict[str, Any]]) -> list[float]:
    """The values that are some."""
    return [value for each in series if not math.isnan(value := float(each["value"][1]))]


def test_no_panel_is_empty(watched: Watched) -> None:
    """Every query of the dashboard gets a number from a server that has seen everything."""
    assert watched.empty == {}


def test_requests_are_counted_as_they_were_answered(watched: Watched) -> None:
    """Prometheus tells of as many requests of each outcome as the callers had."""
    found = {each["metric"]["code"]: float(each["value"][1]) for each in watched.prometheus.query("din_requests_total")}
    assert found == watched.load.codes
    assert found.keys() == {"ok", "invalid_request", "overloaded", "deadline_exceeded"}


def test_rate_percentile_and_version_are_told(watched: Watched) -> None:
    """The rate adds up over the outcomes, the 99th percentile is no more than the slowest answer, version 2 serves."""
    ask = watched.prometheus
    assert ask.value("sum(job_code:din_requests:rate5m)") > 1
    p50, p99 = (ask.value(f"job:din_request_duration_seconds:{each}") for each in ("p50", "p99"))
    bound = min(bound for bound in (*bounds(ask), math.inf) if bound >= watched.load.slowest_s)
    assert 0 < p50 < p99 <= bound
    (serving,) = ask.query("din_model_info == 1")
    assert (serving["metric"]["name"], serving["metric"]["version"]) == ("din", "2")
    roles = {
        (each["metric"]["version"], each["metric"]["role"]) for each in ask.query("din_version_duration_seconds_count")
    }
    assert roles == {("2", "serving"), ("1", "canary"), ("1", "shadow")}


def bounds(prometheus: Prometheus) -> list[float]:
    """The upper bounds of the request time's buckets, in order."""
    found = prometheus.query("din_request_duration_seconds_bucket")
    return sorted(float(each["metric"]["le"]) for each in found)


def test_error_ratio_is_of_our_failures(watched: Watched) -> None:
    """What is recorded as the share that was not answered lies between none and all, in every window alike."""
    ours = watched.load.codes["overloaded"] + watched.load.codes["deadline_exceeded"]
    expected = ours / (ours + watched.load.codes["ok"])
    for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"):
        assert watched.prometheus.value(f"job:din_errors:ratio_rate{window}") == pytest.approx(expected, abs=0.1)


def test_no_rule_is_in_error(watched: Watched) -> None:
    """Prometheus has evaluated every rule, and none failed."""
    found = [rule for group in watched.prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(found) == len(rules())
    assert {(rule["health"], rule.get("lastError", "")) for rule in found} == {("ok", "")}


def test_refused_version_is_an_alert(watched: Watched) -> None:
    """The refused version and the failures give alerts; that the server is up and ready gives none."""
    firing = watched.prometheus.query("ALERTS{alertstate='firing'}")
    alerts = {each["metric"]["alertname"] for each in firing}
    assert {"DinserveVersionRefused", "DinserveBudgetBurnsFast"} <= alerts
    assert alerts.isdisjoint({"DinserveDown", "DinserveAbsent", "DinserveNotReady", "DinserveCompiles"})


def test_variables_have_values(watched: Watched) -> None:
    """What is chosen from at the top of the dashboard is there: the instance and both versions that have served."""
    chosen = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
            found = watched.prometheus.get(f"label/{label}/values", **{"match[]": substitute(series)})
            chosen[variable["name"]] = found
    (target,) = watched.prometheus.query("up")
    assert chosen == {"instance": [target["metric"]["instance"]], "version": ["1", "2"]}


def test_events_can_be_asked_for(watched: Watched) -> None:
    """The dashboard's annotations are queries that Prometheus understands; alerts are among them."""
    asked = {each["name"]: substitute(each["expr"]) for each in dashboard()["annotations"]["list"]}
    found = {name: watched.prometheus.query(query) for name, query in asked.items()}
    assert found.keys() == {"Version changes", "Alerts"}
    assert found["Alerts"]


def test_buckets_lead_to_traces(watched: Watched) -> None:
    """Prometheus keeps the trace of some requests beside the buckets that the latency panels draw."""
    exemplar = {target["expr"] for panel in panels() for target in panel["targets"] if target.get("exemplar")}
    now = time.time()
    for expression in map(substitute, exemplar):
        if "_bucket" in expression:
            found = watched.prometheus.get("query_exemplars", query=expression, start=str(now - 600), end=str(now))
            traces = [one["labels"]["trace_id"] for series in found for one in series["exemplars"]]
            assert traces
            assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in traces)
