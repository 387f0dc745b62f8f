"""Which server a command asks, and how."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import click

from service.config import Settings, load_settings
from service.remote import local_url
from service.tls import local_context
from service.tokens import first_token


@dataclass(frozen=True, slots=True)
class Target:
    """A server."""

    url: str
    token: str | None = None
    context: ssl.SSLContext | None = None  # how its certificate is checked; None: against the system's authorities


def targeted(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--url`, and as its first argument the `Target` that it means."""

    @click.option("--url", help="server to ask; default: the one this environment's settings describe")
    @wraps(command)
    def with_target(url: str | None, **options: Any) -> None:
        command(find(url), **options)

    return with_target


def find(url: str | None) -> Target:
    """The server of a URL, or of the environment's settings.

    Raises:
        SettingsError: the environment's settings are wrong.
        BadParameter: that is no URL of a server.
    """
    settings = load_settings()
    token = _token(settings)
    if url is None:
        return Target(local_url(settings), token, local_context(settings))
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise click.BadParameter(f"{url!r} is no URL of a server, such as http://127.0.0.1:8000", param_hint="--url")
    return Target(url.rstrip("/"), token)


def _token(settings: Settings) -> str | None:
    if settings.token is not None:
        return settings.token.get_secret_value()
    return first_token(settings.token_file) or None if settings.token_file else None
