"""Signals to real processes under load: what was accepted is answered, and the second signal does not wait."""

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

from tests import readme
from tests.servers import Server, StartServer

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
