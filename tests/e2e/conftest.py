"""Real processes of the server, and a version trained through the command line on data made here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from service.cli import main
from tests.servers import StartServer, run_server

SEED = 3


@pytest.fixture
def start_server(tmp_path: Path) -> StartServer:
    """Run a server for the length of a `with`: `start_server(model_dir, executors=1)`; it must then stop with status 0.

    With `ready=False` the block begins when the server listens, not when it is ready.
    """
    return partial(run_server, tmp_path / "server.log")


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
