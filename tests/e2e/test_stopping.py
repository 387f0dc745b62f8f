"""Signals to real processes under load: what was accepted is answered, and the second signal does not wait."""

import asyncio
import json
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import httpx2
import psutil
import pytest

from tests import readme
from tests.chaos.faulty import Fault
from tests.servers import Server, StartServer

FAULTY = (str(readme.ROOT / "tests" / "chaos" / "faulty.py"),)
MODEL = readme.ROOT / "model_artifacts" / "din"
BODY = {"history": {"ids": [1], "tags": [3]}, "candidates": {"ids": [8961, 318], "tags": [2, 7]}}
CONTENT = json.dumps(BODY).encode()
MESSAGE = b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(CONTENT),
    CONTENT,
)
CLIENTS = 10
LONGEST_S = 20.0


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
    """Send one request; returns the status of its answer, and whether the connection is closed after it."""
    writer.write(MESSAGE)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.partition(":")[2]) for line in head.splitlines() if line.startswith("content-length"))
    answer = json.loads(await reader.readexactly(length))
    status = int(head.split()[1])
    assert status != 200 or len(answer["probabilities"]) == 2
    return status, "connection: close" in head


async def send_until_refused(port: int, seen: Counter[str]) -> None:
    """Keep connections busy, one at a time, until no more are accepted; count what comes of each request."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            seen["refused"] += 1
            return
        try:
            closing = False
            while not closing:
                status, closing = await ask(reader, writer)
                seen[str(status)] += 1
            seen["closing"] += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            seen["lost"] += 1
        finally:
            writer.close()


async def load(server: Server, clients: int, signals: Iterable[int]) -> Counter[str]:
    """Send signals in the midst of load, and return what came of its requests."""
    seen: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(send_until_refused(server.port, seen))
        await asyncio.sleep(1)
        for each in signals:
            server.process.send_signal(each)
    return seen


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        pytest.param({}, signal.SIGTERM, id="at-once"),
        pytest.param({"drain_delay_s": 0.5}, signal.SIGTERM, id="after-a-delay"),
        pytest.param({"drain_delay_s": 0.5}, signal.SIGINT, id="interrupt"),
        pytest.param({"workers": 2, "drain_delay_s": 0.5}, signal.SIGTERM, id="workers"),
        pytest.param({"workers": 2}, signal.SIGTERM, id="workers-at-once"),
    ],
)
def test_signal_under_load_loses_no_request(start_server: StartServer, settings: dict[str, Any], number: int) -> None:
    """Told to stop under full load, the server answers every request that it accepted, and ends with status 0."""
    with start_server(MODEL, **settings) as server:
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        seen = asyncio.run(load(server, CLIENTS, [number]))
        assert server.process.wait(LONGEST_S) == 0
        server.ended = True
    assert seen["lost"] == 0
    assert set(seen) <= {"200", "closing", "refused", "lost"}
    assert seen["200"] > CLIENTS
    assert seen["refused"] == CLIENTS
    assert "Traceback" not in server.log.read_text()


def slow(candidates: int, seconds: int) -> dict[str, Any]:
    """A request that the faulty engine sleeps on."""
    ids, tags = [Fault.SLEEP.value] * candidates, [seconds] * candidates
    return {"history": {"ids": [1], "tags": [3]}, "candidates": {"ids": ids, "tags": tags}}


@contextmanager
def waiting(server: Server, *bodies: dict[str, Any]) -> Iterator[list[Future[httpx2.Response]]]:
    """Requests that have been sent, on connections of their own, and are being worked on."""
    with ThreadPoolExecutor(len(bodies)) as pool:
        sent = [
            pool.submit(httpx2.post, f"{server.url}/score", json=body, timeout=60, headers={"X-Deadline-Ms": "60000"})
            for body in bodies
        ]
        time.sleep(0.5)
        yield sent


@pytest.mark.parametrize("executors", [2, 1], ids=["in-a-thread", "on-the-event-loop"])
def test_second_signal_does_not_wait(start_server: StartServer, executors: int) -> None:
    """Told a second time, the server ends at once with status 1, whatever hangs, and the log counts what was cut."""
    with start_server(MODEL, program=FAULTY, grace_s=60, executors=executors) as server:
        for _ in range(20):
            server.score(BODY)  # short batches run on the event loop of a lone executor when their time is known
        with waiting(server, slow(2, 40)) as (sent,):
            end_twice(server)
            assert isinstance(sent.exception(), httpx2.TransportError)
    assert server.log.read_text().count("told to end at once: cut 1 requests") == 1


def test_second_signal_ends_workers(start_server: StartServer) -> None:
    """Told a second time, the parent has its workers end at once too."""
    with start_server(MODEL, grace_s=60, workers=2, deadline_ms=60_000, body_timeout_s=60) as server:
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        workers = psutil.Process(server.process.pid).children(recursive=True)
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(MESSAGE[:-1])
            time.sleep(0.3)
            end_twice(server)
        assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert server.log.read_text().count("told to end at once: cut 1 requests") == 1


def end_twice(server: Server) -> None:
    """Send two signals; only the second ends the server."""
    server.ended = True
    server.process.send_signal(signal.SIGTERM)
    with pytest.raises(TimeoutExpired):
        server.process.wait(1)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(5) == 1


def test_grace_ends(start_server: StartServer) -> None:
    """What outlives the grace time is refused, and counted by requests, however many parts they had; status 0."""
    with (
        start_server(MODEL, program=FAULTY, grace_s=1, executors=2, max_batch_rows=64) as server,
        waiting(server, slow(200, 8), slow(1, 8)) as sent,
    ):
        started = time.monotonic()
        assert server.stop() == 0
        assert 1 <= time.monotonic() - started < 6
        for each in sent:
            assert (each.result().status_code, each.result().json()["error"]["code"]) == (503, "not_ready")
            assert each.result().headers["connection"] == "close"
    assert "cut 2 requests after a grace period of 1 s" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_drain_answers_and_says_so(start_server: StartServer) -> None:
    """While it drains the server is started and live, not ready, scores, and ends each connection with its answer."""
    with start_server(MODEL, drain_delay_s=2) as server, httpx2.Client(base_url=server.url) as client:
        assert "connection" not in client.get("/health").headers
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        for path, status in (("/health", 503), ("/health/ready", 503), ("/health/live", 200), ("/health/started", 200)):
            response = client.get(path)
            assert (response.status_code, response.json()["status"]) == (status, "draining")
            assert response.headers["connection"] == "close"
        assert client.post("/score", json=BODY).status_code == 200
        assert server.process.wait(LONGEST_S) == 0
        server.ended = True


def test_pipelined_requests_are_answered(start_server: StartServer) -> None:
    """Of requests that came together, all are answered, and only the last says that the connection ends."""
    with start_server(MODEL, program=FAULTY, executors=2, deadline_ms=60_000) as server:
        content = json.dumps(slow(1, 1)).encode()
        message = MESSAGE.replace(CONTENT, content).replace(b": %d" % len(CONTENT), b": %d" % len(content))
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(message + 2 * MESSAGE)
            time.sleep(0.3)
            server.process.send_signal(signal.SIGTERM)
            received = b"".join(iter(lambda: connection.recv(65536), b"")).decode().lower()
        assert received.count("http/1.1 200") == 3
        assert received.count("connection: close") == 1
        assert server.process.wait(LONGEST_S) == 0
        server.ended = True


def test_signal_to_all_of_a_group_is_one(start_server: StartServer) -> None:
    """A signal that a terminal or a service manager sends to workers too is not their second."""
    with start_server(MODEL, workers=2) as server:
        server.poll("/health", lambda response: response.json()["status"] == "ok")
        workers = psutil.Process(server.process.pid).children()
        for number in (signal.SIGINT, signal.SIGTERM):
            for each in workers:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)
            if number == signal.SIGINT:
                server.process.send_signal(number)
        assert server.process.wait(LONGEST_S) == 0
        server.ended = True
    assert "at once" not in server.log.read_text()


def test_not_started_before_the_first_version(start_server: StartServer, tmp_path: Path) -> None:
    """Without any version the process is live, neither started nor ready."""
    (tmp_path / "din").mkdir()
    with start_server(tmp_path / "din", ready=False) as server:
        statuses = {
            path: httpx2.get(f"{server.url}/health/{path}").status_code for path in ("live", "started", "ready")
        }
    assert statuses == {"live": 200, "started": 503, "ready": 503}
