"""Servers for faults: the real one, and one whose engine does what a request tells it to."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from benchmarks.kinds import Kinds
from tests import readme
from tests.servers import StartServer, run_server

COMMITTED = readme.ROOT / "model_artifacts" / "din"
FAULTY = Path(__file__).with_name("faulty.py")


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """A model folder of the committed version, to be changed at will."""
    return shutil.copytree(COMMITTED, tmp_path / "din")


@pytest.fixture
def start_server(tmp_path: Path) -> StartServer:
    """Run `dinserve serve` for the length of a `with`: `start_server(model_dir, executors=1)`."""
    return partial(run_server, tmp_path / "server.log")


@pytest.fixture
def start_faulty(tmp_path: Path) -> StartServer:
    """The same with an engine that `faulty` describes."""
    return partial(run_server, tmp_path / "server.log", program=(str(FAULTY),))


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    """Three networks that answer differently, exported once."""
    return Kinds(tmp_path_factory.mktemp("kinds"))
