"""Several processes on one port: what they tell each other, and the parent that keeps them alive.

The parent binds the socket and its children accept from it, so a connection waits in the socket's queue, not in a
process: when a worker dies, the others take what arrives until its replacement is ready.
"""

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry, multiprocess
from uvicorn.supervisors import Multiprocess

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when a worker first imports it


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers of one port: each ready one has a file, named by its process id, in a folder they share."""

    folder: Path
    size: int

    def publish(self, *, ready: bool) -> None:
        """Tell the others whether this process is ready."""
        file = self.folder / f"{os.getpid()}.ready"
        if ready:
            file.touch()
        else:
            file.unlink(missing_ok=True)

    def ready(self) -> int:
        """How many workers are ready."""
        return len(list(self.folder.glob("*.ready")))

    def forget(self, pid: int) -> None:
        """A worker died: it is not ready, and what it was doing it does no more."""
        (self.folder / f"{pid}.ready").unlink(missing_ok=True)
        multiprocess.mark_process_dead(pid, str(self.folder))  # type: ignore[no-untyped-call]

    def check(self) -> dict[str, bool | str]:
        """An entry for the health routes."""
        ready = self.ready()
        return {"ok": ready == self.size, "detail": f"{ready} of {self.size} ready"}

    def metrics(self) -> CollectorRegistry:
        """A registry that adds up the metrics of all workers."""
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(self.folder))  # type: ignore[no-untyped-call]
        return registry


class Supervisor(Multiprocess):
    """uvicorn's supervisor, which also tells the fleet who died."""

    def __init__(self, config: uvicorn.Config, fleet: Fleet) -> None:
        super().__init__(config, [config.bind_socket()])
        self._fleet = fleet

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died or hang."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        for pid in before - {process.pid for process in self.processes}:
            if pid is not None:
                self._fleet.forget(pid)


def end_with_parent() -> None:
    """Have this worker stop as on SIGTERM when its parent is gone: nobody else would ever end it."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, name="end-with-parent", daemon=True).start()


def make_fleet(folder: Path, size: int) -> Fleet:
    """A fleet whose workers, started from here on, share `folder`."""
    os.environ[METRICS_FOLDER] = str(folder)
    return Fleet(folder, size)
