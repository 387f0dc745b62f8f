"""GET /metrics of a real server with the committed version, of one process and of several."""

import time
from typing import Any

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service import artifact
from service.metrics import Metrics
from tests import readme
from tests.servers import Server, StartServer

MODEL_DIR = readme.ROOT / "model_artifacts" / "din"
FILMS, NO_FILM = list(range(1, 6)), 10**9  # MovieLens numbers its films from 1


def measures(server: Server) -> dict[tuple[str, str], float]:
    """Every sample by its name and the values of its labels."""
    text = httpx2.get(server.url + "/metrics").text
    return {
        (sample.name, ",".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def body(rng: np.random.Generator) -> dict[str, Any]:
    """A request of 500 candidates that do not exist, and films in its history."""
    unknown = (NO_FILM + rng.integers(0, 10**6, 500)).tolist()
    return {"history": {"ids": FILMS, "tags": [3] * 5}, "candidates": {"ids": unknown, "tags": [3] * 500}}


@pytest.mark.parametrize("workers", [pytest.param(1, id="alone"), pytest.param(2, id="workers")])
def test_measures_of_a_real_server(start_server: StartServer, workers: int) -> None:
    """Drift, new ids, age, load and process are all told after a load of items that training never met."""
    rng, began = np.random.default_rng(1), time.time()
    manifest = artifact.read_manifest(MODEL_DIR / "1")
    with start_server(MODEL_DIR, workers=workers, executors=1) as server:
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        assert ("din_score_drift_psi", "1") not in measures(server)
        with httpx2.Client(
            limits=httpx2.Limits(max_keepalive_connections=0)
        ) as client:  # so that both workers get some
            for _ in range(60):
                assert client.post(server.url + "/score", json=body(rng)).status_code == 200
        # Workers tell each other every second what they have counted.
        server.poll("/metrics", lambda response: 'din_probability_count{version="1"} 30000.0' in response.text)
        found = measures(server)
    assert found["din_executors", ""] == workers
    assert found["din_score_drift_psi", "1"] > 0.25
    assert found["din_request_candidates_sum", ""] == 60 * 500
    assert found["din_history_length_sum", "ids"] == 60 * 5
    checked, unseen = (found[f"din_ids_{name}_total", "candidates"] for name in ("checked", "unseen"))
    assert checked >= 500
    assert 0.95 < unseen / checked <= 1
    assert (found["din_ids_checked_total", "history"], found["din_ids_unseen_total", "history"]) == (checked / 100, 0)
    assert found["din_model_created_timestamp_seconds", "1"] == manifest.created_s
    assert began < found["din_model_loaded_timestamp_seconds", "1"] < time.time()
    assert found["din_training_click_ratio", "1"] == 0.5
    assert found["din_executor_busy_seconds_total", ""] > 0
    assert found["din_queue_age_seconds", ""] == 0
    assert found["process_resident_memory_bytes", ""] > 1e8 * workers
    assert found["process_cpu_seconds_total", ""] > 0
    assert found["process_start_time_seconds", ""] > began - 60
    told = {name for name, _ in found}
    for name, kind, *_ in Metrics.table():
        has_samples = name in told or f"{name}_count" in told
        assert has_samples or name.startswith(("din_shadow_", "din_connections_refused")), (name, kind)
