"""A load that checks every answer against the version it names, and the admin routes, of real servers."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from benchmarks.kinds import Kinds
from tests.servers import Server

TOKEN = "an-admin-token-of-some-length"  # noqa: S105  nobody's
LONGEST_S = 300.0
RATE = 100.0  # requests/s: versions are what is tried here, not capacity


@contextmanager
def checked_load(kinds: Kinds, server: Server) -> Iterator[dict[str, Any]]:
    """Load a server while the block runs; what came of it is in the dictionary afterwards."""
    found: dict[str, Any] = {}
    with subprocess.Popen(kinds.load_command(server.port, RATE, LONGEST_S), stdout=subprocess.PIPE) as load:
        try:
            yield found
        except BaseException:
            load.kill()
            raise
        assert load.poll() is None, "the load ended too early"
        load.terminate()
        output, _ = load.communicate(timeout=60)
    found.update(json.loads(output))


def admin(server: Server, method: str, path: str, body: object = None) -> httpx2.Response:
    """Ask an admin route."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx2.request(method, f"{server.url}/admin/{path}", json=body, headers=headers, timeout=120)
