"""Real processes of the server, for the tests that need sockets, signals or faults."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest

LONGEST_S = 60  # until a server is where it should be
SERVE = ("-m", "service")


@dataclass(slots=True)
class Server:
    """A running `dinserve serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    ended: bool = False  # by the test

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int(self.url.rpartition(":")[2])

    def poll(self, path: str, done: Callable[[httpx2.Response], bool]) -> httpx2.Response:
        """Ask for `path` ten times a second until the answer is `done`; a process that has died is an error at once."""
        started = time.monotonic()
        while time.monotonic() - started < LONGEST_S:
            with suppress(httpx2.TransportError):
                response = httpx2.get(self.url + path, timeout=5)
                if done(response):
                    return response
            with suppress(subprocess.TimeoutExpired):
                status = self.process.wait(0.1)
                pytest.fail(f"the server ended with status {status}:\n{self.log.read_text()}")
        return pytest.fail(f"the server did not get there:\n{self.log.read_text()}")

    def score(self, body: dict[str, Any], **headers: str) -> httpx2.Response:
        """Post to /score."""
        return httpx2.post(self.url + "/score", json=body, timeout=10, headers=headers)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.ended = True
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """Send SIGKILL, and wait until it is gone."""
        self.ended = True
        self.process.kill()
        self.process.wait(30)


StartServer: TypeAlias = Callable[..., AbstractContextManager[Server]]


@contextmanager
def run_server(
    log: Path,
    model_dir: Path,
    *,
    ready: bool = True,
    port: int | None = None,
    program: Sequence[str] = SERVE,
    **settings: object,
) -> Iterator[Server]:
    """Run a server for the length of a `with`; it must then stop with status 0, unless the test has ended it.

    Args:
        log: file that its standard error is added to.
        model_dir: its model folder.
        ready: whether the block begins when it is ready, or when it listens.
        port: TCP port; None: a free one.
        program: what Python runs; it takes the command line of `dinserve`.
        settings: others by name, `executors=1`.
    """
    settings = {"rollout_file": log.with_name("rollout.json"), **settings}  # never into the model folder
    given = {f"DIN_{name.upper()}": str(value) for name, value in settings.items()}
    port = port or free_port()
    command = [sys.executable, *program, "serve", "--model-dir", str(model_dir), "--port", str(port)]
    with log.open("ab") as file, subprocess.Popen(command, env={**os.environ, **given}, stderr=file) as process:
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            server.poll("/health", lambda response: response.status_code == 200 or not ready)
            yield server
        except BaseException:
            process.kill()
            raise
        assert server.ended or server.stop() == 0, log.read_text()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
