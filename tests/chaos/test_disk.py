"""A disk that is full while a version is exported leaves no half version, and the server that reads it scores on."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.bodies import GOOD, is_close
from tests.chaos.conftest import COMMITTED
from tests.servers import StartServer

SMALL_BYTES = 7 << 20  # the committed version, and half of another
TRAIN = ("train", "--epochs", "1", "--id-buckets", "1048576", "--max-history", "8")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of `SMALL_BYTES`, mounted for one process and gone with it."""
    folder = tmp_path / "small"
    folder.mkdir()
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("small disk: there is no unshare command")
    script = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec cat'  # until its standard input ends
    command = [unshare, "--map-root-user", "--mount", "sh", "-c", script, "sh", str(SMALL_BYTES), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as holder:  # type: ignore[call-overload]
        said = holder.stdout.readline()
        if said == "mounted\n":
            yield Path(f"/proc/{holder.pid}/root{folder}")
        holder.stdin.close()
    if said != "mounted\n":
        pytest.skip("small disk: nothing may be mounted here")


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """An interactions file that is enough to train on."""
    clicked = [(user, item) for user in range(20) for item in range(user % 3, 60, 3)]
    rows = [f"{user},{item},{item % 3},{1000 + item}" for user, item in clicked]
    file = tmp_path / "events.csv"
    file.write_text("\n".join(["user,item,tag,timestamp", *rows]) + "\n")
    return file


def train(events: Path, out: Path, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `dinserve train`."""
    command = [sys.executable, "-m", "service", *TRAIN, "--data", str(events), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit)


def test_full_disk_leaves_what_serves(small_disk: Path, events: Path, start_server: StartServer) -> None:
    """An export onto a full disk fails in one sentence and leaves nothing; the version there serves on."""
    model_dir, body = small_disk / "din", json.loads(GOOD[4])
    shutil.copytree(COMMITTED, model_dir)
    with start_server(model_dir, poll_s=0.1) as server:
        alone = server.score(body).json()["probabilities"]
        done = train(events, model_dir)
        assert done.returncode == 1, done.stderr
        assert done.stderr.splitlines()[-1].startswith("Error: ")
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert [each.name for each in model_dir.iterdir()] == ["1"]
        health = server.poll("/health", lambda response: response.status_code == 200).json()
        assert (health["status"], health["version"]) == ("ok", "1")
        assert is_close(server.score(body).json()["probabilities"], alone)


def test_files_that_cannot_grow_leave_nothing(events: Path, tmp_path: Path) -> None:
    """An export that may not write so large a file fails in one sentence and leaves nothing."""
    done = train(events, tmp_path / "din", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "din").iterdir()) == []
