"""Asks a running server, for the command line."""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from service.config import Settings
from service.errors import DinserveError


class Unreachable(DinserveError):
    """No answer came; the message names the server."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the server."""

    status: int
    text: str

    @property
    def content(self) -> Any:
        """The body, parsed.

        Raises:
            Unreachable: it is not JSON, so something else than our server answered.
        """
        try:
            return json.loads(self.text)
        except ValueError:
            raise Unreachable(f"status {self.status}, and no JSON: is that a dinserve?") from None


def ask(
    url: str,
    method: str = "GET",
    *,
    token: str | None = None,
    body: object = None,
    timeout_s: float = 5.0,
    context: ssl.SSLContext | None = None,
) -> Reply:
    """Send a request, past any proxy, which cannot see this machine's server.

    Raises:
        Unreachable: there is no answer.
    """
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    secure = urllib.request.HTTPSHandler(context=context)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)
    try:
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  the user names the server
        with direct.open(request, timeout=timeout_s) as response:
            return Reply(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        return Reply(error.code, error.read().decode(errors="replace"))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {error}") from error


def local_url(settings: Settings) -> str:
    """Where this machine finds a server with these settings."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  compared, not bound
    scheme = "http" if settings.tls_cert is None else "https"
    return f"{scheme}://[{host}]:{settings.port}" if ":" in host else f"{scheme}://{host}:{settings.port}"
