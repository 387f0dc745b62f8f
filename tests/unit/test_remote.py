"""The command line asks real servers, which answer as they are told."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from service.cli import main
from service.config import Settings
from service.remote import Unreachable, ask, local_url

TOKEN = "sixteen-letters-or-more"  # noqa: S105  nobody's


class Teller(ThreadingHTTPServer):
    """Answers what it is told, and notes what it is asked."""

    status = 200
    content = b"{}"
    asked: list[tuple[str, str, str | None, bytes]]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Of a Teller's requests."""

    server: Teller

    def answer(self) -> None:
        """Note the request and answer it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  the base class looks for these

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class has this name
        """Say nothing."""


@pytest.fixture
def teller() -> Iterator[Teller]:
    """A server."""
    with Teller(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(*arguments: object, **environment: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, [str(each) for each in arguments], env=environment)


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        pytest.param({"host": "127.0.0.1"}, "http://127.0.0.1:9000", id="loopback"),
        pytest.param({"host": "0.0.0.0"}, "http://127.0.0.1:9000", id="every-v4-address"),  # noqa: S104  not bound
        pytest.param({"host": "::"}, "http://[::1]:9000", id="every-v6-address"),
        pytest.param({"host": "fe80::1"}, "http://[fe80::1]:9000", id="a-v6-address"),
        pytest.param({"host": "example.test"}, "http://example.test:9000", id="name"),
        pytest.param({"tls_cert": "c.pem", "tls_key": "k.pem"}, "https://127.0.0.1:9000", id="tls"),
    ],
)
def test_local_server_is_found(settings: dict[str, Any], url: str) -> None:
    """The server that the settings describe is asked where this machine can reach it."""
    assert local_url(Settings(port=9000, **settings)) == url


def test_health_asks_the_configured_server(teller: Teller) -> None:
    """Without an address the server that the environment describes is asked; its answer is printed."""
    teller.content = b'{"status":"ok"}'
    done = run("health", DIN_PORT=str(teller.server_port))
    assert (done.exit_code, done.stdout) == (0, '{"status":"ok"}\n')
    assert [path for _, path, *_ in teller.asked] == ["/health"]


def test_health_fails_unless_ready(teller: Teller) -> None:
    """A server that is not ready gives exit status 1 and its reason."""
    teller.status, teller.content = 503, b'{"status":"loading"}'
    done = run("health", "--url", teller.url)
    assert (done.exit_code, done.stderr) == (1, '{"status":"loading"}\n')


def nobody() -> str:
    """Where no server is."""
    return f"http://127.0.0.1:{closed_port()}"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        pytest.param(nobody, "Connection refused", id="nobody-there"),
        pytest.param(lambda: "no address", "unknown url type", id="not-an-address"),
    ],
)
def test_health_fails_where_no_server_is(place: Callable[[], str], message: str) -> None:
    """Where nobody answers the exit status is 1, with the address and the reason."""
    url = place()
    done = run("health", "--url", url)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {url}/health: ")
    assert message in done.stderr


@pytest.mark.parametrize("answer", [b"hello\n", b""], ids=["not-http", "silence"])
def test_what_is_no_http_is_unreachable(answer: bytes) -> None:
    """A server of another kind, or one that does not answer in time, is unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                if not answer:
                    connection.recv(65536)
                    connection.recv(1)  # the client leaves

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unreachable):
            ask(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)
        thread.join()


def test_what_is_no_json_is_unreachable(teller: Teller) -> None:
    """An answer that is no JSON comes from something else."""
    teller.content = b"<html>"
    with pytest.raises(Unreachable, match="is that a dinserve"):
        _ = ask(teller.url).content


STATE = {
    "pinned": "1",
    "canary": {"version": "2", "percent": 2.5},
    "shadow": None,
    "versions": [
        {"version": "1", "roles": ["serving"], "engine": "native", "loaded_at": 0.0, "refused": None},
        {"version": "2", "roles": ["canary"], "engine": "native", "loaded_at": 86400.0, "refused": None},
        {"version": "3", "roles": [], "engine": None, "loaded_at": None, "refused": "sha256 is not the manifest's"},
        {"version": "4", "roles": [], "engine": None, "loaded_at": None, "refused": None},
    ],
    "problems": ["a restart will forget"],
}
SHOWN = """pinned: 1
canary: version 2, 2.5 % of the requests
       1  serving  (native, loaded 1970-01-01T00:00:00+00:00)
       2  canary  (native, loaded 1970-01-02T00:00:00+00:00)
       3  refused: sha256 is not the manifest's
       4  not loaded
"""


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["list"], ("GET", "/admin/versions", b"")),
        (["activate", "2"], ("POST", "/admin/versions/2/activate", b"")),
        (["follow-latest"], ("POST", "/admin/versions/follow-latest", b"")),
        (["canary", "2", "--percent", "2.5"], ("PUT", "/admin/canary", b'{"version": "2", "percent": 2.5}')),
        (["shadow", "2"], ("PUT", "/admin/shadow", b'{"version": "2", "percent": 5.0}')),
        (["shadow", "--off"], ("DELETE", "/admin/shadow", b"")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_versions_are_chosen_from_the_command_line(
    teller: Teller, arguments: list[str], asked: tuple[str, str, bytes]
) -> None:
    """Each command asks its route with the token, and shows what came of it."""
    teller.content = json.dumps(STATE).encode()
    done = run("versions", "--url", teller.url, *arguments, DIN_ADMIN_TOKEN=TOKEN)
    assert (done.exit_code, done.stdout, done.stderr) == (0, SHOWN, "problem: a restart will forget\n")
    method, path, body = asked
    assert teller.asked == [(method, path, f"Bearer {TOKEN}", body)]


def test_token_may_come_from_a_file(teller: Teller, tmp_path: Any) -> None:
    """The first token of the file is used; without any token the settings are named, with exit status 2."""
    file = tmp_path / "tokens"
    file.write_text(f"# admins\n\n{TOKEN}\nanother-token-of-sixteen\n")
    teller.content = json.dumps({**STATE, "pinned": None, "canary": None, "versions": [], "problems": []}).encode()
    done = run("versions", "--url", teller.url, "list", DIN_ADMIN_TOKEN_FILE=str(file))
    assert (done.exit_code, done.stdout) == (0, "follows the latest\n")
    assert teller.asked[0][2] == f"Bearer {TOKEN}"
    done = run("versions", "list")
    assert (done.exit_code, done.stderr[:23]) == (2, "Error: DIN_ADMIN_TOKEN ")


def test_refusal_is_shown(teller: Teller) -> None:
    """What the server refuses is said with its code, with exit status 1."""
    error = {"code": "version_refused", "message": "3: no graph", "field": "version"}
    teller.status, teller.content = 409, json.dumps({"error": error, "request_id": "1"}).encode()
    done = run("versions", "--url", teller.url, "activate", "3", DIN_ADMIN_TOKEN=TOKEN)
    assert (done.exit_code, done.stderr) == (1, "Error: version_refused: 3: no graph\n")


@pytest.mark.parametrize("arguments", [["canary"], ["canary", "2", "--off"]], ids=["nothing", "both"])
def test_share_needs_a_version_or_an_end(arguments: list[str]) -> None:
    """A canary begins with a version or ends."""
    done = run("versions", *arguments, DIN_ADMIN_TOKEN=TOKEN)
    assert done.exit_code == 2
    assert "give a version, or --off" in done.stderr
