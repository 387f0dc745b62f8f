"""Several workers on one port, as real processes."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from service import config
from tests import readme
from tests.e2e.conftest import Server, StartServer

BODY = {"history": {"ids": [1], "tags": [3]}, "candidates": {"ids": [8961, 318], "tags": [2, 7]}}


def test_killed_worker_is_replaced_without_a_refused_request(start_server: StartServer) -> None:
    """While one of two workers is killed and replaced, new connections are all answered, and the counts add up."""
    with start_server(readme.ROOT / "model_artifacts" / "din", workers=2) as server:
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        victim, *_ = workers(server)
        with ThreadPoolExecutor(4) as pool:
            before = list(pool.map(lambda _: server.score(BODY).status_code, range(100)))
            os.kill(victim, signal.SIGKILL)
            during = list(pool.map(lambda _: server.score(BODY).status_code, range(300)))
            server.poll("/health", lambda response: response.json()["status"] == "degraded")
            server.poll("/health", lambda response: response.json()["status"] == "ok")
        assert set(before + during) == {200}
        assert victim not in workers(server)
        assert 'din_requests_total{code="ok"} 400.0' in httpx.get(server.url + "/metrics").text


def workers(server: Server) -> list[int]:
    """Process ids of a server's workers."""
    children = psutil.Process(server.process.pid).children()
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors default to each worker's share of the CPUs, and never to none."""
    monkeypatch.setattr(config, "usable_cpus", lambda: 6)
    assert [config.Settings(workers=workers).executors for workers in (1, 2, 3, 8)] == [6, 3, 2, 1]
