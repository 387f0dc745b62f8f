"""An engine that fails hurts the requests of its batch and nobody else."""

import asyncio
import json
import time
from typing import Any

import httpx2
import pytest

from tests.chaos.bodies import GOOD, is_close
from tests.chaos.conftest import COMMITTED
from tests.chaos.faulty import Fault
from tests.servers import Server, StartServer

WRONG = [Fault.RAISE, Fault.SHORT, Fault.LONG, Fault.NAN]
BODIES = [json.loads(body) for body in GOOD]


def told(fault: Fault, tag: int = 1) -> dict[str, Any]:
    """A body that tells the engine what to do."""
    return {**BODIES[2], "candidates": {"ids": [int(fault), 5], "tags": [tag, 1]}}


def answers(server: Server, *bodies: dict[str, Any]) -> list[httpx2.Response]:
    """Answers to requests sent at the same time, each on a connection of its own."""

    async def ask() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=server.url, timeout=20) as client:
            return await asyncio.gather(*(client.post("/score", json=body) for body in bodies))

    return asyncio.run(ask())


def probabilities(response: httpx2.Response) -> list[float]:
    """Of an answer that must be one."""
    assert response.status_code == 200, response.text
    scores: list[float] = response.json()["probabilities"]
    return scores


def read_metric(server: Server, name: str) -> float:
    """One value of /metrics; 0 where there is none yet."""
    lines = httpx2.get(server.url + "/metrics", timeout=5).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + " ")), 0.0)


@pytest.mark.parametrize("executors", [pytest.param(1, id="one"), pytest.param(2, id="two")])
def test_failed_batch_is_nobody_elses(start_faulty: StartServer, executors: int) -> None:
    """A batch on which the engine fails or miscounts gets 500, all of it and nothing else; all others are right."""
    with start_faulty(COMMITTED, executors=executors, max_delay_ms=100, max_batch_rows=10) as server:
        alone = [probabilities(server.score(body)) for body in BODIES]
        for fault in WRONG:
            for response in answers(server, BODIES[0], told(fault), BODIES[1]):  # ten candidates: one batch
                assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
                assert "told to" not in response.text
            after = answers(server, *BODIES)
            assert all(is_close(probabilities(each), alone[i]) for i, each in enumerate(after)), fault
        assert read_metric(server, 'din_requests_total{code="internal"}') == 3 * len(WRONG)
        assert server.log.read_text().count("Traceback") == len(WRONG)
        assert sum(neighbours(server, fault, alone) for fault in WRONG * 2) > 20
        assert httpx2.get(server.url + "/health", timeout=5).json()["status"] == "ok"


def neighbours(server: Server, fault: Fault, alone: list[list[float]]) -> int:
    """Score among requests that fail, in whatever batches; how many were not in one of theirs, and right."""
    bodies = [told(fault) if i % 6 == 1 else BODIES[i % len(BODIES)] for i in range(24)]
    responses = answers(server, *bodies)
    assert {response.status_code for response in responses[1::6]} == {500}
    scored = [(i, response) for i, response in enumerate(responses) if response.status_code == 200]
    assert all(is_close(probabilities(response), alone[i % len(BODIES)]) for i, response in scored)
    assert all(response.status_code in {200, 500} for response in responses)
    return len(scored)


def test_hanging_executor_is_noticed(start_faulty: StartServer) -> None:
    """A batch that hangs makes the process not live, the others score on; it can recover, and it can be stopped.

    Two executors: with one, a short batch would hang the event loop, and nothing would answer at all.
    """
    with start_faulty(COMMITTED, executors=2, stall_s=1, grace_s=1) as server:
        alone = probabilities(server.score(BODIES[3]))
        started = time.monotonic()
        assert server.score(told(Fault.SLEEP, tag=5)).json()["error"]["code"] == "deadline_exceeded"
        assert time.monotonic() - started < 3
        dead = server.poll("/health/live", lambda response: response.status_code == 503)
        assert dead.json()["checks"]["executors"]["ok"] is False
        assert httpx2.get(server.url + "/health", timeout=1).json()["status"] == "failed"
        assert is_close(probabilities(server.score(BODIES[3])), alone)  # by the other executor
        assert time.monotonic() - started < 5
        server.poll("/health/live", lambda response: response.status_code == 200)
        assert is_close(probabilities(server.score(BODIES[3])), alone)

        assert server.score(told(Fault.SLEEP, tag=60)).status_code == 504
        stopped = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - stopped < 20
