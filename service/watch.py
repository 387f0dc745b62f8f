"""Looks closer at some requests: traces them, gives them a line in the log, and warns of those that were slow."""

import logging
import math
import random
import sys
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from service.config import Settings
from service.errors import SettingsError
from service.logs import Ration, fields
from service.middleware import Call
from service.notes import Notes

if TYPE_CHECKING:  # imported where traces are asked for
    from service.tracing import Tracing

_SPAN = "POST /score"
_SLOW_A_SECOND = 10  # lines: an overload must not bring a storm of them
_LONGEST_PATH = 200  # characters of it that are logged
_CUT = "cut"  # the code of what got no answer
_BROKEN = 500  # statuses from here on are the server's fault

logger = logging.getLogger(__name__)


class Watch:
    """Decides when a request arrives what will be wanted to know of it, and says it when it has been answered.

    Args:
        tracing: traces some; None: nobody asked for that.
        trace_ratio: share of requests to score that are traced, where no `traceparent` decides.
        access_log: share of requests that are logged.
        slow_ms: those to score that take longer are logged.
    """

    def __init__(self, tracing: "Tracing | None", trace_ratio: float, access_log: float, slow_ms: float | None) -> None:
        self._tracing = tracing
        self._traced = 0.0 if tracing is None else trace_ratio
        self._logged = access_log
        self._drawn = 1.0 if slow_ms is not None else min(1.0, self._traced + self._logged)
        self._skips = _misses(self._drawn)  # requests without `traceparent` until the next that is looked at
        self._slow_s = math.inf if slow_ms is None else slow_ms / 1000
        self._slow = Ration(_SLOW_A_SECOND, 1.0)

    def begin(self, call: Call, scope: Scope) -> None:
        """Give a request notes, if something may be wanted to know of it."""
        parent = call.headers.get(b"traceparent")
        if self._skips and parent is None:
            self._skips -= 1
            return
        drawn = 1.0
        if parent is None:
            drawn, self._skips = self._drawn, _misses(self._drawn)
        scores = scope["method"] == "POST" and scope["path"].endswith("/score")  # below a root path too
        trace = None
        if scores and self._tracing is not None:
            trace = self._tracing.sample(_SPAN, parent, call.arrived, self._traced / drawn)
        logged = random.random() * drawn < self._logged  # noqa: S311  no secret
        if logged or trace is not None or (scores and self._slow_s < math.inf):
            call.notes = Notes(logged, trace, scores)

    def end(self, call: Call, notes: Notes, scope: Scope, ended: float) -> None:
        """Say what was wanted to know of it."""
        if self._tracing is not None and notes.trace is not None:
            failed = call.status >= _BROKEN or not call.status
            self._tracing.end(
                notes.trace, _attributes(call, notes, scope), notes.stages(ended), notes.runs, ended, failed=failed
            )
        if notes.logged:
            logger.info("request", extra=_access(call, notes, scope, ended))
        if notes.scores and ended - call.arrived > self._slow_s:
            left_out = self._slow.take(ended)
            if left_out is not None:
                logger.warning("slow request", extra=_slow(call, notes, ended, left_out))


def _misses(chance: float) -> int:
    """How many draws of such a chance fail before the next that does not: a look at each would take 2 us."""
    if chance <= 0:
        return sys.maxsize
    return 0 if chance >= 1 else int(math.log(1 - random.random()) / math.log1p(-chance))  # noqa: S311  no secret


def make_watch(settings: Settings, tracing: "Tracing | None") -> Watch | None:
    """A watch for what the settings want; None if that is nothing."""
    if tracing is None and not settings.access_log and settings.slow_ms is None:
        return None
    return Watch(tracing, settings.trace_ratio, settings.access_log, settings.slow_ms)


def make_tracing(settings: Settings) -> "Tracing | None":
    """What traces, in the process that serves; None if nothing is to be traced.

    Raises:
        SettingsError: OpenTelemetry is not installed, or one of its own variables is wrong.
    """
    if not settings.trace_ratio:
        return None
    _require_opentelemetry(settings)
    from service import tracing

    return tracing.make_tracing()


def check_tracing(settings: Settings) -> None:
    """Check that the traces that the settings want can be made, before anything else is.

    Raises:
        SettingsError: as `make_tracing`.
    """
    _require_opentelemetry(settings)
    from service import tracing

    tracing.make_processor().shutdown()  # type: ignore[no-untyped-call]


def _require_opentelemetry(settings: Settings) -> None:
    try:
        import service.tracing  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"DIN_TRACE_RATIO = {settings.trace_ratio}: traces need OpenTelemetry: pip install 'dinserve[otel]'"
        ) from error


def _attributes(call: Call, notes: Notes, scope: Scope) -> dict[str, Any]:
    """What the span of a request says of it; the names that do not begin with din are OpenTelemetry's conventions."""
    said: dict[str, Any] = {
        "http.request.method": scope["method"],
        "http.route": "/score",
        "url.path": scope["path"],
        "url.scheme": scope["scheme"],
        "http.response.status_code": call.status,
        "din.request_id": call.request_id,
    }
    if call.code != "ok":
        said["error.type"] = call.code or _CUT
    if notes.sample is not None:
        said |= {"din.version": notes.version, "din.candidates": notes.sample.rows}
        said |= {"din.history.ids": len(notes.sample.seq_id), "din.history.tags": len(notes.sample.seq_tag)}
    return said


def _access(call: Call, notes: Notes, scope: Scope, ended: float) -> dict[str, Any]:
    client = scope.get("client")
    return fields(
        request_id=call.request_id,
        trace_id=call.trace_id,
        client=client and client[0],
        method=scope["method"],
        path=scope["path"][:_LONGEST_PATH],
        status=call.status,
        code=call.code,
        ms=_ms(ended - call.arrived),
        candidates=notes.sample and notes.sample.rows,
        version=notes.version,
    )


def _slow(call: Call, notes: Notes, ended: float, left_out: int) -> dict[str, Any]:
    spent: dict[str, float] = {}
    for stage in notes.stages(ended):  # of several batches the longest, as in the answer
        name = f"{stage.name}_ms"
        spent[name] = max(spent.get(name, 0.0), _ms(stage.ended - stage.started))
    sample = notes.sample
    return fields(
        request_id=call.request_id,
        trace_id=call.trace_id,
        code=call.code or _CUT,
        ms=_ms(ended - call.arrived),
        **spent,
        candidates=sample and sample.rows,
        history_ids=sample and len(sample.seq_id),
        history_tags=sample and len(sample.seq_tag),
        batch_rows=max([run.rows for run in notes.runs], default=None),
        version=notes.version,
        left_out=left_out or None,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
