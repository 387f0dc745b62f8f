"""The page at `/`: one document, joined at start-up from the files beside this one, that talks to the public API.

Styles and script stand inside the document and are named to the browser by their hashes: whatever else should get into
the page, it neither runs nor calls anybody but this server.
"""

import base64
import hashlib
from importlib.resources import files

from starlette.responses import Response

from service.middleware import Answer

_SCRIPTS = ("text", "dom", "state", "editor", "result", "latency", "main")  # each uses only what stands before it
_STYLE_PLACE = "<style></style>"
_SCRIPT_PLACE = '<script type="module"></script>'


class Playground:
    """The page and its headers, ready to be sent."""

    def __init__(self) -> None:
        style, script = _read("style.css"), "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
        page = _read("index.html").replace(_STYLE_PLACE, f"<style>{style}</style>")
        page = page.replace(_SCRIPT_PLACE, f'<script type="module">{script}</script>')
        self._content = page.encode()
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:16]}"'.encode()
        self._headers = [
            (b"cache-control", b"no-cache"),
            (b"etag", self._etag),
            (b"content-security-policy", _policy(style, script).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]

    def respond(self, known: str | None) -> Response:
        """Answer a request for the page.

        Args:
            known: the If-None-Match header: what the browser has already.
        """
        if known is not None and self._etag in known.encode():
            unchanged = Response(status_code=304)
            unchanged.raw_headers.extend(self._headers)
            return unchanged
        return Answer(200, self._content, self._headers, b"text/html; charset=utf-8")


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: these texts run, this server is called, and nothing else."""
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data:",  # the icon
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
