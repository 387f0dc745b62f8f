"""`dinserve score`, `bench` and `top` against a real server of the committed version."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import readme
from tests.servers import Server, free_port, run_server

MODEL = readme.ROOT / "model_artifacts" / "din"
TOKEN = "sixteen-letters-or-more"  # noqa: S105  nobody's
GOOD = {"history": {"ids": [1, 3114], "tags": [3, 3]}, "candidates": {"ids": [8961, 296], "tags": [2, 6]}}
BAD = {"history": {"ids": [1], "tags": ["x"]}, "candidates": {"ids": [1], "tags": [1]}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a token."""
    with run_server(tmp_path_factory.mktemp("server") / "log", MODEL, token=TOKEN) as server:
        yield server


def dinserve(*arguments: object, text: str = "", token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-m", "service", *map(str, arguments)]
    environment = {**os.environ, "DIN_TOKEN": token}
    return subprocess.run(
        command, cwd=readme.ROOT, input=text, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_lines_are_scored(server: Server) -> None:
    """Each line of a pipe gets a line: the answer, or the server's error, which is told and makes the status 1."""
    lines = "\n".join(map(json.dumps, [GOOD, BAD, {**GOOD, "top_k": 1}]))
    done = dinserve("score", "--url", server.url, text=lines)
    first, second, third = map(json.loads, done.stdout.splitlines())
    assert first["probabilities"] == pytest.approx([0.53297937, 0.9890266], abs=1e-5)
    assert second["error"]["field"] == "history.tags[0]"
    assert third["ranking"] == [1]
    assert done.returncode == 1
    said = "Error: line 2: invalid_request: history.tags[0]: this must be an integer (request "
    assert done.stderr.startswith(said + second["request_id"])


def test_file_is_scored_as_a_table(server: Server, tmp_path: Path) -> None:
    """A table has the best candidates first, and with --explain what they looked at."""
    (tmp_path / "request.json").write_text(json.dumps(GOOD, indent=1))
    options = ("--format", "table", "--explain", "--top-k", 1)
    done = dinserve("score", tmp_path / "request.json", "--url", server.url, *options)
    assert done.returncode == 0, done.stderr
    assert "296" in done.stdout
    assert "8961" not in done.stdout
    assert "looks at" in done.stdout


def test_wrong_token_is_the_servers_word(server: Server) -> None:
    """A token that is not the server's is refused by it."""
    done = dinserve("score", "--url", server.url, text=json.dumps(GOOD), token=TOKEN[::-1])
    assert done.returncode == 1
    assert "unauthorized: Authorization: this must be Bearer and a valid token" in done.stderr


@pytest.mark.parametrize("command", [("score",), ("bench",), ("top", "--once", "--interval", "0.1")])
def test_nobody_there_is_a_sentence(command: tuple[str, ...]) -> None:
    """Where no server is, each command says so in a line, and ends with status 1."""
    url = f"http://127.0.0.1:{free_port()}"
    done = dinserve(*command, "--url", url, text=json.dumps(GOOD))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {url}")
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_steady_load_is_answered(server: Server) -> None:
    """Every request of a short load is answered, and the figures agree with each other."""
    options = ("--rate", 100, "--seconds", 1, "--candidates", 5, "--history", 5, "--timeout", 10, "--json")
    done = dinserve("bench", "--url", server.url, *options)
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert found["codes"] == {"ok": found["sent"]}
    assert 50 < found["sent"] < 150
    latency = found["latency_ms"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert ("Warning: the generator itself was late" in done.stderr) == (found["generator_late_ms"] > 1)


def test_load_of_own_requests_counts_refusals(server: Server, tmp_path: Path) -> None:
    """Requests of a file are sent in turn, and what the server says to each is counted; a table is what people get."""
    (tmp_path / "requests").write_text(f"{json.dumps(GOOD)}\n{json.dumps(BAD)}\n")
    options = ("--rate", 50, "--seconds", 1, "--body", tmp_path / "requests", "--timeout", 10)
    done = dinserve("bench", "--url", server.url, *options)
    assert done.returncode == 0, done.stderr
    assert "invalid_request" in done.stdout
    assert "p99.9" in done.stdout


def test_one_connection_makes_requests_wait(server: Server) -> None:
    """What is due while every connection is busy waits for one, is counted, and answered all the same."""
    options = ("--rate", 500, "--seconds", 1, "--candidates", 500, "--connections", 1, "--timeout", 30, "--json")
    found = json.loads(dinserve("bench", "--url", server.url, *options).stdout)
    assert found["codes"] == {"ok": found["sent"]}
    assert found["waited_for_a_connection"] > 0


def test_load_ends_early_with_its_figures(server: Server) -> None:
    """Ctrl-C ends a load before its time, and what it has seen is printed."""
    command = [sys.executable, "-m", "service", "bench", "--url", server.url, "--seconds", "600", "--timeout", "10"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=readme.ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "DIN_TOKEN": TOKEN, "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        read_until(ours, " ok, 0 not, p99 ")  # it is under way, and says so
        os.killpg(process.pid, signal.SIGINT)
        shown, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0
    assert "p99.9" in shown


def test_picture_is_printed_once(server: Server) -> None:
    """`top --once` prints an interval's picture and ends."""
    done = dinserve("top", "--url", server.url, "--once", "--interval", 0.2)
    assert done.returncode == 0, done.stderr
    assert server.url in done.stdout
    for said in ("din version 1 on native", "infer", "padding %", "deadline"):
        assert said in done.stdout


def test_live_view_follows_a_server_until_q(tmp_path: Path) -> None:
    """On a terminal the view shows the server, says when it has gone, and ends with status 0 when q is pressed."""
    ours, theirs = pty.openpty()
    with run_server(tmp_path / "log", MODEL) as server:
        command = [sys.executable, "-m", "service", "top", "--url", server.url, "--interval", "0.2"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        process = subprocess.Popen(
            command, cwd=readme.ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        try:
            read_until(ours, "din version 1 on native")
            server.kill()
            read_until(ours, "trying again")
            os.write(ours, b"q")
            read_until(ours, "\x1b[?1049l")  # the terminal is as it was
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)


def read_until(terminal: int, text: str) -> None:
    """Read what a program shows until it has shown some text."""
    seen, end = "", time.monotonic() + 60
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65536).decode(errors="replace")
