"""The clients against the real server and the committed version."""

import asyncio
import subprocess
import sys

import pytest

from service.client import AsyncClient, Client, Refused, Unauthorized
from tests import readme
from tests.servers import StartServer

MODEL = readme.ROOT / "model_artifacts" / "din"
TOKEN = "sixteen-letters-or-more"  # noqa: S105  nobody's


def test_snippet_of_the_readme_runs(start_server: StartServer) -> None:
    """The README's Python prints a ranking, probabilities and the version, from a server of the committed version."""
    code = readme.fenced("python")[0]
    with start_server(MODEL) as server:
        code = code.replace("http://127.0.0.1:8000", server.url).replace("timeout_s=0.2", "timeout_s=10")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=readme.ROOT)
    assert done.stdout.startswith("(1, 0) (0.53")
    assert done.stdout.endswith(") 1\n")


def test_clients_agree(start_server: StartServer) -> None:
    """Both clients get the same scores, the model and its health, with a token; without it, the server's refusal."""
    arguments = {"history": ([1, 3114], [3, 3]), "candidates": ([8961, 296], [2, 6])}

    async def ask(url: str) -> tuple[float, ...]:
        async with AsyncClient(url, token=TOKEN, timeout_s=10, hedge_s=5) as client:
            assert (await client.health()).ready
            return (await client.score(**arguments)).probabilities  # type: ignore[arg-type]

    with start_server(MODEL, token=TOKEN) as server:
        with Client(server.url, token=TOKEN, timeout_s=10, hedge_s=5) as client:
            assert client.health().status == "ok"
            assert client.model().features.id.dtype == "int64"
            scores = client.score(**arguments)  # type: ignore[arg-type]
        assert asyncio.run(ask(server.url)) == pytest.approx(scores.probabilities, abs=1e-6)
        with Client(server.url, timeout_s=10) as stranger, pytest.raises(Unauthorized) as caught:
            stranger.score(**arguments)  # type: ignore[arg-type]
    assert isinstance(caught.value, Refused)
    assert caught.value.field == "Authorization"


def test_traffic_survives_a_restart(start_server: StartServer) -> None:
    """Connections that the old server closed are replaced without the caller's notice, once another one is there."""
    with start_server(MODEL) as first:
        port = first.port
        client = Client(first.url, timeout_s=30)
        before = client.score(([1], [3]), ([8961], [2]))
    with start_server(MODEL, port=port):
        assert client.score(([1], [3]), ([8961], [2])).probabilities == pytest.approx(before.probabilities)
    client.close()
