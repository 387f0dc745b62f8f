"""The log: a line for people or a JSON object for programs, written without ever holding up who logs.

A reader that stops reading fills the pipe, and then a plain handler would stop the event loop for ever: lines are
written by a thread, and those beyond `MOST_WAITING` are lost and counted.

The JSON is our own twenty lines: with structlog or python-json-logger the fields, the encoder and the time would still
be written here, and the core would depend on one more package.
"""

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any, Final, Literal, TypeAlias

import orjson

Fields: TypeAlias = dict[str, Any]

MOST_WAITING: Final = 10_000  # lines
_FLUSH_S = 0.5  # at the end, for lines that wait

_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)  # needs no quotes

logger = logging.getLogger(__name__)


def fields(**given: Any) -> dict[str, Fields]:
    """What to log beside a message, as `extra`; what is None is left out."""
    return {"fields": {name: value for name, value in given.items() if value is not None}}


class Text(logging.Formatter):
    """`time level logger message name=value ...`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Make the first line; a client's own values cannot begin another."""
        pairs = [f" {name}={_plain(value)}" for name, value in getattr(record, "fields", {}).items()]
        return super().formatMessage(record) + "".join(pairs)


class Json(logging.Formatter):
    """An object a line: time (ISO 8601, UTC), level, logger, message, the fields, and exception, a string."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        return _dump(line)


class Outlet(logging.Handler):
    """Writes to a descriptor in a thread of its own.

    Not through `sys.stderr`: Python ends only when it has that one's lock, which a write that is stuck would hold.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._lost = 0

    def start(self) -> None:
        """Begin to write."""
        threading.Thread(target=self._serve, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line over."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:  # noqa: BLE001  what is logged may be anything, and whoever logs goes on
            self.handleError(record)
            return
        if self._lines.qsize() < MOST_WAITING:
            self._lines.put(line)
        else:
            self._lost += 1

    def flush(self) -> None:
        """Wait, but not long, until what was handed over is written."""
        written = threading.Event()
        self._lines.put(written)
        written.wait(_FLUSH_S)

    def _serve(self) -> None:
        while True:
            match self._lines.get():
                case threading.Event() as reached:
                    reached.set()
                case line:
                    self._write(line)
            if self._lost and self._lines.empty():
                lost, self._lost = self._lost, 0
                logger.warning("log lines lost, because nobody read them: %d", lost)

    def _write(self, line: bytes) -> None:
        with suppress(OSError):  # the reader has gone
            while line:
                line = line[os.write(self._descriptor, line) :]


class Ration:
    """Lets through the first few of what there may be a storm of.

    Args:
        most: in each period.
        period_s: its length.
    """

    def __init__(self, most: int, period_s: float) -> None:
        self._most = most
        self._period_s = period_s
        self._until = 0.0
        self._taken = 0
        self._left_out = 0

    def take(self, now: float) -> int | None:
        """How many were left out since the last one, or None to leave this one out; `now` in monotonic seconds."""
        if now >= self._until:
            self._until, self._taken = now + self._period_s, 0
        if self._taken >= self._most:
            self._left_out += 1
            return None
        self._taken += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


def start_logging(level: str, form: Literal["text", "json"]) -> None:
    """Log to standard error, all loggers alike. Does nothing where somebody has already set up logging."""
    root = logging.getLogger()
    if root.handlers:
        return
    outlet = Outlet(os.dup(2))
    outlet.setFormatter(Json() if form == "json" else Text())
    outlet.start()
    root.addHandler(outlet)
    root.setLevel(level.upper())
    if form == "json":  # what Python would print itself
        logging.captureWarnings(capture=True)
        sys.excepthook = lambda *error: logger.critical("uncaught", exc_info=error)
        threading.excepthook = lambda args: logger.critical("uncaught in a thread", exc_info=args.exc_value)


@contextmanager
def captured(form: Literal["text", "json"]) -> Iterator[None]:
    """Log what is written past the log meanwhile, as by TensorFlow's C++ while it is imported, where that must be JSON.

    At most what a pipe holds; more is dropped.
    """
    if form == "text":
        yield
        return
    kept, (reader, writer) = os.dup(2), os.pipe()
    os.set_blocking(writer, False)  # nobody reads before the end
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        with os.fdopen(reader, errors="replace") as written:
            for line in written:
                logger.info("%s", line.rstrip())


def flush() -> None:
    """Wait, but not long, until what was logged is written: for those who end without Python's own end."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _plain(value: Any) -> str:
    text = f"{value}"
    return text if _PLAIN.fullmatch(text) else _dump(text)


def _dump(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # what no UTF-8 has, as in the name of a file
        return json.dumps(value, default=str)
