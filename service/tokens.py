"""Who may call: bearer tokens from a setting and from a file, which may change while the server runs.

Doubts are decided against the caller: a file that goes bad leaves the tokens as they were, and opens nothing.
"""

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from service.config import Settings
from service.errors import SettingsError, Unauthorized
from service.inputs import stamp

Kind: TypeAlias = Literal["token", "admin_token"]

LOOK_S = 1.0  # between looks at a file
MOST_BYTES = 1 << 16  # of a file: the event loop reads it
RULE = "a token is 16 or more visible ASCII characters, without a space"

_TOKEN = re.compile(rb"[!-~]{16,}")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a file of tokens held."""

    digests: tuple[bytes, ...] = ()  # as long for every token, so that comparing tells nothing of its length
    problem: str | None = None  # the first; never a part of a token


class TokenFile:
    """A file with a token a line; blank lines, and those that start with #, say nothing.

    Args:
        path: a symbolic link is followed each time.
        name: of the setting, for messages.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.digests: tuple[bytes, ...] = ()
        self._path = path
        self._label = f"{name} = {path}"
        self._stamp: tuple[int, ...] | None = None
        self._problem: str | None = None

    def read(self) -> None:
        """Read it for the first time.

        Raises:
            SettingsError: it cannot be read, holds no token, or one that breaks the `RULE`.
        """
        self._stamp = stamp(self._path)
        contents = _read(self._path)
        if contents.problem is not None:
            raise SettingsError(f"{self._label}: {contents.problem}")
        self.digests = contents.digests

    def refresh(self) -> None:
        """Read it again if it has changed; if it has gone bad, keep the last good tokens and say so, once."""
        found = stamp(self._path)
        if found is not None and found == self._stamp:
            return
        self._stamp = found
        contents = _read(self._path)
        if contents.problem is not None and contents.problem != self._problem:
            rest = "the others are valid" if contents.digests else "the tokens that were valid still are"
            logger.warning("%s: %s; %s", self._label, contents.problem, rest)
        self._problem = contents.problem
        if contents.digests:
            self.digests = contents.digests
            logger.info("%s: read again, tokens: %d", self._label, len(contents.digests))


class Tokens:
    """The tokens that open some routes.

    Args:
        fixed: digests of tokens that are valid for as long as the process runs.
        file: where more are, read already; looked at again, at most once in `LOOK_S`, when a request comes.
        clock: seconds, monotonic.
    """

    def __init__(
        self, fixed: tuple[bytes, ...], file: TokenFile | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed = fixed
        self._file = file
        self._clock = clock
        self._looked = clock()

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass or not, by its headers (lower-case names).

        Raises:
            Unauthorized: its Authorization is not Bearer and one of the tokens.
        """
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = _digest(token.strip(b" "))
        known = False
        for digest in self._digests():  # every one, whichever matches
            known |= hmac.compare_digest(given, digest)
        if not known or scheme.lower() != b"bearer":
            raise Unauthorized("this must be Bearer and a valid token", "Authorization")

    def _digests(self) -> tuple[bytes, ...]:
        if self._file is None:
            return self._fixed
        now = self._clock()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._file.refresh()
        return self._fixed + self._file.digests


def make_tokens(settings: Settings, kind: Kind, clock: Callable[[], float] = time.monotonic) -> Tokens | None:
    """The tokens of a setting and of its file, such as `DIN_TOKEN` and `DIN_TOKEN_FILE`; None: neither is set.

    Raises:
        SettingsError: a token breaks the `RULE`, or the file cannot be read or holds none.
    """
    token, path, name = getattr(settings, kind), getattr(settings, f"{kind}_file"), f"DIN_{kind.upper()}"
    if token is None and path is None:
        return None
    fixed: tuple[bytes, ...] = ()
    if token is not None:
        text = token.get_secret_value().encode(errors="surrogatepass")  # what the environment has that is no UTF-8
        if not _TOKEN.fullmatch(text):
            raise SettingsError(f"{name}: {RULE}")
        fixed = (_digest(text),)
    if path is None:
        return Tokens(fixed, None, clock)
    file = TokenFile(path, f"{name}_FILE")
    file.read()
    return Tokens(fixed, file, clock)


def check_tokens(settings: Settings) -> None:
    """Find out before anything is started whether every kind of token can be had.

    Raises:
        SettingsError: one cannot.
    """
    make_tokens(settings, "token")
    make_tokens(settings, "admin_token")


def first_token(path: Path) -> str:
    """The token of a file that a client sends: the first; empty if there is none."""
    said = _said(path.read_bytes())
    return said[0][1].decode(errors="replace") if said else ""


def _said(content: bytes) -> list[tuple[int, bytes]]:
    """The lines of a file of tokens that say something, with their numbers."""
    lines = [(number, line.strip()) for number, line in enumerate(content.splitlines(), 1)]
    return [(number, line) for number, line in lines if line and not line.startswith(b"#")]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _read(path: Path) -> _Contents:
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for somebody to write
            return _Contents(problem="is not a regular file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        return _Contents(problem=f"cannot be read: {error.strerror}")
    if len(content) > MOST_BYTES:
        return _Contents(problem=f"is longer than {MOST_BYTES} bytes")
    said = _said(content)
    weak = [number for number, line in said if not _TOKEN.fullmatch(line)]
    digests = tuple(_digest(line) for _, line in said if _TOKEN.fullmatch(line))
    if weak:
        return _Contents(digests, f"line {weak[0]}: {RULE}")
    return _Contents(digests, None if digests else "holds no token")
