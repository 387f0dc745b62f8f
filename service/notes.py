"""What is kept of the few requests that are traced or logged, or may turn out to be slow."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from service.batch import Sample
from service.scorer import Run, Scored


class Stage(NamedTuple):
    """A stretch of a request's time, between two readings of `time.monotonic()`."""

    name: str
    started: float
    ended: float


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A request that is traced."""

    id: str  # 32 hexadecimal digits
    name: str  # of its span
    arrived: float
    context: Any  # of its span; OpenTelemetry's, which few install
    parent: Any  # context of the caller's span, None without one


@dataclass(slots=True, eq=False)
class Notes:
    """How far a request came; times are of `time.monotonic()`."""

    logged: bool  # it gets a line in the log
    trace: Trace | None
    scores: bool  # it asks for scores
    sample: Sample | None = None  # once it is parsed
    version: str | None = None  # that scores it
    read_at: float = 0.0
    parsed_at: float = 0.0
    scored: Scored | None = None
    scored_at: float = 0.0
    rendered_at: float = 0.0

    def parsed(self, sample: Sample, version: str, read_at: float, parsed_at: float) -> None:
        """Its body is known to be good."""
        self.sample, self.version, self.read_at, self.parsed_at = sample, version, read_at, parsed_at

    def answered(self, scored: Scored, scored_at: float, rendered_at: float) -> None:
        """It was scored."""
        self.scored, self.scored_at, self.rendered_at = scored, scored_at, rendered_at

    @property
    def runs(self) -> list[Run]:
        """Its batches."""
        return [run for scored in self._scorings for run in scored.runs]

    def stages(self, ended: float) -> Iterator[Stage]:
        """The stages it went through, in order.

        A request larger than a batch has pack and infer of each of its batches, one that was explained queue, pack and
        infer three times, and one that was not scored, for all that followed parsing, `wait`.
        """
        if self.sample is None:
            return
        yield Stage("parse", self.read_at, self.parsed_at)
        if self.scored is None:
            yield Stage("wait", self.parsed_at, ended)
            return
        for scored in self._scorings:
            yield Stage("queue", scored.entered, scored.released)
            for run in scored.runs:
                packed = run.started + run.pack_s
                yield Stage("pack", run.started, packed)
                yield Stage("infer", packed, packed + run.infer_s)
        yield Stage("respond", self.scored_at, self.rendered_at)

    @property
    def _scorings(self) -> tuple[Scored, ...]:
        return (self.scored, *self.scored.then) if self.scored else ()
