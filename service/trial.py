"""Tries a new version in a process of its own, at a low priority, before the server touches it.

Reading a SavedModel, compiling it and comparing engines takes seconds of CPU and half a gigabyte for a while, and a
broken one can end the process that reads it. None of that happens to the process that answers requests: a child does
the work, says what it found, and is gone.
"""

import fcntl
import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.errors import ArtifactError

TIMEOUT_S = 900.0  # beside a busy server, what takes ten seconds alone may take minutes
PATIENCE_S = 120.0  # at the lowest priority, where a trial of a saturated machine may get nothing at all
NICE = 10  # after that: a tenth of a core that others would have whole, and a new version a minute or two later
LOOK_S = 0.1  # between looks at whether another worker's trial is over
LONGEST_REASON = 500  # characters

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A version that may serve: which engine computes it, and why not the preferred one."""

    engine: str
    fallback_reason: str | None = None
    places: Sequence[Sequence[Any]] | None = None  # of what the engine needs, in the version's files


class Trials:
    """Runs a trial at a time.

    Args:
        arguments: what to run after `python -m service`; the version's folder is added.
        shared: folder where several workers leave what they found, so that one trial does for all; None: one process.
        timeout_s: a trial that takes longer has failed.
        patience_s: one that takes longer at the lowest priority is begun anew at a better one.
    """

    def __init__(
        self,
        *arguments: str,
        shared: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._shared = shared
        self._command = [sys.executable, "-m", "service", *arguments]
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, version: Path, stamp: object = None) -> Verdict:
        """Try a version, which is the same as another worker has tried if its `stamp` is.

        Raises:
            ArtifactError: it failed; in one sentence.
        """
        if self._shared is None:
            return self._run(version)
        asked = time.time()
        name = hashlib.sha256(repr(stamp).encode()).hexdigest()
        with self._alone(version, self._shared / "trial.lock"):
            return self._share(version, self._shared / f"trial-{name}.json", asked)

    def _share(self, version: Path, found: Path, asked: float) -> Verdict:
        """Take what another worker has found: that it is good at any time, that it is bad if that is no older news."""
        if found.exists():
            known = json.loads(found.read_text())
            if known["reason"] is None:
                return Verdict(**known["verdict"])
            if found.stat().st_mtime >= asked:
                raise ArtifactError(known["reason"])
        try:
            verdict = self._run(version)
        except ArtifactError as error:
            if not self._stopped:
                found.write_text(json.dumps({"reason": str(error)}))
            raise
        found.write_text(json.dumps({"reason": None, "verdict": asdict(verdict)}))
        return verdict

    @contextmanager
    def _alone(self, version: Path, lock: Path) -> Iterator[None]:
        with lock.open("w") as file:
            while not self._stopped:
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(LOOK_S)  # a lock that is waited for could not be given up when the server stops
            yield

    def _run(self, version: Path) -> Verdict:
        try:
            child, output, errors = self._end(version, _give_way, self._patience_s)
        except subprocess.TimeoutExpired:
            logger.info("%s: no time for the trial at the lowest priority, begun anew at niceness %d", version, NICE)
            try:
                child, output, errors = self._end(version, _be_nice, self._timeout_s)
            except subprocess.TimeoutExpired:
                raise ArtifactError(f"{version}: the trial took longer than {self._timeout_s:.0f} s") from None
        if child.returncode < 0:
            raise ArtifactError(f"{version}: the trial was ended by signal {-child.returncode}")
        if child.returncode:
            raise ArtifactError(_reason(errors) or f"{version}: the trial ended with status {child.returncode}")
        return Verdict(**json.loads(output.splitlines()[-1]))

    def _end(
        self, version: Path, give_way: Callable[[int], object], limit_s: float
    ) -> tuple["subprocess.Popen[bytes]", bytes, bytes]:
        """A child that has ended, and what it wrote.

        Raises:
            TimeoutExpired: it has not within `limit_s`.
        """
        its, ours = os.pipe()  # its standard input: open for as long as this process lives
        try:
            child = self._start(version, its, give_way)
            try:
                return child, *child.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()
                raise
        except OSError as error:
            raise ArtifactError(f"{version}: the trial cannot be started: {error.strerror}") from error
        finally:
            os.close(ours)

    def _start(self, version: Path, stdin: int, give_way: Callable[[int], object]) -> "subprocess.Popen[bytes]":
        try:
            with self._lock:
                if self._stopped:
                    raise ArtifactError(f"{version}: not tried, the server stops")
                self._child = subprocess.Popen(  # noqa: S603  our own command
                    [*self._command, str(version)], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
                give_way(self._child.pid)  # at once: Python's own start would hold up requests for half a second
                return self._child
        finally:
            os.close(stdin)

    def stop(self) -> None:
        """End a running trial, and start no other."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                with suppress(OSError):
                    self._child.kill()


def _give_way(pid: int) -> bool:
    """Give a process (0: this one) the lowest priority there is; False where that cannot be done."""
    try:
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not Linux, or not allowed
        return False
    return True


def _be_nice(pid: int) -> None:
    """Give a process (0: this one) a low priority, but one that gets it somewhere."""
    with suppress(OSError):  # it may have a lower one, which nobody but root can raise
        os.setpriority(os.PRIO_PROCESS, pid, NICE)


def yield_to_all() -> None:
    """Make this process give way to others, be the first to go when memory runs out, and end with its parent."""
    if os.getpriority(os.PRIO_PROCESS, 0) < NICE and not _give_way(0):
        os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

    def follow() -> None:
        while os.read(0, 1024):  # not through sys.stdin, whose lock would outlive this thread at exit
            pass
        os._exit(1)

    threading.Thread(target=follow, name="end-with-parent", daemon=True).start()


def _reason(errors: bytes) -> str:
    """The last line that a child wrote: our error, or else the end of a traceback."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ")[:LONGEST_REASON] if lines else ""
