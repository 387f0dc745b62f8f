"""HTTPS as the settings describe it, with certificates made here by the openssl command."""

import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.config import Settings
from service.errors import SettingsError
from service.tls import check_tls
from tests import readme
from tests.servers import free_port

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="there is no openssl command to make certificates with")
LONGEST_S = 8.0  # below the grace time: there is nothing to wait for
BODY = {"history": {"ids": [1], "tags": [3]}, "candidates": {"ids": [8961, 318], "tags": [2, 7]}}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that signed itself, and its key."""

    cert: Path
    key: Path


def make_pair(folder: Path, name: str) -> Pair:
    """Make one for a name that no test connects to."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    subject = ["-subj", f"/CN={name}.example", "-addext", f"subjectAltName=DNS:{name}.example"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", str(pair.key), "-out", str(pair.cert)]
    subprocess.run([str(OPENSSL), "req", "-x509", *kind, *subject, *files], check=True, capture_output=True)
    return pair


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """The server's and a client's."""
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make_pair(folder, name) for name in ("server", "client")}


def dinserve(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command line."""
    command = [sys.executable, "-m", "service", *arguments]
    return subprocess.Popen(
        command, cwd=readme.ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def run(*arguments: str) -> tuple[int, str]:
    """Run the command line to its end; returns its status and all it wrote."""
    with dinserve(*arguments) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def context(pairs: dict[str, Pair], *, with_client: bool) -> ssl.SSLContext:
    """What a client trusts and, if asked, shows."""
    made = ssl.create_default_context(cafile=pairs["server"].cert)
    made.check_hostname = False
    if with_client:
        made.load_cert_chain(pairs["client"].cert, pairs["client"].key)
    return made


@pytest.mark.parametrize("asks", [False, True], ids=["anybody", "client-certificates"])
def test_server_speaks_https(
    pairs: dict[str, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    """With certificate and key requests are answered over TLS only, and to clients with a certificate if it asks."""
    monkeypatch.setenv("DIN_TLS_CERT", str(pairs["server"].cert))
    monkeypatch.setenv("DIN_TLS_KEY", str(pairs["server"].key))
    monkeypatch.setenv("DIN_PORT", str(port := free_port()))
    monkeypatch.setenv("DIN_ROLLOUT_FILE", str(tmp_path / "rollout.json"))
    if asks:
        monkeypatch.setenv("DIN_TLS_CLIENT_CA", str(pairs["client"].cert))
    url = f"https://127.0.0.1:{port}"
    with dinserve("serve") as process:
        try:
            with httpx2.Client(verify=context(pairs, with_client=asks), base_url=url) as client:
                wait_until_ready(client, process)
                assert client.post("/score", json=BODY).status_code == 200
                check_health_command(asks=asks)
            with pytest.raises(httpx2.TransportError):
                httpx2.get(f"http://127.0.0.1:{port}/health")
            if asks:
                with pytest.raises(httpx2.TransportError):
                    httpx2.get(f"{url}/health", verify=context(pairs, with_client=False))
            with socket.create_connection(("127.0.0.1", port)) as plain:
                idle = context(pairs, with_client=asks).wrap_socket(plain)  # stays, and does not answer a farewell
                process.terminate()
                _, log = process.communicate(timeout=LONGEST_S)
                idle.close()
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Traceback" not in log


def wait_until_ready(client: httpx2.Client, process: subprocess.Popen[str]) -> None:
    """Ask until it is, for as long as it lives."""
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with suppress(httpx2.TransportError):
            if client.get("/health").status_code == 200:
                return
        time.sleep(0.2)
    pytest.fail("the server did not get ready")


def check_health_command(*, asks: bool) -> None:
    """The command finds the server; where that asks for a certificate, it says that it has none."""
    status, output = run("health")
    assert status == int(asks)
    assert ("DIN_TLS_CLIENT_CA" if asks else '"status":"ok"') in output


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param({"tls_cert": "server.pem"}, "DIN_TLS_KEY", id="certificate-alone"),
        pytest.param({"tls_key": "server.key"}, "DIN_TLS_CERT", id="key-alone"),
        pytest.param({"tls_client_ca": "client.pem"}, "DIN_TLS_CLIENT_CA", id="clients-alone"),
        pytest.param({"tls_cert": "missing.pem", "tls_key": "server.key"}, "DIN_TLS_CERT", id="no-such-file"),
    ],
)
def test_contradiction_stops_the_start(pairs: dict[str, Pair], given: dict[str, str], named: str) -> None:
    """Settings that make no sense together, or name no file, end the command with status 2, and it names them."""
    folder = pairs["server"].cert.parent
    flags = [word for name, file in given.items() for word in (f"--{name.replace('_', '-')}", str(folder / file))]
    status, output = run("serve", *flags)
    assert status == 2
    assert named in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("cert", "key", "client_ca", "named"),
    [
        pytest.param("server.pem", "client.key", None, "DIN_TLS_KEY", id="key-of-another"),
        pytest.param("server.key", "server.key", None, "DIN_TLS_CERT", id="no-certificate"),
        pytest.param("server.pem", "locked.key", None, "without a password", id="key-with-a-password"),
        pytest.param("server.pem", "server.key", "server.key", "DIN_TLS_CLIENT_CA", id="no-authorities"),
        pytest.param("server.pem", "server.key", "", "DIN_TLS_CLIENT_CA", id="a-folder"),
    ],
)
def test_wrong_file_is_named(pairs: dict[str, Pair], cert: str, key: str, client_ca: str | None, named: str) -> None:
    """A file that is not what it should be is an error that names its setting, at start-up."""
    folder = pairs["server"].cert.parent
    lock = ["pkcs8", "-topk8", "-passout", "pass:secret", "-in", str(pairs["server"].key)]
    subprocess.run([str(OPENSSL), *lock, "-out", str(folder / "locked.key")], check=True, capture_output=True)
    ca = None if client_ca is None else folder / client_ca
    with pytest.raises(SettingsError, match=named):
        check_tls(Settings(tls_cert=folder / cert, tls_key=folder / key, tls_client_ca=ca))
