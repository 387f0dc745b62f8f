"""Trials of versions in real child processes of Python."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from service.errors import ArtifactError
from service.trial import NICE, Trials, Verdict

VERSION = Path("model/7")


def child(code: str, timeout_s: float = 60, patience_s: float = 60) -> Trials:
    """Trials whose process runs `code` with the version as its argument."""
    trials = Trials(timeout_s=timeout_s, patience_s=patience_s)
    trials._command = [sys.executable, "-c", code]
    return trials


def test_verdict_is_what_the_child_prints_last() -> None:
    """The last line of a successful child is the verdict; it is given the version's folder."""
    code = "import json, sys; print('noise'); print(json.dumps({'engine': 'native', 'fallback_reason': sys.argv[1]}))"
    assert child(code).run(VERSION) == Verdict("native", "model/7")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param("import sys; print('Error: no graph', file=sys.stderr); sys.exit(1)", "no graph", id="refused"),
        pytest.param("raise KeyError('x')", "KeyError: 'x'", id="traceback"),
        pytest.param("import sys; sys.exit(3)", "model/7: the trial ended with status 3", id="silent"),
        pytest.param("import os; os.abort()", "model/7: the trial was ended by signal 6", id="crashed"),
    ],
)
def test_failed_child_is_a_reason(code: str, reason: str) -> None:
    """However a child fails, this process goes on with one sentence."""
    with pytest.raises(ArtifactError) as caught:
        child(code).run(VERSION)
    assert str(caught.value) == reason


def test_child_that_takes_too_long_is_ended() -> None:
    """A trial has an end."""
    with pytest.raises(ArtifactError, match="took longer than 0 s"):
        child("import time; time.sleep(60)", timeout_s=0.2, patience_s=0.2).run(VERSION)


def test_child_that_gets_nowhere_is_begun_anew(tmp_path: Path) -> None:
    """Where the lowest priority is not enough, a second child has a better one, and its verdict is the trial's."""
    log = tmp_path / "log"
    code = f"""
import json, os, time
from service.trial import yield_to_all
yield_to_all()
policy = os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else None
with open({str(log)!r}, "a") as file:
    file.write(f"{{os.getpid()}} {{policy}} {{os.getpriority(os.PRIO_PROCESS, 0)}}\\n")
if len(open({str(log)!r}).readlines()) == 1:
    time.sleep(60)
print(json.dumps({{"engine": "native"}}))
"""
    assert child(code, patience_s=5).run(VERSION) == Verdict("native")
    (first, low, _), (second, policy, nice) = [line.split() for line in log.read_text().splitlines()]
    assert not Path("/proc", first).exists()
    assert first != second
    if hasattr(os, "SCHED_IDLE"):
        assert (int(low), int(policy)) == (os.SCHED_IDLE, os.SCHED_OTHER)
    assert int(nice) == max(NICE, os.getpriority(os.PRIO_PROCESS, 0))


def test_child_that_cannot_start_is_a_reason() -> None:
    """Where no process can be started, the version is refused."""
    trials = Trials()
    trials._command = ["/no/such/python"]
    with pytest.raises(ArtifactError, match="model/7: the trial cannot be started: No such file or directory"):
        trials.run(VERSION)


def test_stop_ends_the_running_trial_and_all_later_ones() -> None:
    """A server that stops waits for no trial."""
    trials = child("import time; time.sleep(60)")
    reasons = []

    def run() -> None:
        with pytest.raises(ArtifactError) as caught:
            trials.run(VERSION)
        reasons.append(str(caught.value))

    thread = threading.Thread(target=run)
    thread.start()
    while trials._child is None:  # no event tells that a process has started
        time.sleep(0.001)
    trials.stop()
    thread.join()
    assert reasons == ["model/7: the trial was ended by signal 9"]
    with pytest.raises(ArtifactError, match="the server stops"):
        trials.run(VERSION)


def test_child_gives_way_and_ends_with_its_parent() -> None:
    """A child runs at the lowest priority, and ends when nobody holds the other end of its input."""
    code = """
import os, time
from service.trial import yield_to_all
yield_to_all()
print(os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else os.nice(0), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lowest = os.SCHED_IDLE if hasattr(os, "SCHED_IDLE") else 19
        assert int(process.stdout.readline()) == lowest
        process.stdin.close()
        assert process.wait(30) == 1


def test_one_trial_does_for_all_workers(tmp_path: Path) -> None:
    """Workers that try the same version at the same time run one child, good or bad; a changed one is tried again."""
    log = tmp_path / "log"
    count = f"open({str(log)!r}, 'a').write('.'); import time; time.sleep(0.5)"
    good = f'{count}; print(\'{{"engine": "native", "fallback_reason": null}}\')'
    bad = f"{count}; raise ValueError('bad')"

    def all_run(code: str, stamp: object) -> list[str]:
        """What four workers that start together find."""
        found = []

        def run() -> None:
            trials = child(code)
            trials._shared = tmp_path
            try:
                found.append(trials.run(VERSION, stamp).engine)
            except ArtifactError as error:
                found.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    assert all_run(good, 1) == ["native"] * 4
    assert log.read_text() == "."
    assert all_run(bad, 2) == ["ValueError: bad"] * 4
    assert log.read_text() == ".."
    assert all_run(good, 1) == ["native"] * 4
    assert log.read_text() == ".."
    assert all_run(good, 2) == ["native"] * 4  # what failed is tried again when somebody asks later
    assert log.read_text() == "..."


def test_stopped_worker_waits_for_no_other(tmp_path: Path) -> None:
    """A worker that stops gives up waiting for another one's trial."""
    trials = child("raise AssertionError")
    trials._shared = tmp_path
    with (tmp_path / "trial.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        timer = threading.Timer(0.2, trials.stop)
        timer.start()
        with pytest.raises(ArtifactError, match="the server stops"):
            trials.run(VERSION)
