"""A server that does nothing, or the same for every request: it shows what the load generator and the machine can do.

python -m benchmarks.null_server 10 8000         # 10 probabilities, at once: how much load can be made
python -m benchmarks.null_server 0 8000 300      # as many as there are candidates, after 300 us of constant work

Constant work is a number of hashes, found once at the start: on a machine that is slower for a while they take longer.
"""

import asyncio
import hashlib
import sys
import time
from typing import cast

import orjson
import uvloop

_BLOCK = bytes(4096)
_TRIES = 200  # of which the fastest tells what a hash takes


class Null(asyncio.Protocol):
    """Answers every request with the same probabilities when its body has arrived; no pipelining.

    Args:
        rows: how many; 0: as many as the request has candidates.
        hashes: made before each answer.
    """

    def __init__(self, rows: int, hashes: int = 0) -> None:
        self._answer = _answer(rows) if rows else b""
        self._hashes = hashes
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own class is no subclass of it

    def data_received(self, data: bytes) -> None:
        """Answer once a request is complete."""
        assert self._transport is not None
        self._received += data
        head, found, body = bytes(self._received).lower().partition(b"\r\n\r\n")
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if found and len(body) >= int(length or 0):
            self._received.clear()
            _work(self._hashes)
            self._transport.write(self._answer or _answer(len(orjson.loads(body)["candidates"]["ids"]) if body else 0))


def _answer(rows: int) -> bytes:
    content = orjson.dumps({"probabilities": [0.12345678] * rows, "latency_ms": {"infer": 0.0}})
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content


def _work(hashes: int) -> None:
    for _ in range(hashes):
        hashlib.sha256(_BLOCK).digest()


def _hashes(work_us: float) -> int:
    """How many take so long when the machine is at its fastest."""
    fastest_us = float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        _work(10)
        fastest_us = min(fastest_us, (time.perf_counter() - started) * 1e5)
    return round(work_us / fastest_us)


async def serve(rows: int, port: int, work_us: float) -> None:
    """Serve until killed."""
    hashes = _hashes(work_us) if work_us else 0
    server = await asyncio.get_running_loop().create_server(lambda: Null(rows, hashes), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) if sys.argv[3:] else 0.0))
