"""Real processes of the server, and a version trained through the command line on data made here."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from click.testing import CliRunner, Result

from service.cli import main

POLLS = 600  # of a tenth of a second
SEED = 3


@dataclass(frozen=True, slots=True)
class Server:
    """A running `dinserve serve`."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def poll(self, path: str, done: Callable[[httpx.Response], bool]) -> httpx.Response:
        """Ask for `path` ten times a second until the answer is `done`; a process that has died is an error at once."""
        for _ in range(POLLS):
            with suppress(httpx.TransportError):
                response = httpx.get(self.url + path, timeout=5)
                if done(response):
                    return response
            with suppress(subprocess.TimeoutExpired):
                status = self.process.wait(0.1)
                pytest.fail(f"the server ended with status {status}:\n{self.log.read_text()}")
        return pytest.fail(f"the server did not get there:\n{self.log.read_text()}")

    def score(self, body: dict[str, Any]) -> httpx.Response:
        """Post to /score."""
        return httpx.post(self.url + "/score", json=body, timeout=10)

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


StartServer: TypeAlias = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def start_server(tmp_path: Path) -> StartServer:
    """Run a server for the length of a `with`: `start_server(model_dir, executors=1)`; it must then stop with status 0.

    With `ready=False` the block begins when the server listens, not when it is ready.
    """

    @contextmanager
    def start(model_dir: Path, *, ready: bool = True, **settings: object) -> Iterator[Server]:
        given = {f"DIN_{name.upper()}": str(value) for name, value in settings.items()}
        port, log = free_port(), tmp_path / "server.log"
        command = [sys.executable, "-m", "service", "serve", "--model-dir", str(model_dir), "--port", str(port)]
        with log.open("wb") as file, subprocess.Popen(command, env={**os.environ, **given}, stderr=file) as process:
            server = Server(f"http://127.0.0.1:{port}", process, log)
            try:
                server.poll("/health", lambda response: response.status_code == 200 or not ready)
                yield server
            except BaseException:
                process.kill()
                raise
            assert server.stop() == 0, log.read_text()

    return start


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def dinserve() -> Callable[..., Result]:
    """Run the command in this process: `dinserve("verify", folder)`."""
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """What a training run through the command line left, on disk and in memory."""

    data: Path
    model_dir: Path
    output: str
    din: Any


@pytest.fixture(scope="session")
def movielens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MovieLens folder of 40 users, each of whom likes the movies of one genre."""
    folder, rng = tmp_path_factory.mktemp("ml-made-here"), np.random.default_rng(1)
    genres = ["Comedy", "Drama|Romance", "Horror"]
    movies = [f"{movie},Movie {movie},{genres[movie % 3]}" for movie in range(1, 61)]
    ratings = [
        f"{user},{movie},{4.5 if movie % 3 == user % 3 else 2.0},{1_000_000 + 60 * at}"
        for user in range(1, 41)
        for at, movie in enumerate(rng.permutation(np.arange(1, 61))[:40])
    ]
    for name, header, lines in (
        ("movies", "movieId,title,genres", movies),
        ("ratings", "userId,movieId,rating,timestamp", ratings),
    ):
        (folder / f"{name}.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture(scope="session")
def exported(movielens: Path, dinserve: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Version 1, trained by `dinserve train`, and the network it was made of."""
    from service.training import export

    handed: list[Any] = []

    def spy(din: Any, *arguments: Any) -> Path:
        handed.append(din)
        return write(din, *arguments)

    write, model_dir = export.export, tmp_path_factory.mktemp("model") / "din"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "export", spy)
        options = ("--seed", SEED, "--epochs", 2, "--dimension", 4, "--id-buckets", 4096, "--max-history", 8)
        done = dinserve("train", "--data", movielens, "--out", model_dir, *options)
    assert done.exit_code == 0, done.output
    return Exported(movielens, model_dir, done.output, handed[0])
