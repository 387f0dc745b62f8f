"""A server that does nothing: it shows how much load the load generator can make.

python -m benchmarks.null_server ROWS PORT
"""

import asyncio
import sys
from typing import cast

import orjson
import uvloop


class Null(asyncio.Protocol):
    """Answers every request with the same probabilities when its body has arrived; no pipelining."""

    def __init__(self, rows: int) -> None:
        content = orjson.dumps({"probabilities": [0.12345678] * rows, "latency_ms": {"infer": 0.0}})
        self._answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content
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
            self._transport.write(self._answer)


async def serve(rows: int, port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Null(rows), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
