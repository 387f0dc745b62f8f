"""Clients that die in the middle leave nothing behind."""

import json
import socket
import struct
import time
from contextlib import ExitStack

import httpx2

from tests.chaos.bodies import GOOD, is_close
from tests.chaos.conftest import COMMITTED
from tests.chaos.faulty import Fault
from tests.chaos.streams import head, request
from tests.chaos.test_engine_faults import read_metric, told
from tests.servers import Server, StartServer

EACH = 30
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


def connect(server: Server) -> socket.socket:
    """A connection whose closing is a reset."""
    opened = socket.create_connection(("127.0.0.1", server.port))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return opened


def kill_after(server: Server, *pieces: bytes) -> None:
    """Send on many connections, wait until the server has read it, and reset them all."""
    with ExitStack() as stack:
        for piece in pieces:
            for _ in range(EACH):
                stack.enter_context(connect(server)).sendall(piece)
        time.sleep(0.3)


def wait_until(server: Server, line: str) -> None:
    """Wait until /metrics has a line."""
    server.poll("/metrics", lambda response: f"\n{line}\n" in response.text)


def test_killed_clients_leave_nothing_in_flight(start_faulty: StartServer) -> None:
    """Clients reset within headers, within bodies and while they wait leave no work; what was queued is never run."""
    good = json.loads(GOOD[3])
    with start_faulty(COMMITTED, executors=2, deadline_ms=20_000, stall_s=60) as server:
        alone = server.score(good).json()["probabilities"]
        before = read_metric(server, "din_batch_requests_sum")
        whole, chunked = request(GOOD[1]), head("POST /score HTTP/1.1", "Transfer-Encoding: chunked")
        kill_after(server, whole[:20], whole[:-10], chunked + b"5\r\nab")
        wait_until(server, "din_in_flight_requests 0.0")

        with ExitStack() as stack:
            for _ in range(2):  # one after the other: together they would be one batch
                sleeper = stack.enter_context(connect(server))
                sleeper.sendall(request(json.dumps(told(Fault.SLEEP, tag=5)).encode()))
                time.sleep(0.2)
            slept = time.monotonic()
            kill_after(server, whole)
            wait_until(server, "din_in_flight_requests 2.0")
            assert "0 waiting" in httpx2.get(server.url + "/health", timeout=5).json()["checks"]["executors"]["detail"]
            assert time.monotonic() - slept < 4, "the executors were no longer busy"
        wait_until(server, "din_in_flight_requests 0.0")
        assert is_close(server.score(good).json()["probabilities"], alone)
        assert read_metric(server, 'din_requests_total{code="client_closed"}') >= 2 * EACH
        assert read_metric(server, "din_batch_requests_sum") - before <= 3  # the two that slept, and the last
        assert "Traceback" not in server.log.read_text()
