"""Several processes on one port: what they tell each other, and the parent that keeps them alive.

The parent binds the socket and its children accept from it, so a connection waits in the socket's queue, not in a
process: when a worker dies, the others take what arrives until its replacement is ready.
"""

import asyncio
import logging
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import uvicorn
from prometheus_client import CollectorRegistry, multiprocess
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from service.config import Settings
from service.server import Server
from service.sockets import let_none_in

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # read by prometheus_client when a worker first imports it
NOW: Final = signal.SIGQUIT  # a worker that gets it ends at once
PAUSE_S: Final = 0.5  # between looks at the workers
AFTER_S: Final = 0.1  # workers close the port after their parent has
LAST_LINE_S: Final = 2.0  # for what a worker that ends at once has to log

logger = logging.getLogger(__name__)


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


class Member(Server):
    """The server of one worker: its parent says when to stop, and when at once, however often others say it too.

    A terminal sends SIGINT, and a service manager SIGTERM, to every process of a group.
    """

    begin_on: ClassVar[frozenset[int]] = frozenset({signal.SIGTERM})
    now_on: ClassVar[frozenset[int]] = frozenset({NOW})
    owns_port: ClassVar[bool] = False

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config, settings)
        self.drain_delay_s += AFTER_S

    def hear(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        """Act on a signal the first time."""
        if number == NOW or not self.told:
            super().hear(number, loop)


class Worker(Process):
    """A process that serves; uvicorn's would serve with uvicorn's server."""

    def __init__(self, config: uvicorn.Config, settings: Settings, sockets: list[socket.socket]) -> None:
        self._settings = settings
        self._member: Member | None = None
        super().__init__(config, sockets)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, in the new process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().target(sockets)

    @property
    def server(self) -> Server:
        """Made where it is first asked for, which is the new process."""
        if self._member is None:
            self._member = Member(self.config, self._settings)
        return self._member


class Supervisor(Multiprocess):
    """Keeps the workers alive, tells the fleet who died, and passes on the signals that it gets."""

    def __init__(self, config: uvicorn.Config, settings: Settings, fleet: Fleet) -> None:
        super().__init__(config, [config.bind_socket()])
        self._settings = settings
        self._fleet = fleet
        self._failed = False  # a worker could not start, and its replacement could not either

    def init_processes(self) -> None:
        """Start the workers."""
        self.processes = [self._start_worker() for _ in range(self.processes_num)]

    def run(self) -> None:
        """Serve until a signal.

        Raises:
            SystemExit: the workers could not start, or were ended by a second signal.
        """
        self._woken, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.init_processes()
        while not self.should_exit.is_set():
            self._pause()
            self.handle_signals()
            self.keep_subprocess_alive()
        self._stop()
        if self._failed:
            sys.exit(STARTUP_FAILURE)

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have died or hang."""
        for i, process in enumerate(self.processes):
            if self.should_exit.is_set() or process.is_alive(self.config.timeout_worker_healthcheck):
                continue
            process.kill()
            process.join()
            if process.pid is not None:
                self._fleet.forget(process.pid)
            if process.exitcode == STARTUP_FAILURE:
                logger.error("worker %d could not start: stopping", process.pid)
                self._failed = True
                self.should_exit.set()
            elif not self._told():
                logger.warning("worker %d died (%s): replacing it", process.pid, process.exitcode)
                self.processes[i] = self._start_worker()

    def handle_hup(self) -> None:
        """Do nothing: uvicorn would start workers of its own kind, here and below."""

    handle_ttin = handle_ttou = handle_hup

    def _start_worker(self) -> Worker:
        worker = Worker(self.config, self._settings, self.sockets)
        worker.start()
        return worker

    def _close(self) -> None:
        """Give up the port: of the workers, who have it too, the last that closes it accepts what waits there."""
        for sock in self.sockets:
            let_none_in(sock.fileno())
            sock.close()
        self.sockets.clear()

    def _pause(self, longest_s: float = PAUSE_S) -> None:
        """Wait for a signal, but not long."""
        if select.select([self._woken], [], [], max(0.0, min(longest_s, PAUSE_S)))[0]:
            os.read(self._woken, 64)

    def _told(self) -> bool:
        """Whether a signal that ends the server waits to be handled."""
        return not {signal.SIGTERM, signal.SIGINT}.isdisjoint(self.signal_queue)

    def _stop(self) -> None:
        """Have every worker drain and stop; on another signal, end them at once.

        Raises:
            SystemExit: there was another signal.
        """
        self.signal_queue.clear()
        self.terminate_all()
        closes_at = time.monotonic() + self._settings.drain_delay_s
        while any(process.process.is_alive() for process in self.processes):
            self._pause(closes_at - time.monotonic() if self.sockets else PAUSE_S)
            if self._told():
                self._end_now()
            if time.monotonic() >= closes_at:
                self._close()
        self._close()
        self.join_all()

    def _end_now(self) -> None:
        for process in self.processes:
            if process.process.is_alive() and process.pid is not None:
                os.kill(process.pid, NOW)
        end = time.monotonic() + LAST_LINE_S
        for process in self.processes:
            process.process.join(max(0.0, end - time.monotonic()))
            process.process.kill()
        self.join_all()
        sys.exit(1)


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
