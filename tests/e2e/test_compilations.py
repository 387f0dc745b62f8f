"""What is compiled, and when: everything before ready, nothing under traffic."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np
import pytest

from tests import readme
from tests.servers import Server, StartServer

COMMITTED = readme.ROOT / "model_artifacts" / "din"


def draw_body(seed: int) -> dict[str, Any]:
    """A request of random sizes and ids, one in eight with `explain`."""
    rng = np.random.default_rng(seed)
    ids, tags, candidates = rng.integers(0, 121), rng.integers(0, 121), rng.integers(1, 601)
    return {
        "history": {"ids": rng.integers(0, 1 << 40, ids).tolist(), "tags": rng.integers(0, 20, tags).tolist()},
        "candidates": {
            "ids": rng.integers(0, 1 << 40, candidates).tolist(),
            "tags": rng.integers(0, 20, candidates).tolist(),
        },
        "explain": bool(rng.random() < 1 / 8),
    }


def read_metric(server: Server, name: str) -> float:
    """One value of /metrics, by name and labels."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx2.get(server.url + "/metrics").text, re.MULTILINE)
    assert found, name
    return float(found[1])


@pytest.mark.parametrize(
    ("engine", "workers", "programs"),
    [
        pytest.param("tensorflow", 1, 1, id="tensorflow"),
        pytest.param("tensorflow", 2, 1, id="tensorflow-two-workers"),
        pytest.param("native", 2, 0, id="native-two-workers"),
    ],
)
def test_nothing_compiles_under_traffic(start_server: StartServer, engine: str, workers: int, programs: int) -> None:
    """Each worker compiles its program, if any, before it is ready and says so; 300 random requests add none."""
    with start_server(COMMITTED, engine=engine, workers=workers, deadline_ms=60_000) as server:
        health = server.poll("/health", lambda response: response.json()["status"] == "ok").json()
        names = [f'din_compilations_total{{phase="{phase}"}}' for phase in ("load", "traffic")]
        ready = [read_metric(server, name) for name in names]
        with httpx2.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda seed: client.post("/score", json=draw_body(seed)).status_code, range(300)))
        assert health["engine"] == engine
        assert ready == [workers * programs, 0]
        assert set(statuses) == {200}
        assert [read_metric(server, name) for name in names] == ready
        assert read_metric(server, "din_ready_seconds") > read_metric(server, "din_load_seconds") > 0
        assert read_metric(server, "din_load_memory_bytes") > 0
        took = r"ready after [\d.]+ s; loading took [\d.]+ s and \d+ MB, compilations"
        said = re.findall(f"1 serves with {engine}: {took}: {programs}$", server.log.read_text(), re.MULTILINE)
        assert len(said) == workers
