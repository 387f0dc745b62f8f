"""What a server does with signals and its limit of open files, without listening."""

import asyncio
import os
import resource
import signal
import threading

import pytest
import uvicorn

from service.config import Settings
from service.server import Server, allow_files
from service.workers import NOW, Member

pytestmark = pytest.mark.anyio


class Ended(Exception):
    """In place of the end of the process."""


def make(kind: type[Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that has not started, whose end can be seen."""

    def end(_: int) -> None:
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    server = kind(uvicorn.Config("nothing:app", log_config=None), Settings())
    monkeypatch.setattr(server, "_drain", lambda: None)
    return server


@pytest.mark.parametrize(
    ("kind", "heard", "ends"),
    [
        pytest.param(Server, [signal.SIGTERM], False, id="first"),
        pytest.param(Server, [signal.SIGCHLD, signal.SIGTERM, signal.SIGCHLD], False, id="others"),
        pytest.param(Server, [signal.SIGTERM, signal.SIGINT], True, id="second"),
        pytest.param(Member, [signal.SIGTERM, signal.SIGTERM], False, id="worker-twice"),
        pytest.param(Member, [signal.SIGINT], None, id="worker-interrupted"),
        pytest.param(Member, [signal.SIGTERM, NOW], True, id="worker-at-once"),
    ],
)
async def test_signals(
    kind: type[Server], heard: list[int], ends: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first signal stops a server and the second ends it; a worker's parent says at once in a way of its own."""
    server, loop = make(kind, monkeypatch), asyncio.get_running_loop()
    if ends:
        for number in heard[:-1]:
            server.hear(number, loop)
        with pytest.raises(Ended):
            server.hear(heard[-1], loop)
    else:
        for number in heard:
            server.hear(number, loop)
        await asyncio.sleep(0)
        assert server.should_exit is (ends is False)


async def test_signals_are_heard_in_a_thread_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it serves, signals reach the server through its thread; afterwards their handlers are what they were."""
    server, heard = make(Server, monkeypatch), threading.Event()
    monkeypatch.setattr(server, "hear", lambda number, _: heard.set() if number == signal.SIGTERM else None)
    before = {each: signal.getsignal(each) for each in server.begin_on}
    with server.capture_signals():
        signal.raise_signal(signal.SIGTERM)
        assert await asyncio.to_thread(heard.wait, 10)
    assert {each: signal.getsignal(each) for each in server.begin_on} == before


@pytest.mark.parametrize(("soft", "wanted"), [(100, 150), (100, 10_000_000), (200, 150)], ids=["less", "much", "more"])
def test_limit_of_files_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch, soft: int, wanted: int) -> None:
    """A limit below what connections need is raised, not beyond what the system allows, and never lowered."""
    limits = [(soft, 1000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    allow_files(wanted)
    assert limits[-1] == (max(soft, min(wanted, 1000)), 1000)
