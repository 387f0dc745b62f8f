"""The benchmark runs against the real server and the baseline, so that it cannot rot."""

from typing import Any

import pytest

from benchmarks import arithmetic, engine_sections, report, sections
from benchmarks.arithmetic import FLOOR_SIZES, call, floor, peak
from benchmarks.comparison import SERVER_CPUS, Model, Pace, both, run_module
from benchmarks.servers import CPUS

PACE = Pace(rounds=1, seconds=0.5, memory_requests=(50, 100), compared_requests=100)


@pytest.fixture
def model(exported: Any) -> Model:
    """The version that the other tests trained."""
    return Model("tiny", exported.model_dir)


def test_both_servers_agree_and_answer_under_load(model: Model) -> None:
    """Both servers give the same probabilities to the same bodies, and every request of a short run its answer."""
    with both(model) as pair:  # which compares their answers
        loads = [
            target.load("mixed", PACE, **options) for target in pair for options in ({"connections": 4}, {"rate": 20.0})
        ]
    for load in loads:
        assert load.answered > 0
        assert load.errors == {}
        assert 0 < load.p50 <= load.p99 <= load.worst
        assert load.overhead < load.worst
        assert load.stages["infer"] > 0


def test_memory_is_read_after_so_many_requests(model: Model) -> None:
    """The memory section sends what it says, and compares the last reading with the first."""
    section = sections.memory(model, PACE)
    assert [row["after requests"] for row in section.rows] == [0, 50, 100]
    assert all(row["RSS MB"] > 50 and row["failed"] == 0 for row in section.rows)
    assert section.findings[0].what in report.text(section) + report.targets(section.findings)


@pytest.mark.skipif(len(CPUS) < 2, reason="needs two CPUs that this process may use")
def test_scorer_is_measured_on_one_and_two_cores(model: Model) -> None:
    """The engine-level comparison goes through the real scorer with one executor and with two."""
    found = run_module("benchmarks.engines", "cores", str(model.folder), "--rounds=1", "--seconds=0.2", cpus=CPUS)
    assert {each["workload"] for each in found} == {"100x50", "500x50"}
    assert all(each["one"] > 0 and each["two"] > 0 for each in found)


def test_growth_is_measured_over_both_axes(model: Model) -> None:
    """Inference is timed for every size that the model takes, in the native engine and through both signatures."""
    found = run_module("benchmarks.engines", "growth", str(model.folder), "--seconds=0.001", cpus=SERVER_CPUS)
    assert [point["candidates"] for point in found["candidates"]][-1] == 2000
    assert [point["history"] for point in found["history"]] == [1, 2, 5]  # the model reads 8
    engines = ("native_ms", "score_ms", "serving_default_ms")
    assert all(point[each] > 0 for points in found.values() for point in points for each in engines)


def test_difference_is_measured(model: Model) -> None:
    """The largest difference between the native engine and the reference is told, and is not zero by construction."""
    section = engine_sections.difference(model, PACE)
    assert section.rows[0]["requests"] == PACE.compared_requests
    assert 0 < section.findings[0].value <= 1


def test_start_is_measured_for_both_engines(model: Model) -> None:
    """Each engine's server is started once a round, and timed until it is ready."""
    rows = engine_sections.start(model, PACE).rows
    assert [row["engine"] for row in rows] == ["native", "tensorflow"]
    assert all(float(row["ready after s"]) > 0 and row["RSS MB"] > 50 for row in rows)


def test_arithmetic_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The native engine is timed for every size, beside the floor and the matrix product of the same round."""
    monkeypatch.setattr(
        arithmetic,
        "_limit",
        lambda: {"cases": [{"history": h, "candidates": c, "ms": 1.0} for h, c in FLOOR_SIZES], "peak_gflops": 100.0},
    )
    for measure, fields in ((floor, ("whole", "attention_ms")), (peak, ("share", "gflops")), (call, ("ms",))):
        rows = measure(1, 0.001)
        assert rows
        assert all(row[each] > 0 for row in rows for each in fields)


def test_ceiling_is_measured_without_a_model() -> None:
    """The load generator's own speed is told, against a server that does nothing."""
    assert all(row["req/s"] > 0 for row in sections.ceiling(PACE).rows)
