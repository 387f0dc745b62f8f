"""The benchmark's arithmetic and its request bodies; that it measures anything is shown end to end."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry

from benchmarks import null_server, quality, simulated
from benchmarks.bodies import WORKLOADS, Body, Workload, make_bodies, make_samples
from benchmarks.connection import CLOSED, Exchange
from benchmarks.generator import Order, Outcome, arrivals, judge
from benchmarks.load import Usage, summarise
from benchmarks.report import table, targets
from benchmarks.sections import Finding
from benchmarks.summary import median_ratio, percentile
from benchmarks.switched_server import MODES, OFF, TURN, WARM, Silent, Switch, ignore
from service.artifact import Feature, Features, Manifest
from service.novelty import Novelty
from service.schema import Limits, decode
from service.training.intervals import make_sums

LIMITS = Limits(2000, 2000)
LONG_AGO = Usage(-1e9, 0.0, 0.0)


@pytest.fixture
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """A model that reads 30 of a history, of the dtypes a test asks for."""
    dtypes = getattr(request, "param", ("int64", "int64"))
    sizes = {"buckets": 8, "dimension": 2, "max_history": 30}
    features = [Feature.model_validate({"dtype": dtype, **sizes}) for dtype in dtypes]
    return Manifest(version="1", created="2026-01-01T00:00:00Z", features=Features(id=features[0], tag=features[1]))


def outcome(intended: float, done: float, *, rows: int = 1, problem: str = "", infer: float = 0.0) -> Outcome:
    """One request's end."""
    return Outcome(intended, done, rows, problem, {"infer": infer})


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.5, 50.0, id="median"),
        pytest.param(0.9, 90.0, id="ninetieth"),
        pytest.param(0.99, 99.0, id="ninety-ninth"),
        pytest.param(1.0, 100.0, id="worst"),
        pytest.param(0.001, 1.0, id="best"),
    ],
)
def test_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    """A percentile is the smallest value that the share does not exceed, never one between two."""
    assert percentile([float(each) for each in range(1, 101)], share) == expected


def test_variants_are_compared_over_seeds_and_users() -> None:
    """A variant's figure is the mean over its seeds; its distance from the first has an interval over users."""
    rng = np.random.default_rng(1)
    user, label = np.repeat(np.arange(30), 20), rng.integers(0, 2, 600)

    def scores(noise: float) -> quality.Scores:
        drawn = {seed: label + rng.normal(0, noise, 600) for seed in (1, 2, 3)}
        return {seed: make_sums(label, 1 / (1 + np.exp(-score)), user) for seed, score in drawn.items()}

    found = {"clear": scores(0.3), "vague": scores(2.0), "clear again": scores(0.3)}
    rows = {row[""]: row for row in quality.rows_of(found)}
    assert rows["clear"]["GAUC less the first"] == ""
    for name, scorer in found.items():
        mean = np.mean([float(each.auc @ each.ranked / each.ranked.sum()) for each in scorer.values()])
        value, low, high = map(float, re.findall(r"[.\d]+", rows[name]["GAUC"]))
        assert value == pytest.approx(mean, abs=1e-4)
        assert low < value < high
    worse, alike = (re.findall(r"[-+.\d]+", rows[name]["GAUC less the first"]) for name in ("vague", "clear again"))
    assert float(worse[2]) < 0
    assert float(alike[1]) < 0 < float(alike[2])


def test_worlds_are_averaged(tmp_path: Path) -> None:
    """The mean of what is kept of some worlds has Student's interval, and is held against the targets."""
    for world, auc in enumerate([0.78, 0.79, 0.80], 1):
        found = {"auc": auc, "oracle": 0.8, "less": 0.8 - auc, "ece": 0.002}
        (tmp_path / f"50-1000-{world}.json").write_bytes(orjson.dumps(found))
    done = simulated.section(simulated.Study(1000, 50, {}, tmp_path), [1, 2, 3])
    assert [row["world"] for row in done.rows] == ["1", "2", "3", "mean"]
    half = 4.3027 * 0.01 / 3**0.5  # t of two degrees of freedom
    assert done.rows[-1]["auc"] == f"0.7900 [{0.79 - half:.4f}, {0.79 + half:.4f}]"
    assert [finding.value for finding in done.findings] == pytest.approx([0.01, 0.002])
    assert [finding.target for finding in done.findings] == [0.01, 0.01]


def test_network_is_held_against_a_world(tmp_path: Path) -> None:
    """A world is simulated, trained on and judged, once: with few samples a network is far from the truth."""
    study = simulated.Study(2000, 20, {"epochs": 1, "dimension": 2}, tmp_path)
    found = study.found(1)
    assert found["less"] == pytest.approx(found["oracle"] - found["auc"])
    assert 0.01 < found["less"] < 0.4
    assert 0 < found["ece"] < 0.5
    assert study.found(1) == found


def test_percentile_of_nothing_is_zero() -> None:
    """A run without answers has latencies of 0 and does not fail."""
    assert percentile([], 0.99) == 0.0


def test_rounds_are_compared_with_their_neighbours() -> None:
    """The ratio is the median over rounds of ours against theirs, so a slow minute hits both sides of it."""
    assert median_ratio([4, 40, 9], [2, 10, 3]) == 3


def test_arrivals_are_a_poisson_process() -> None:
    """Requests are due at the rate asked for, with exponential gaps, ascending, within the time."""
    due = arrivals(1000, 20, seed=1)
    gaps = np.diff(due)
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert gaps.min() > 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert due[0] >= 0
    assert due[-1] < 20


def test_even_arrivals_have_one_gap() -> None:
    """Requests of a fixed rate are due at equal distances, within the time."""
    assert arrivals(4, 1, seed=1, gaps="even").tolist() == [0, 0.25, 0.5, 0.75]


def test_open_loop_counts_latency_from_when_a_request_was_due() -> None:
    """Requests that a stalled server delays are each charged from their own due time, and belong to that time."""
    order = Order(1, WORKLOADS["mixed"], rate=10)
    outcomes = [outcome(at / 10, 1.0) for at in range(10)]  # all answered at 1.0, when the stall ended
    load = summarise(order, outcomes, 0, 10, (Usage(0.0, 0.0, 0.0), Usage(1.0, 0.0, 0.0)))
    assert load.answered == 10
    assert [load.p50, load.worst] == pytest.approx([500, 1000])


def test_closed_loop_counts_what_was_answered_in_the_window() -> None:
    """Answers before and after the window do not count; throughput and overhead are of those within."""
    order = Order(1, WORKLOADS["mixed"])
    outcomes = [outcome(0, 0.5, rows=7), outcome(1, 1.01, rows=10, infer=4), outcome(2, 2.03, rows=30, infer=10)]
    marks = Usage(1.0, 0.1, 0.5), Usage(3.0, 0.5, 1.5)
    load = summarise(order, [*outcomes, outcome(2.5, 3.5)], 0, 4, marks)
    assert (load.answered, load.requests_per_s, load.candidates_per_s) == (2, 1.0, 20.0)
    assert load.overhead == pytest.approx((6 + 20) / 2)
    assert [load.client_cpu, load.server_cpu_us] == pytest.approx([0.2, 500_000])


def test_failures_are_counted_by_kind_and_not_as_answers() -> None:
    """Refused, cut and unanswered requests are errors, and their latencies are not reported."""
    order = Order(1, WORKLOADS["mixed"])
    outcomes = [outcome(1, 2), outcome(1, 1.1, problem="503"), outcome(1, 1.1, problem="503")]
    load = summarise(order, outcomes, 2, 5, (LONG_AGO, Usage(9.0, 0.0, 0.0)))
    assert load.errors == {"503": 2, "unanswered": 2}
    assert (load.answered, load.failed, load.worst) == (1, 4, 1000)


@pytest.mark.parametrize(
    ("status", "answer", "problem"),
    [
        pytest.param(200, {"probabilities": [0.1, 0.2], "latency_ms": {"infer": 1.0}}, "", id="good"),
        pytest.param(200, {"probabilities": [0.1], "latency_ms": {}}, "wrong number of probabilities", id="short"),
        pytest.param(503, {"error": {}}, "503", id="refused"),
        pytest.param(CLOSED, {}, "closed", id="closed"),
    ],
)
def test_answers_are_judged(status: int, answer: dict[str, Any], problem: str) -> None:
    """An answer is good with status 200 and a probability for each candidate."""
    exchange = Exchange(Body(b"", b"", 2), 1.0, 2.0, status, orjson.dumps(answer))
    assert judge(exchange).problem == problem


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_bodies_are_distinct_and_of_the_size_asked_for(workload: Workload) -> None:
    """A seed gives the same bodies again, no two alike, each with the workload's lengths."""
    bodies = make_bodies(workload, 50, 1)
    assert [body.content for body in bodies] == [body.content for body in make_bodies(workload, 50, 1)]
    assert len({body.content for body in bodies}) == 50
    for body in bodies:
        found = orjson.loads(body.content)
        assert len(found["candidates"]["ids"]) == len(found["candidates"]["tags"]) == body.rows
        assert workload.candidates in (None, body.rows)
        assert workload.history in (None, len(found["history"]["ids"]))


@pytest.mark.parametrize(
    "manifest",
    [*itertools.product(("int64", "string"), repeat=2)],
    ids=["numbers", "string-tags", "string-ids", "strings"],
    indirect=True,
)
def test_bodies_are_what_the_service_accepts(manifest: Manifest) -> None:
    """The service decodes every body, and `make_samples` gives the engine exactly what it decodes."""
    features = manifest.features
    bodies = make_bodies(WORKLOADS["mixed"], 30, 5, (features.id.dtype, features.tag.dtype))
    samples = make_samples(WORKLOADS["mixed"], 30, 5, manifest)
    for body, sample in zip(bodies, samples, strict=True):
        decoded = decode(body.content, manifest, LIMITS).sample
        for name in ("seq_id", "seq_tag", "target_id", "target_tag"):
            np.testing.assert_array_equal(getattr(decoded, name), getattr(sample, name))


def test_message_is_one_http_request() -> None:
    """The message announces its body's length and names the path."""
    body = make_bodies(WORKLOADS["10x20"], 1, 1, path="/there")[0]
    head, _, content = body.message.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /there HTTP/1.1\r\n")
    assert head.endswith(b"Content-Length: %d" % len(content))
    assert content == body.content


@pytest.mark.parametrize(
    ("value", "at_least", "verdict"),
    [
        pytest.param(4.0, True, "reached", id="enough"),
        pytest.param(3.9, True, "NOT reached", id="too-little"),
        pytest.param(4.0, False, "reached", id="within"),
        pytest.param(4.1, False, "NOT reached", id="too-much"),
    ],
)
def test_targets_are_told_reached_or_not(value: float, at_least: bool, verdict: str) -> None:
    """Each finding stands beside its target with the verdict."""
    assert f"| {verdict} " in targets([Finding("it", value, 4.0, at_least=at_least)]).splitlines()[2]


def test_table_lines_are_equally_wide() -> None:
    """A table reads as text."""
    lines = table([{"a": 1, "long name": "x"}, {"a": 1000, "long name": "y"}]).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_silent_metrics_hear_nothing() -> None:
    """What observing costs is measured against metrics that no report changes, and that can be read all the same."""
    silent = Silent(CollectorRegistry())
    before = silent.exposition("")
    silent.request("ok", 0.1)
    silent.history(truncated=True, empty=True)
    silent.batch("fake", 1, 1, 0.0, 0)
    assert silent.exposition("") == before
    assert b"din_requests_total" in before[0]


def test_modes_take_turns_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mode has as many requests of each round, and neither the first requests nor a pause counts for any."""
    now = [0.0]
    monkeypatch.setattr("benchmarks.switched_server.time.perf_counter", lambda: now[0])
    monkeypatch.setattr("benchmarks.switched_server.time.process_time", lambda: now[0] / 2)
    switch = Switch()

    def load(requests: int) -> None:
        for _ in range(requests):
            now[0] += 0.001
            switch.arrived()

    load(WARM)
    first = switch.mode
    load(TURN - 2)
    assert switch.mode == first
    now[0] += 5.0
    load(TURN)
    assert {spent.requests for spent in switch.spent.values()} == {0}
    load(1 + 6 * TURN)
    for mode, spent in switch.spent.items():
        turns = 3 if mode == first else 2
        assert spent.requests == TURN * turns
        assert (spent.wall_s, spent.cpu_s) == pytest.approx((TURN * turns / 1000, TURN * turns / 2000))


def test_modes_are_this_servers_alone() -> None:
    """Metrics and look-ups go off where they were made by the switch, and nowhere else in the process."""
    offer, switch = Novelty.offer, Switch()
    metrics, novelty = switch.make_metrics(CollectorRegistry()), switch.make_novelty(print)
    had = set()
    for _ in MODES:
        switch.turn()
        had.add(switch.mode)
        assert isinstance(metrics, Silent) == (switch.mode == OFF)
        assert (novelty.offer == ignore) == (switch.mode == OFF)
        assert Novelty.offer is offer
    assert had == set(MODES)


def test_constant_work_answers_each_candidate() -> None:
    """A server of constant work answers as many probabilities as there are candidates, when the body is whole."""
    written: list[bytes] = []
    transport = type("Transport", (), {"write": lambda _, data: written.append(data)})()
    server = null_server.Null(0, hashes=2)
    server.connection_made(transport)
    body = b'{"candidates":{"ids":[1,2,3],"tags":[1,1,1]}}'
    server.data_received(b"POST /score HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:10])
    assert not written
    server.data_received(body[10:])
    assert len(orjson.loads(written[0].partition(b"\r\n\r\n")[2])["probabilities"]) == 3
