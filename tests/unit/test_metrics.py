"""Metrics are declared once, and count what they say."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from service import __version__
from service.metrics import Metrics
from service.spec import PARTS, PHASES, STAGES

SCORES = np.array([0.25, 0.5, 0.75], np.float32)


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry of its own."""
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    """The collectors in `registry`."""
    return Metrics(registry)


def test_table_lists_what_is_exposed(metrics: Metrics) -> None:
    """The table for the README holds every metric with its type and help, and no other."""
    families = text_string_to_metric_families(metrics.exposition("")[0].decode())
    exposed = {(family.name, family.type, family.documentation) for family in families}
    assert {(name.removesuffix("_total"), kind, text) for name, kind, _, text in metrics.table()} == exposed


def test_every_metric_has_the_prefix_and_says_when(metrics: Metrics) -> None:
    """Names begin with din_, times are seconds, and each help says when it counts or where its clock starts."""
    for name, _, _, text in metrics.table():
        assert name.startswith("din_")
        assert any(word in text for word in ("Counted", "Starts", "starts", "Observed", "Set")), name


def test_labels_are_the_table_s(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Every exposed sample carries the labels of the table."""
    metrics.request("overloaded", 0.1)
    metrics.model("din", "1", "fake")
    labels = {name: set(names) for name, _, names, _ in metrics.table()}
    for family in registry.collect():
        for sample in family.samples:
            base = sample.name if sample.name in labels else family.name
            expected = labels.get(base, labels.get(f"{family.name}_total"))
            assert set(sample.labels) - {"le"} == expected, sample


def test_outcomes_are_counted_by_code(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Each outcome counts under its own code, and every request is timed."""
    for code in ("ok", "ok", "overloaded", "client_closed"):
        metrics.request(code, 0.004)
    assert registry.get_sample_value("din_requests_total", {"code": "ok"}) == 2
    assert registry.get_sample_value("din_requests_total", {"code": "overloaded"}) == 1
    assert registry.get_sample_value("din_requests_total", {"code": "client_closed"}) == 1
    assert registry.get_sample_value("din_request_duration_seconds_count") == 4
    assert registry.get_sample_value("din_request_duration_seconds_bucket", {"le": "0.003"}) == 0
    assert registry.get_sample_value("din_request_duration_seconds_bucket", {"le": "0.005"}) == 4


def test_stages_keep_their_order(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Durations land at the stages in the order of their names."""
    metrics.request("ok", 15, (3, 5, 7), ("1", "serving", 10, (1, 2, 3, 4, 5), SCORES))
    sums = [registry.get_sample_value("din_stage_duration_seconds_sum", {"stage": stage}) for stage in STAGES]
    assert sums == [1, 2, 3, 4, 5]


def test_request_that_was_scored_is_counted_everywhere(registry: CollectorRegistry, metrics: Metrics) -> None:
    """One report of it counts its end, its shape, and what its version took and gave."""
    for role in ("serving", "canary", "serving"):
        metrics.request("ok", 15, (3, 5, 7), ("1", role, 10, (1, 2, 3, 4, 5), SCORES))
    version = {"version": "1"}
    expected = [
        ("din_requests_total", {"code": "ok"}, 3),
        ("din_request_duration_seconds_sum", {}, 45),
        ("din_request_candidates_sum", {}, 9),
        ("din_history_length_sum", {"sequence": "ids"}, 15),
        ("din_history_length_sum", {"sequence": "tags"}, 21),
        ("din_version_duration_seconds_sum", version | {"role": "serving"}, 20),
        ("din_version_duration_seconds_sum", version | {"role": "canary"}, 10),
        ("din_probability_count", version, 9),
        ("din_probability_sum", version, 4.5),
    ]
    assert [(name, labels, registry.get_sample_value(name, labels)) for name, labels, _ in expected] == expected


def test_request_that_was_only_parsed_has_a_shape(registry: CollectorRegistry, metrics: Metrics) -> None:
    """What failed after it was parsed counts under its code and with its shape, and has no stages."""
    metrics.request("overloaded", 15, (3, 5, 7))
    assert registry.get_sample_value("din_requests_total", {"code": "overloaded"}) == 1
    assert registry.get_sample_value("din_request_candidates_sum") == 3
    assert registry.get_sample_value("din_stage_duration_seconds_count", {"stage": "parse"}) == 0


def test_exemplar_marks_every_duration(metrics: Metrics) -> None:
    """A request that is traced is named in the buckets of its duration and of each stage, each with its own value."""
    metrics.request("ok", 15, (3, 5, 7), ("1", "serving", 10, (1, 2, 3, 4, 5), SCORES), {"trace_id": "abc"})
    text = metrics.exposition("application/openmetrics-text")[0].decode()
    marked = re.findall(r'^(\w+)_bucket\{.*# {trace_id="abc"} (\S+) ', text, re.MULTILINE)
    stages = [("din_stage_duration_seconds", f"{value}.0") for value in (1, 2, 3, 4, 5)]
    assert marked == [("din_request_duration_seconds", "15.0"), *stages]


def test_stage_left_out_is_an_error(metrics: Metrics) -> None:
    """A missing duration is a mistake of the caller, not a shift of the others."""
    with pytest.raises((TypeError, ValueError), match=r"10 numbers|shorter"):
        metrics.request("ok", 15, (3, 5, 7), ("1", "serving", 10, (1, 2, 3, 4), SCORES))  # type: ignore[arg-type]


def test_batches_are_observed(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Rows, requests and padding of a batch are observed once each, and it counts for its engine."""
    metrics.batch("fake", 120, 3, 0.25, 0)
    assert registry.get_sample_value("din_batches_total", {"engine": "fake"}) == 1
    assert registry.get_sample_value("din_batch_rows_sum") == 120
    assert registry.get_sample_value("din_batch_requests_sum") == 3
    assert registry.get_sample_value("din_batch_padding_ratio_sum") == 0.25


def test_compilations_are_counted_by_phase(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Programs compiled for loading and for a batch count apart, and both are 0 from the start."""
    phases = [("din_compilations_total", {"phase": phase}) for phase in PHASES]
    assert [registry.get_sample_value(*phase) for phase in phases] == [0, 0]
    metrics.loaded(5.0, 2.0, 1000, 3)
    metrics.batch("fake", 120, 3, 0.25, 2)
    assert [registry.get_sample_value(*phase) for phase in phases] == [3, 2]


def test_loading_is_reported(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Times and memory of a start are gauges, each with its own value."""
    metrics.loaded(5.0, 2.0, 1000, 3)
    names = ("din_ready_seconds", "din_load_seconds", "din_load_memory_bytes")
    assert [registry.get_sample_value(name) for name in names] == [5, 2, 1000]
    assert registry.get_sample_value("din_engine_fallbacks_total") == 0
    metrics.loaded(5.0, 2.0, 1000, 3, fallback=True)
    assert registry.get_sample_value("din_engine_fallbacks_total") == 1


@pytest.mark.parametrize(
    "accept", [pytest.param("", id="text"), pytest.param("application/openmetrics-text", id="open")]
)
def test_creation_times_are_not_exposed(metrics: Metrics, accept: str) -> None:
    """No metric brings a series of the time it was created."""
    metrics.request("ok", 0.1)
    text, _ = metrics.exposition(accept)
    assert b"din_requests" in text
    assert not re.search(rb"^\w+_created[ {]", text, re.MULTILINE)


def test_requests_in_flight_come_and_go(registry: CollectorRegistry, metrics: Metrics) -> None:
    """The gauge is what callers count."""
    metrics.here += 2
    metrics.here -= 1
    assert registry.get_sample_value("din_in_flight_requests") == 1


@pytest.mark.parametrize(("truncated", "empty"), [(True, False), (False, True), (False, False)])
def test_histories_are_counted(registry: CollectorRegistry, metrics: Metrics, truncated: bool, empty: bool) -> None:
    """Truncated and empty histories are counted apart."""
    metrics.history(truncated=truncated, empty=empty)
    assert registry.get_sample_value("din_history_truncated_total") == truncated
    assert registry.get_sample_value("din_empty_histories_total") == empty


def test_shape_of_requests_is_observed(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Candidates and both sequences of the history are observed with their own lengths, 0 in a bucket of its own."""
    metrics.request("overloaded", 1, (500, 80, 0))
    metrics.request("ok", 1, (3, 1, 7), ("1", "serving", 10, (1, 2, 3, 4, 5), SCORES))
    assert registry.get_sample_value("din_request_candidates_sum") == 503
    for sequence, total in (("ids", 81), ("tags", 7)):
        assert registry.get_sample_value("din_history_length_sum", {"sequence": sequence}) == total
    assert registry.get_sample_value("din_history_length_bucket", {"sequence": "tags", "le": "0.0"}) == 1


def test_busy_time_is_counted_once(registry: CollectorRegistry, metrics: Metrics) -> None:
    """What executors have worked in all is counted, however often it is told, and never backwards."""
    for seconds in (1.5, 4.0, 4.0, 3.999):
        metrics.busy(seconds)
    assert registry.get_sample_value("din_executor_busy_seconds_total") == 4
    metrics.executors(3)
    assert registry.get_sample_value("din_executors") == 3


def test_queue_is_told(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Rows, predicted wait and age of the queue are gauges, each with its own value."""
    metrics.queue(100, 0.5, 0.25)
    names = ("din_queue_rows", "din_predicted_wait_seconds", "din_queue_age_seconds")
    assert [registry.get_sample_value(name) for name in names] == [100, 0.5, 0.25]


def test_new_ids_are_counted_by_part(registry: CollectorRegistry, metrics: Metrics) -> None:
    """Ids looked up and ids unseen count for their part, which is there with 0 from the start."""
    metrics.ids("history", 50, 2)
    metrics.ids("history", 10, 0)
    found = {
        (name, part): registry.get_sample_value(f"din_ids_{name}_total", {"part": part})
        for name in ("checked", "unseen")
        for part in PARTS
    }
    assert found == {
        ("checked", "history"): 60,
        ("unseen", "history"): 2,
        ("checked", "candidates"): 0,
        ("unseen", "candidates"): 0,
    }


def test_build_is_told(registry: CollectorRegistry, metrics: Metrics) -> None:
    """What runs is in the labels of one series, nothing of it unknown here."""
    (family,) = [family for family in registry.collect() if family.name == "din_build_info"]
    (sample,) = family.samples
    assert (sample.value, sample.labels["version"]) == (1, __version__)
    assert sample.labels["python"] == platform.python_version()
    assert all(sample.labels.values())


def test_one_version_serves(registry: CollectorRegistry, metrics: Metrics) -> None:
    """After a switch the new version is 1 and the old one 0."""
    for version in ("1", "1", "2"):
        metrics.model("din", version, "fake")
    values = [
        registry.get_sample_value("din_model_info", {"name": "din", "version": version, "engine": "fake"})
        for version in ("1", "2")
    ]
    assert values == [0, 1]


def test_several_processes_add_up(tmp_path: Path) -> None:
    """With prometheus_client's multiprocess directory two processes' metrics are one sum."""
    work = (
        "import numpy as np; from prometheus_client import CollectorRegistry; from service.metrics import Metrics\n"
        "m = Metrics(CollectorRegistry()); m.request('ok', 0.1); m.here += 1; m.model('din', '1', 'fake')\n"
        "m.model('din', '2', 'fake'); m.batch('fake', 5, 1, 0.5, 1); m.loaded(3, 2, 100, 4)\n"
        "m.request('overloaded', 1, (7, 3, 5)); m.history(truncated=True, empty=False)\n"
        "m.queue(1, 2, 3); m.executors(2); m.busy(1.5)\n"
        "m.ids('history', 10, 4); m.version('2', 5.0, 4.0, 0.25, None)\n"
        "scored = '2', 'serving', 0.1, (1, 2, 3, 4, 5), np.zeros(3, np.float32)\n"
        "m.request('ok', 1, (7, 3, 5), scored); m.request('ok', 1, (7, 3, 5), scored); m.count()"
    )
    read = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "r = CollectorRegistry(); MultiProcessCollector(r); print(generate_latest(r).decode())"
    )
    run = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for code in (work, work, read)
    ]
    assert 'din_requests_total{code="ok"} 6.0' in run[-1]
    assert "din_batch_rows_sum 10.0" in run[-1]
    assert "din_in_flight_requests 2.0" in run[-1]
    assert 'din_model_info{engine="fake",name="din",version="2"} 1.0' in run[-1]
    assert 'din_compilations_total{phase="load"} 8.0' in run[-1]
    assert 'din_compilations_total{phase="traffic"} 2.0' in run[-1]
    assert "din_ready_seconds 3.0" in run[-1]
    assert "din_load_seconds 2.0" in run[-1]
    assert "din_load_memory_bytes 200.0" in run[-1]
    assert 'din_probability_count{version="2"} 12.0' in run[-1]
    assert "din_request_candidates_sum 42.0" in run[-1]
    assert 'din_history_length_sum{sequence="tags"} 30.0' in run[-1]
    assert 'din_stage_duration_seconds_sum{stage="respond"} 20.0' in run[-1]
    assert "din_history_truncated_total 2.0" in run[-1]
    assert "din_queue_age_seconds 3.0" in run[-1]
    assert "din_executors 4.0" in run[-1]
    assert "din_executor_busy_seconds_total 3.0" in run[-1]
    assert 'din_ids_unseen_total{part="history"} 8.0' in run[-1]
    assert 'din_model_created_timestamp_seconds{version="2"} 4.0' in run[-1]
    assert 'din_training_click_ratio{version="2"} 0.25' in run[-1]
    assert re.search("^din_build_info{.*} 1.0$", run[-1], re.MULTILINE)


def test_drift_of_several_processes_is_that_of_their_scores_together(tmp_path: Path) -> None:
    """Two processes that each answer half of the bins have no drift together: one that is read knows both."""
    work = (
        "import sys, numpy as np; from prometheus_client import CollectorRegistry\n"
        "from service.drift import BOUNDS; from service.metrics import Metrics\n"
        "from service.workers import Fleet; from pathlib import Path\n"
        "m = Metrics(CollectorRegistry(), Fleet(Path(sys.argv[2]), 2).metrics())\n"
        "m.version('1', 2.0, 1.0, 0.5, (0.05,) * 20)\n"
        "half = np.array(BOUNDS, np.float32)[int(sys.argv[1])::2] - np.float32(0.01)\n"
        "m.compared('1', 0.1, np.tile(half, 1000), 0.0)\n"
        "print(m.exposition('')[0].decode())"
    )
    first, second = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", work, which, str(tmp_path)],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for which in ("0", "1")
    ]
    drifts = [re.findall(r'^din_score_drift_psi{version="1"} (\S+)$', text, re.MULTILINE) for text in (first, second)]
    assert [len(found) for found in drifts] == [1, 1]
    assert float(drifts[0][0]) > 1
    assert abs(float(drifts[1][0])) < 1e-6


def test_processes_add_up(tmp_path: Path) -> None:
    """The process_* metrics of several workers add up, but for the limit of open files and the start."""
    work = (
        "import os; from prometheus_client import CollectorRegistry; from service.processes import Processes\n"
        "p = Processes(CollectorRegistry()); p.report(); sum(range(10**6)); p.report()\n"
    )
    read = (
        "from pathlib import Path; import sys; from prometheus_client import generate_latest\n"
        "from service.workers import Fleet; print(generate_latest(Fleet(Path(sys.argv[1]), 2).metrics()).decode())"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for code in (work, read, work, read)
    ]
    one, both = [
        {name: float(value) for name, value in re.findall(r"^(process_\w+) (\S+)$", text, re.MULTILINE)}
        for text in outputs[1::2]
    ]
    alone = {sample.name for family in ProcessCollector(registry=None).collect() for sample in family.samples}
    assert both.keys() == one.keys() == alone
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert both[name] > 1.5 * one[name] > 0, name
    for name in ("process_start_time_seconds", "process_max_fds"):
        assert both[name] == one[name], name
