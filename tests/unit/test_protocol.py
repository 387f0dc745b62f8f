"""An answer's head waits for what follows it, and nothing else does."""

import asyncio

import pytest

from service.protocol import Whole

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Recorder(asyncio.Transport):
    """Notes each write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.events: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Note it."""
        self.events.append(bytes(data))

    def close(self) -> None:
        """Note it."""
        self.events.append(b"closed")


@pytest.mark.parametrize(
    ("writes", "events"),
    [
        pytest.param([HEAD, b"{}", HEAD, b"[]"], [HEAD + b"{}", HEAD + b"[]"], id="head-and-body"),
        pytest.param([HEAD], [], id="head-alone"),
        pytest.param([HEAD, b""], [HEAD], id="empty-body"),
        pytest.param([HEAD, b"5\r\nhello\r\n", b"0\r\n\r\n"], [HEAD + b"5\r\nhello\r\n", b"0\r\n\r\n"], id="chunks"),
        pytest.param([HEAD, HEAD], [HEAD + HEAD], id="body-like-a-head"),
        pytest.param([CONTINUE, HEAD, b"{}"], [CONTINUE, HEAD + b"{}"], id="interim"),
        pytest.param([HEAD + b"no"], [HEAD + b"no"], id="all-at-once"),
    ],
)
def test_head_waits_for_its_body(writes: list[bytes], events: list[bytes]) -> None:
    """What is written after a head leaves with it; everything else leaves at once."""
    recorder = Recorder()
    transport = Whole(recorder)
    for data in writes:
        transport.write(data)
    assert recorder.events == events


@pytest.mark.parametrize(
    ("writes", "events"), [([HEAD], [HEAD, b"closed"]), ([HEAD, b"{}"], [HEAD + b"{}", b"closed"])]
)
def test_closing_keeps_nothing_back(writes: list[bytes], events: list[bytes]) -> None:
    """A head whose body never comes is written before the connection closes."""
    recorder = Recorder()
    transport = Whole(recorder)
    for data in writes:
        transport.write(data)
    transport.close()
    assert recorder.events == events


def test_the_rest_is_the_transport_s() -> None:
    """Whatever else is asked of it, the transport answers."""
    transport = Whole(Recorder())
    assert [transport.get_extra_info("peername") for _ in range(2)] == [("127.0.0.1", 1)] * 2
