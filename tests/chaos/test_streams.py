"""No bytes whatever make the server fail, or disturb those who behave."""

import asyncio
import json
import os

import pytest

from tests.chaos.bodies import GOOD, is_close
from tests.chaos.conftest import COMMITTED
from tests.chaos.fuzz import fuzz
from tests.chaos.streams import KINDS
from tests.servers import Server, StartServer

STREAMS = int(os.environ.get("CHAOS_STREAMS", "20000"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))


@pytest.mark.parametrize("executors", [pytest.param(1, id="on the event loop"), pytest.param(2, id="on executors")])
def test_hostile_streams_hurt_nobody(start_server: StartServer, executors: int) -> None:
    """Hostile streams get no 500 and leave no traceback; beside them and after them, scores are right."""
    with start_server(COMMITTED, executors=executors) as server:
        expected = score_all(server)
        report = asyncio.run(fuzz(server.port, SEED + executors, STREAMS // 2))
        print(report)  # noqa: T201  what a failure should show, and `pytest -rP`
        assert report.wrong == []
        assert report.scored > 100
        assert set(report.streams) == set(KINDS)
        assert {200, 400, 413, 422} <= set(report.statuses)
        left = server.poll("/metrics", lambda response: "din_in_flight_requests 0.0" in response.text).text
        assert 'code="internal"' not in left
        assert all(map(is_close, score_all(server), expected))
        assert "Traceback" not in server.log.read_text()


def score_all(server: Server) -> list[list[float]]:
    """The answers to all good bodies."""
    return [server.score(json.loads(body)).json()["probabilities"] for body in GOOD]
