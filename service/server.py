"""The life of a listening process: uvicorn's server, with an end that loses no request.

Told to stop, it says at once that it is not ready, answers on for the drain delay, takes what still waits to be
accepted, stops listening, answers what has arrived, and closes what is idle only after looking once more whether
something came. Told again, it ends.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Generator
from typing import Any, ClassVar, Final, cast

import uvicorn

from service.config import Settings
from service.guard import GUARD, Guard
from service.logs import flush
from service.protocol import GuardedProtocol
from service.sockets import let_none_in, readable

LAST_CALL_S: Final = 0.25  # connections in use learn from an answer that it was the last; then idle ones are closed
_LOOK_S: Final = 0.01  # between looks at what is unfinished
_ACCEPTS: Final = 200  # turns of the event loop, at most, for connections that came before the end
_FLUSH_S: Final = 1.0  # for the refusals of what was cut
_LOG_S: Final = 0.5  # that the last line may take
_OWN_FILES: Final = 256  # descriptors beside those of connections

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Serves until a signal, then stops as its settings say; a second signal ends the process."""

    begin_on: ClassVar[frozenset[int]] = frozenset({signal.SIGTERM, signal.SIGINT})
    now_on: ClassVar[frozenset[int]] = frozenset()  # at once, and not only the second time
    owns_port: ClassVar[bool] = True  # nobody else listens on the same socket

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings
        self.drain_delay_s = settings.drain_delay_s
        self.told = False  # to stop
        self._listens_until = 0.0

    @property
    def unanswered(self) -> int:
        """How many requests have begun and have no answer."""
        waiting = sum([len(each.pipeline) for each in list(self._open)])
        return len(self.server_state.tasks) + waiting

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        allow_files(self._settings.max_connections + _OWN_FILES)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop listening."""
        if not await super().on_tick(counter):
            return False
        if not self._listens_until:
            self._drain()
            self._listens_until = time.monotonic() + self.drain_delay_s
        return time.monotonic() >= self._listens_until

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, answer what is here within the grace time, close."""
        self._drain()
        await self._accept_last()
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        logger.info("stopped listening; requests unanswered: %d", self.unanswered)
        await self._answer_last()
        cut = self.unanswered
        if cut:
            logger.warning("cut %d requests after a grace period of %d s", cut, self._settings.grace_s)
        await self.lifespan.shutdown()
        await self._hang_up()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Hear signals in a thread, which works even when the event loop is stuck in a batch."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        known = {each: signal.signal(each, self.handle_exit) for each in self.begin_on | self.now_on}
        woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._hear, args=[reader, loop], name="signals", daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for each, handler in known.items():
                signal.signal(each, handler)
            os.close(writer)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Do nothing: the number of the signal has been written to the pipe."""

    def hear(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        """Act on a signal, in the thread that hears them."""
        if number in self.now_on or (number in self.begin_on and self.told):
            self._end_now()
        elif number in self.begin_on:
            self.told = True
            with contextlib.suppress(RuntimeError):  # the loop has closed: all is over
                loop.call_soon_threadsafe(self._stop)

    def _hear(self, reader: int, loop: asyncio.AbstractEventLoop) -> None:
        while numbers := os.read(reader, 64):
            for number in numbers:
                self.hear(number, loop)
        os.close(reader)

    def _stop(self) -> None:
        self.should_exit = True
        self._drain()

    def _end_now(self) -> None:
        last = threading.Thread(target=_say_last, args=[self.unanswered], daemon=True)
        last.start()  # beside this one: whoever holds the log's lock may be stuck
        last.join(_LOG_S)
        os._exit(1)

    @property
    def _open(self) -> set[GuardedProtocol]:
        return cast("set[GuardedProtocol]", self.server_state.connections)

    def _drain(self) -> None:
        """Not ready from now on; the next answer on each connection is its last."""
        state: dict[str, Any] = self.lifespan.state
        guard: Guard | None = state.get(GUARD)
        if guard is not None and not guard.draining:  # none: the application has not started
            guard.drain()
            for connection in list(self._open):
                connection.close_after_answer()

    async def _accept_last(self) -> None:
        """Accept the connections that came before the end: closing would reset them."""
        listening = [sock.fileno() for server in self.servers for sock in server.sockets]
        if self.owns_port:
            for each in listening:
                let_none_in(each)
        for _ in range(_ACCEPTS):
            await asyncio.sleep(0)
            if not any(map(readable, listening)):
                return

    async def _answer_last(self) -> None:
        """Answer what has arrived, close what is idle."""
        grace_s = self._settings.grace_s
        now = time.monotonic()
        last_call, end = now + min(LAST_CALL_S, grace_s), now + grace_s
        while (self._open or self.server_state.tasks) and time.monotonic() < end:
            await asyncio.sleep(_LOOK_S)
            if time.monotonic() >= last_call:
                for connection in list(self._open):
                    connection.shutdown()

    async def _hang_up(self) -> None:
        """Close what is left, when the refusals of what was cut have been sent."""
        end = time.monotonic() + _FLUSH_S
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=_FLUSH_S)
        while any(each.writing for each in self._open) and time.monotonic() < end:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(_LOOK_S)
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(_LOOK_S)
        for task in list(self.server_state.tasks):
            task.cancel()


def _say_last(cut: int) -> None:
    logger.warning("told to end at once: cut %d requests", cut)
    flush()


def allow_files(number: int) -> None:
    """Raise this process's own limit of open files, as far as the system lets it, so that it can hold connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number if hard == resource.RLIM_INFINITY else min(number, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
