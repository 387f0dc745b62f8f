"""Tries a new version in a process of its own, at the lowest priority, before the server touches it.

Reading a SavedModel, compiling it and comparing engines takes seconds of CPU and half a gigabyte for a while, and a
broken one can end the process that reads it. None of that happens to the process that answers requests: a child does
the work, says what it found, and is gone.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.errors import ArtifactError

TIMEOUT_S = 900.0  # at the lowest priority on a busy machine, what takes ten seconds alone may take minutes
LONGEST_REASON = 500  # characters


@dataclass(frozen=True, slots=True)
class Verdict:
    """A version that may serve: which engine computes it, and why not the preferred one."""

    engine: str
    fallback_reason: str | None = None


class Trials:
    """Runs a trial at a time.

    Args:
        arguments: what to run after `python -m service`; the version's folder is added.
        timeout_s: a trial that takes longer has failed.
    """

    def __init__(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> None:
        self._command = [sys.executable, "-m", "service", *arguments]
        self._timeout_s = timeout_s
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def run(self, version: Path) -> Verdict:
        """Try a version.

        Raises:
            ArtifactError: it failed; in one sentence.
        """
        its, ours = os.pipe()  # its standard input: open for as long as this process lives
        try:
            child = self._start(version, its)
            output, errors = child.communicate(timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise ArtifactError(f"{version}: the trial took longer than {self._timeout_s:.0f} s") from None
        except OSError as error:
            raise ArtifactError(f"{version}: the trial cannot be started: {error.strerror}") from error
        finally:
            os.close(ours)
        if child.returncode < 0:
            raise ArtifactError(f"{version}: the trial was ended by signal {-child.returncode}")
        if child.returncode:
            raise ArtifactError(_reason(errors) or f"{version}: the trial ended with status {child.returncode}")
        return Verdict(**json.loads(output.splitlines()[-1]))

    def _start(self, version: Path, stdin: int) -> "subprocess.Popen[bytes]":
        try:
            with self._lock:
                if self._stopped:
                    raise ArtifactError(f"{version}: not tried, the server stops")
                self._child = subprocess.Popen(  # noqa: S603  our own command
                    [*self._command, str(version)], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
                )
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


def yield_to_all(end: Callable[[], None] = lambda: os._exit(1)) -> None:
    """Make this process give way to every other, be the first to go when memory runs out, and end with its parent.

    Args:
        end: called when the parent has closed our standard input.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):  # not Linux, or not allowed
        os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")

    def follow() -> None:
        while os.read(0, 1024):  # not through sys.stdin, whose lock would outlive this thread at exit
            pass
        end()

    threading.Thread(target=follow, name="end-with-parent", daemon=True).start()


def _reason(errors: bytes) -> str:
    """The last line that a child wrote: our error, or else the end of a traceback."""
    lines = [line for line in errors.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ")[:LONGEST_REASON] if lines else ""
