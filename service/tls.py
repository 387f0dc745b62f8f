"""What the settings say about TLS: checked at start-up, and as uvicorn and our own client want to have it."""

import ssl
from typing import Any

from service.config import Settings
from service.errors import SettingsError


def check_tls(settings: Settings) -> None:
    """Read the files once, so that what is wrong with them stops start-up.

    Raises:
        SettingsError: a file cannot be read, is not what it should be, or the key is another certificate's.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return
    for name in ("tls_cert", "tls_key", "tls_client_ca"):
        file = getattr(settings, name)
        try:
            if file is not None:
                file.read_bytes()
        except OSError as error:
            raise SettingsError(f"DIN_{name.upper()} = {str(file)!r}: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")  # or it would ask for one
    except ssl.SSLError as error:
        raise SettingsError(
            f"DIN_TLS_CERT = {str(settings.tls_cert)!r}, DIN_TLS_KEY = {str(settings.tls_key)!r}: "
            f"not a certificate in PEM and its key, without a password ({error.reason})"
        ) from error
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except ssl.SSLError as error:
            raise SettingsError(
                f"DIN_TLS_CLIENT_CA = {str(settings.tls_client_ca)!r}: no certificates in PEM ({error.reason})"
            ) from error


def server_options(settings: Settings) -> dict[str, Any]:
    """Arguments of `uvicorn.Config`."""
    if settings.tls_cert is None:
        return {}
    options: dict[str, Any] = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    if settings.tls_client_ca is not None:
        options |= {"ssl_ca_certs": settings.tls_client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    return options


def local_context(settings: Settings) -> ssl.SSLContext | None:
    """How to reach this machine's own server: its certificate, whatever name is in it. None: without TLS."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(settings.tls_cert)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own is enough, whoever signed it
    return context
