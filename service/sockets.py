"""What the socket module does not offer of sockets."""

import ctypes
import os
import select
import socket
import struct
import sys
from contextlib import suppress

_SO_ATTACH_FILTER = 26  # Linux, on all that Python's wheels are built for
# Classic BPF over a TCP header: load the flags; if SYN is among them, drop the packet; else take it.
_DROP_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))


def readable(descriptor: int) -> bool:
    """Whether reading from it, or accepting, would not wait."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def let_none_in(descriptor: int) -> None:
    """Have a listening socket ignore who wants to connect from now on; who has connected can be accepted.

    Between the last accept and the close of a busy socket others would connect, and be reset with what they have sent.
    Ignored, they try again after a second, and are refused then. Does nothing where the system cannot do it.
    """
    if not sys.platform.startswith("linux"):
        return
    code = ctypes.create_string_buffer(b"".join([struct.pack("HBBI", *each) for each in _DROP_SYN]))
    program = struct.pack("@HP", len(_DROP_SYN), ctypes.addressof(code))
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as same:
        same.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
