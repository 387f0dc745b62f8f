"""A load that checks every answer against the version it names, and the admin routes, of real servers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.bodies import WORKLOADS
from benchmarks.kinds import export_kinds, publish, write_expected
from tests.servers import Server

TOKEN = "an-admin-token-of-some-length"  # noqa: S105  nobody's
LONGEST_S = 300.0
RATE = 100.0  # requests/s: versions are what is tried here, not capacity


class Kinds:
    """Networks that answer differently, and their answers."""

    def __init__(self, folder: Path) -> None:
        self.folders = export_kinds(folder / "kinds")
        self.expected = folder / "expected.npz"
        write_expected(self.folders, WORKLOADS["mixed"], self.expected)

    def publish(self, model_dir: Path, version: int) -> Path:
        """Put a version into a model folder."""
        model_dir.mkdir(exist_ok=True)
        return publish(self.folders, model_dir, version)

    @contextmanager
    def load(self, server: Server) -> Iterator[dict[str, Any]]:
        """Load a server while the block runs; what came of it is in the dictionary afterwards."""
        command = [sys.executable, "-m", "benchmarks.checked_load", str(server.port), str(self.expected)]
        command += ["--rate", str(RATE), "--seconds", str(LONGEST_S)]
        found: dict[str, Any] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
            try:
                yield found
            except BaseException:
                load.kill()
                raise
            assert load.poll() is None, "the load ended too early"
            load.terminate()
            output, _ = load.communicate(timeout=60)
        found.update(json.loads(output))


def admin(server: Server, method: str, path: str, body: object = None) -> httpx.Response:
    """Ask an admin route."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.request(method, f"{server.url}/admin/{path}", json=body, headers=headers, timeout=120)
