"""What the headers of a request say that matters before anything else is read; only of plain ones."""

import re
from typing import TypeAlias

try:
    from service import _heads
except ImportError:  # installed where there was no compiler, or for another machine
    BUILT = False
else:
    BUILT = True

# The length of the body in bytes, the deadline in milliseconds, the request id. Plain: a named one takes longer.
Head: TypeAlias = tuple[int, float | None, bytes | None]

# What is not written like this, whole and alone in what was received, takes the normal way.
_PLAIN = re.compile(rb"POST /score HTTP/1\.1\r\n(?:[A-Za-z0-9-]+:[ -~]*\r\n)+\r\n")
_FIELDS = re.compile(
    rb"\r\n(content-length|x-deadline-ms|x-request-id|transfer-encoding|expect|upgrade|connection):[ ]*([ -~]*)",
    re.IGNORECASE,
)
_UNUSUAL = {b"transfer-encoding", b"expect", b"upgrade"}
_NUMBER = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_LONGEST_NUMBER = 9  # digits; Python refuses to read thousands of them


def match_head(received: bytes) -> Head | None:
    """`read_head` where there is no C, and what the C must agree with."""
    plain = _PLAIN.match(received)
    if plain is None:
        return None
    found = _FIELDS.findall(received, 0, plain.end())
    fields = {name.lower(): value.rstrip() for name, value in found}
    length, deadline = fields.get(b"content-length", b""), fields.get(b"x-deadline-ms")
    if (
        not length.isdigit()
        or len(length) > _LONGEST_NUMBER
        or len(received) != plain.end() + int(length)
        or len(fields) != len(found)  # one of them twice
        or not _UNUSUAL.isdisjoint(fields)
        or fields.get(b"connection", b"keep-alive").lower() != b"keep-alive"
        or not (deadline is None or _NUMBER.fullmatch(deadline))
    ):
        return None
    return int(length), None if deadline is None else float(deadline), fields.get(b"x-request-id")


# Reads one plain POST /score that is whole and alone; None of anything else.
read_head = _heads.read_head if BUILT else match_head
