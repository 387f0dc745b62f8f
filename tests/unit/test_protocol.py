"""A connection under its limits, in a time that passes when it is told to."""

import asyncio
import weakref

import pytest

from service import protocol
from tests.unit.wire import DEAF, GET, POST, SETTINGS, Client, code

pytestmark = pytest.mark.anyio


@pytest.fixture
def client() -> Client:
    """A client of a server of its own."""
    return Client()


async def turn() -> None:
    """Let requests run."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_whole_request_leaves_no_timer_but_that_of_an_idle_connection(client: Client) -> None:
    """Once a request has come and been answered, the connection waits as long as uvicorn lets it."""
    connection, transport = client.connect()
    connection.data_received(GET)
    await turn()
    assert transport.written.endswith(b"/")
    assert [timer.at for timer in client.clock.timers if not timer.cancelled] == [75]
    client.clock.pass_by(75)
    assert transport.state == "closed"


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("lost", [None, ConnectionResetError()], ids=["closed", "reset"])
@pytest.mark.parametrize("received", [pytest.param(b"", id="unused"), GET, GET + GET, POST, b"nonsense\r\n\r\n"])
async def test_connection_that_ended_leaves_no_cycle(client: Client, received: bytes, lost: Exception | None) -> None:
    """It is gone at once, without Python's collector, which holds everybody up."""
    connection, transport = client.connect()
    if received:
        connection.data_received(received)
    await turn()
    connection.connection_lost(lost)
    await turn()
    gone = weakref.ref(connection)
    assert all(timer.cancelled for timer in client.clock.timers)
    client.clock.timers.clear()  # a real one forgets what it would have called
    del connection, transport
    assert gone() is None


async def test_request_at_the_last_moment_keeps_an_idle_connection(client: Client) -> None:
    """A connection that has been idle too long, but has something to read, is not closed."""
    connection, transport = client.connect()
    connection.data_received(GET)
    await turn()
    connection.pending = True
    client.clock.pass_by(75)
    assert transport.state == "open"
    connection.data_received(GET)
    await turn()
    assert transport.written.count(b"200 OK") == 2


@pytest.mark.parametrize(
    ("received", "after_s", "expected"),
    [
        pytest.param(b"GET / HT", 10, (408, "request_timeout"), id="headers"),
        pytest.param(POST + b"ab", 20.5, (408, "request_timeout"), id="body"),
        pytest.param(GET + b"GET / HT", 10, (408, "request_timeout"), id="second"),
    ],
)
async def test_rest_that_does_not_come_is_refused(
    client: Client, received: bytes, after_s: float, expected: tuple[int, str]
) -> None:
    """Exactly when its time is over, what has begun and not ended is refused, and the connection soon closed."""
    connection, transport = client.connect()
    connection.data_received(received)
    await turn()
    client.clock.pass_by(after_s - 0.1)
    assert b" 408 " not in transport.written
    client.clock.pass_by(0.1)
    await turn()
    assert code(transport.written) == expected
    assert transport.state == "half closed"
    client.clock.pass_by(1)
    assert transport.state == "aborted"
    assert client.refused("body_timeout" if expected and after_s > 10 else "header_timeout") == 1


async def test_bytes_that_trickle_do_not_win_time(client: Client) -> None:
    """The time runs from the first byte, however many follow."""
    connection, transport = client.connect()
    for each in b"GET / HTTP":
        connection.data_received(bytes([each]))
        client.clock.pass_by(1)
    assert code(transport.written) == (408, "request_timeout")


async def test_time_does_not_run_while_we_do_not_read(client: Client) -> None:
    """A body that we have stopped reading, because an earlier request runs, is not late."""
    client.gate.clear()
    connection, transport = client.connect()
    connection.data_received(GET + POST + b"ab")
    await turn()
    client.clock.pass_by(30)
    assert transport.paused
    assert transport.written == b""
    client.gate.set()
    await turn()
    connection.data_received(b"cd")
    await turn()
    assert transport.written.count(b"200 OK") == 2


@pytest.mark.parametrize(("sent", "seconds"), [(b"", 75), (b"\r\n\r\n", 10)], ids=["nothing", "empty-lines"])
async def test_nothing_at_all_is_closed_silently(client: Client, sent: bytes, seconds: int) -> None:
    """A connection may be opened ahead of its first request, as idle as one between two; empty lines are none."""
    connection, transport = client.connect()
    if sent:
        connection.data_received(sent)
    client.clock.pass_by(seconds - 1)
    assert transport.state == "open"
    client.clock.pass_by(1)
    assert (transport.state, transport.written) == ("closed", b"")
    client.clock.pass_by(1)  # the client has its part in the end of a TLS connection
    assert transport.state == "aborted"


@pytest.mark.parametrize("extra", [0, 1], ids=["at-the-limit", "beyond"])
@pytest.mark.parametrize("piece", [1, 1000], ids=["in-pieces", "at-once"])
async def test_headers_are_bounded(client: Client, extra: int, piece: int) -> None:
    """Headers of the longest length pass, and longer ones do not, in however many pieces they come."""
    connection, transport = client.connect()
    line, end = b"GET / HTTP/1.1\r\na: ", b"\r\n\r\n"
    message = line + b"x" * (SETTINGS.max_header_bytes - len(line) - len(end) + extra) + end
    for start in range(0, len(message), piece):
        connection.data_received(message[start : start + piece])
    await turn()
    if extra:
        assert code(transport.written) == (431, "headers_too_large")
    else:
        assert transport.written.count(b"200 OK") == 1


async def test_body_does_not_count_as_headers(client: Client) -> None:
    """A long body, and the request after it in the same piece, are no long headers."""
    connection, transport = client.connect()
    connection.data_received(b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b"x" * 900 + GET)
    await turn()
    assert transport.written.count(b"200 OK") == 2


async def test_too_many_connections(client: Client) -> None:
    """Beyond the limit a connection gets its refusal; far beyond, it is closed without one."""
    kept = [client.connect() for _ in range(SETTINGS.max_connections)]
    refused = [client.connect() for _ in range(protocol._LINGERING + 1)]
    assert [transport.written for _, transport in kept] == [b""] * SETTINGS.max_connections
    assert {code(transport.written) for _, transport in refused[:-1]} == {(503, "overloaded")}
    assert (refused[-1][1].state, refused[-1][1].written) == ("aborted", b"")
    assert client.metric("din_connections") == SETTINGS.max_connections + protocol._LINGERING + 1
    for connection, _ in (*kept, *refused):
        connection.connection_lost(None)
    assert client.metric("din_connections") == 0
    assert client.refused("limit") == len(refused)


async def test_garbage_waits_for_the_answers_before_it(client: Client) -> None:
    """What is no HTTP is refused after the requests before it, and nothing after it is parsed."""
    client.gate.clear()
    connection, transport = client.connect()
    connection.data_received(GET + GET + b"garbage\r\n\r\n")
    connection.data_received(GET)
    await turn()
    assert transport.written == b""
    client.gate.set()
    await turn()
    assert transport.written.count(b"200 OK") == 2
    assert code(transport.written) == (400, "malformed_http")
    assert client.paths == ["/", "/"]


@pytest.mark.parametrize("before", [b"", GET], ids=["running", "queued"])
async def test_broken_body_is_the_answer_to_its_request(client: Client, before: bytes) -> None:
    """A request whose body is no HTTP gets the refusal in place of its answer, after those before it."""
    connection, transport = client.connect()
    connection.data_received(before + b"POST /broken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    await turn()
    assert transport.written.count(b"200 OK") == bool(before)
    assert transport.written.count(b"HTTP/1.1 ") == 1 + bool(before)
    assert code(transport.written) == (400, "malformed_http")


async def test_refusal_has_the_request_id_of_its_request(client: Client) -> None:
    """A refused request that has sent its id gets it back."""
    connection, transport = client.connect()
    connection.data_received(b"GET / HTTP/1.1\r\nX-Request-Id: mine\r\nb: " + b"x" * 400)
    assert b"x-request-id: mine\r\n" in transport.written


async def test_answer_that_is_not_read_ends_the_connection(client: Client) -> None:
    """A client that stops reading has a time to go on, then its connection is cut."""
    connection, transport = client.connect()
    connection.data_received(GET)
    await turn()
    connection.pause_writing()
    client.clock.pass_by(19)
    connection.resume_writing()
    client.clock.pass_by(19)
    assert transport.state == "open"
    connection.pause_writing()
    client.clock.pass_by(20)
    assert transport.state == "aborted"
    assert client.refused("unread") == 1


async def test_unread_body_does_not_hold_the_connection(client: Client) -> None:
    """When an answer did not wait for the body, the body must still come in time."""
    connection, transport = client.connect()
    connection.data_received(DEAF + b"ab")
    await turn()
    assert transport.written.count(b"200 OK") == 1
    client.clock.pass_by(20.5)
    assert transport.state == "half closed"
    assert transport.written.count(b"HTTP/1.1 ") == 1


async def test_draining_ends_each_connection_with_its_next_answer(client: Client) -> None:
    """Told to drain, the application hears it once, and the last answer on each connection says that it is."""
    connection, transport = client.connect()
    client.guard.drain()
    client.guard.drain()
    assert client.drained == [True]
    connection.data_received(GET + GET)
    await turn()
    assert transport.written.count(b"connection: close") == 1
    assert transport.written.rindex(b"connection: close") > transport.written.rindex(b"200 OK")
    assert transport.state == "closed"


@pytest.mark.parametrize(
    ("received", "pending", "state"),
    [
        pytest.param(b"", False, "closed", id="idle"),
        pytest.param(b"", True, "open", id="something-to-read"),
        pytest.param(b"GET / HT", False, "open", id="in-the-headers"),
        pytest.param(POST, False, "open", id="in-the-body"),
        pytest.param(GET, False, "open", id="running"),
        pytest.param(DEAF, False, "closed", id="in-a-body-that-nobody-reads"),
    ],
)
async def test_shutdown_closes_what_is_idle(client: Client, received: bytes, pending: bool, state: str) -> None:
    """At the end a connection is closed if nothing is there, not even unread; what has begun is answered first."""
    if received != DEAF:
        client.gate.clear()
    connection, transport = client.connect()
    connection.pending = pending
    if received:
        connection.data_received(received)
    await turn()
    client.guard.drain()
    connection.shutdown()
    assert transport.state == state
    client.gate.set()
    if state == "open":
        connection.data_received({POST: b"abcd", b"GET / HT": b"TP/1.1\r\n\r\n", b"": GET}.get(received, b"\r\n"))
        await turn()
        assert transport.written.count(b"connection: close") == 1
        assert transport.state == "closed"


async def test_abort_tells_every_request(client: Client) -> None:
    """A connection that is cut ends the request that runs, not only the newest."""
    connection, transport = client.connect()
    connection.data_received(POST)
    await turn()
    assert len(client.state.tasks) == 1
    connection.abort()
    await turn()
    assert (transport.state, len(client.state.tasks)) == ("aborted", 0)
