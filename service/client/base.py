"""What the two clients have in common: their options, and the beginning of a call."""

import random
import ssl
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

import httpx2

from service.client.errors import ClientError, Unreachable
from service.client.messages import Message
from service.client.policy import Budget, Call, Failed, Rules

IDLE_S = 60.0  # how long an unused connection is kept: less than the server keeps it by default


class Base(ABC):
    """A client's options.

    Args:
        url: of the server, such as `http://127.0.0.1:8000`.
        token: what `DIN_TOKEN` or a line of its file says, if the server asks for one.
        timeout_s: of a whole call, retries and waits included; the server is told what is left of it.
        retries: how often an attempt that was refused with 503, or lost with its connection, is repeated. `Retry-After`
            is honoured where it fits into the call's time, else the call ends at once; without it, the wait is drawn at
            random from a range that doubles.
        hedge_s: how long the first attempt has alone before the same is sent once more; the first good answer counts.
            A high percentile of the latency is a good value. None: never.
        connections: most that are open at once; an attempt beyond waits for one within its call's time.
        budget: what retries and hedges are paid from: by default a tenth of the calls, and ten saved up. Clients can
            share one.
        verify: how certificates are checked; None: against those of the system.

    Raises:
        ValueError: an option makes no sense.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        timeout_s: float = 1.0,
        retries: int = 2,
        hedge_s: float | None = None,
        connections: int = 100,
        budget: Budget | None = None,
        verify: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        if httpx2.URL(self.url).scheme not in {"http", "https"}:
            raise ValueError(f"{url!r}: not the URL of a server, such as http://127.0.0.1:8000")
        self.budget = budget or Budget()
        self._rules = Rules(timeout_s, retries, hedge_s)
        self._headers = {}
        if token is not None:
            if not token.isascii() or not token.isprintable():
                raise ValueError("the token must be visible ASCII characters")
            self._headers["Authorization"] = f"Bearer {token}"
        self._connections = connections
        self._verify = verify
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Make what the calls go through."""

    def _options(self) -> dict[str, Any]:
        """Of httpx2's transport. Proxies of the environment are left alone: a score goes straight to its server."""
        return {
            "verify": True if self._verify is None else self._verify,
            "trust_env": False,
            "limits": httpx2.Limits(
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=IDLE_S,
            ),
        }

    def _call(self, now: float, timeout_s: float | None) -> Call[Any]:
        rules = self._rules if timeout_s is None else replace(self._rules, timeout_s=timeout_s)
        return Call(rules, self.budget, now, random.random)

    def _request(
        self, message: Message[Any], remaining_s: float, timeouts: MutableMapping[str, float]
    ) -> httpx2.Request:
        """An attempt, which tells the server how much time is left."""
        return httpx2.Request(
            message.method,
            self.url + message.path,
            headers={**self._headers, **message.headers, "X-Deadline-Ms": f"{max(remaining_s * 1000, 1):.3f}"},
            content=message.content,
            extensions={"timeout": timeouts},
        )

    def _failed(self, error: httpx2.TransportError, call: Call[Any]) -> Failed:
        """What an attempt that got no answer means."""
        if isinstance(error, httpx2.TimeoutException):
            return Failed(call.timed_out())
        reason = f"{self.url}: {error or type(error).__name__}"
        return Failed(ClientError(reason) if isinstance(error, httpx2.LocalProtocolError) else Unreachable(reason))
