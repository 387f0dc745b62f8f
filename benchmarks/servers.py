"""Starts servers, each on its own CPUs from its first instruction, and stops them."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from benchmarks.generator import FILES
from service.server import allow_files

ROOT = Path(__file__).parents[1]
READY_S = 180.0  # loading and compiling, on a busy machine
CPUS = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Whatever process is started inside runs on these CPUs; nothing happens where the system cannot pin."""
    if not CPUS:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment() -> dict[str, str]:
    """Ours without settings of the service, so that every server runs with its defaults."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIN_")}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "2"}


class Server:
    """A process that answers GET /health when it is ready.

    Args:
        name: what tables call it.
        arguments: after `python -m`; the port comes in for `{port}`.
        cpus: the only ones it may use.
    """

    def __init__(self, name: str, arguments: Sequence[str], cpus: Sequence[int]) -> None:
        self.name = name
        self.port = _free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        command = [sys.executable, "-m", *(each.format(port=self.port) for each in arguments)]
        allow_files(FILES)  # which the process inherits
        with pinned(cpus):
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment(), stdout=self._log, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def rss_bytes(self) -> int:
        """Memory resident now."""
        rss: int = psutil.Process(self.pid).memory_info().rss
        return rss

    def wait_ready(self) -> Self:
        """Return when it is ready.

        Raises:
            RuntimeError: it ended, or is not ready in time; with the end of its log.
        """
        give_up_at = time.monotonic() + READY_S
        while self._process.poll() is None and time.monotonic() < give_up_at:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    return self
            except OSError:  # refused, or 503: urllib's HTTPError is one too
                time.sleep(0.1)
        self._log.seek(0)
        said = self._log.read()[-3000:].decode(errors="replace")
        raise RuntimeError(f"{self.name} did not become ready:\n{said}")

    def stop(self) -> None:
        """End it: politely, then not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def ours(model_dir: Path, cpus: Sequence[int], *flags: str) -> Server:
    """`dinserve serve` with default settings, but for `flags`."""
    arguments = ["service", "serve", "--port", "{port}", "--model-dir", str(model_dir), *flags]
    return Server("ours", arguments, cpus)


def baseline(version: Path, cpus: Sequence[int]) -> Server:
    """The server that most teams write."""
    return Server("baseline", ["benchmarks.baseline_server", str(version), "{port}"], cpus)


def null(rows: int, cpus: Sequence[int]) -> Server:
    """A server that does nothing but answer with `rows` probabilities."""
    return Server("null", ["benchmarks.null_server", str(rows), "{port}"], cpus)


def constant(work_us: float, cpus: Sequence[int]) -> Server:
    """A server that does the same for every request, whatever its size: as much as takes so long at best."""
    return Server("constant work", ["benchmarks.null_server", "0", "{port}", str(work_us)], cpus)


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    """Wait until the servers are ready, and stop them at the end."""
    try:
        for server in servers:
            server.wait_ready()
        yield
    finally:
        for server in servers:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
