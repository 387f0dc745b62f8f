"""Several workers on one port, as real processes."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest

from service import config
from tests import readme
from tests.servers import Server, StartServer, free_port

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
        assert 'din_requests_total{code="ok"} 400.0' in httpx2.get(server.url + "/metrics").text


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """When the parent is killed outright, its workers stop serving and go."""
    command = [sys.executable, "-m", "service", "serve", "--port", str(free_port()), "--workers", "2"]
    with (tmp_path / "server.log").open("wb") as log, subprocess.Popen(command, cwd=readme.ROOT, stderr=log) as process:
        server = Server(f"http://127.0.0.1:{command[command.index('--port') + 1]}", process, tmp_path / "server.log")
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        left = [psutil.Process(pid) for pid in workers(server)]
        process.kill()
        assert len(left) == 2
        assert psutil.wait_procs(left, timeout=30)[1] == []


def workers(server: Server) -> list[int]:
    """Process ids of a server's workers."""
    children = psutil.Process(server.process.pid).children()
    return [child.pid for child in children if any("spawn_main" in word for word in child.cmdline())]


def test_workers_share_the_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Executors default to each worker's share of the CPUs, and never to none."""
    monkeypatch.setattr(config, "usable_cpus", lambda: 6)
    assert [config.Settings(workers=workers).executors for workers in (1, 2, 3, 8)] == [6, 3, 2, 1]
