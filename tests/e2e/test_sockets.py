"""What the system does with sockets when it is asked to."""

import socket
import sys

import pytest

from service.sockets import let_none_in, readable


def test_socket_has_something_to_read() -> None:
    """A socket is readable when something has come, or somebody waits to be accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert not readable(listening.fileno())
        with socket.create_connection(listening.getsockname()) as one:
            assert readable(listening.fileno())
            other, _ = listening.accept()
            with other:
                assert not readable(other.fileno())
                one.sendall(b"x")
                assert readable(other.fileno())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")
def test_nobody_is_let_in_any_more() -> None:
    """Who has connected before can be accepted and speaks; who comes later gets no connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(listening.getsockname()) as early:
            let_none_in(listening.fileno())
            early.sendall(b"x")
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.recv(1) == b"x"
        with pytest.raises(TimeoutError):
            socket.create_connection(listening.getsockname(), timeout=0.2)
