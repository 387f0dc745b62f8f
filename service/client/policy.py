"""When a call is sent, sent again, hedged or given up. Pure: time and chance are arguments, and nobody waits here.

A driver asks a `Call` for its next `step`, obeys it, tells it how each attempt `ended`, and asks again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from service.client.errors import ClientError, NotReady, Overloaded, TimedOut, UnexpectedAnswer, Unreachable

T = TypeVar("T")

BUDGET_RATIO = 0.1  # attempts beyond the first that each call earns; gRPC's figure, Finagle's is 0.2
BUDGET_MOST = 10.0  # attempts that can be saved up: what a client that has been quiet may repeat at once
GATEWAY_STATUSES = frozenset({502, 503})  # a proxy that found no server, while pods are being exchanged


@dataclass(frozen=True, slots=True)
class Rules:
    """How patient and how insistent a client is.

    Args:
        timeout_s: of a whole call: every attempt and the waits between them.
        retries: attempts after the first, hedges not counted.
        hedge_s: how long the first attempt has alone before a second one runs beside it; None: as long as it takes.
        backoff_s: most of the wait before the first retry; each further one doubles it.
        longest_backoff_s: where doubling ends.
    """

    timeout_s: float
    retries: int
    hedge_s: float | None = None
    backoff_s: float = 0.02
    longest_backoff_s: float = 1.0

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.retries < 0 or (self.hedge_s is not None and self.hedge_s < 0):
            raise ValueError("timeout_s must be positive, retries and hedge_s must not be negative")


class Budget:
    """Attempts beyond the first that all calls of a client share, so that it cannot multiply an overload.

    Every call earns a part of one. Safe to use from several threads.
    """

    def __init__(self, ratio: float = BUDGET_RATIO, most: float = BUDGET_MOST) -> None:
        self.left = most
        self._ratio = ratio
        self._most = most
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call begins."""
        with self._lock:
            self.left = min(self._most, self.left + self._ratio)

    def spend(self) -> bool:
        """Take one attempt, if one is left."""
        with self._lock:
            if self.left < 1:
                return False
            self.left -= 1
            return True


@dataclass(frozen=True, slots=True)
class Send:
    """Start an attempt."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until then, or until an attempt ends."""

    until: float


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """The call's answer."""

    answer: T


@dataclass(frozen=True, slots=True)
class Failed:
    """The call's error; attempts that still run are of no use."""

    error: ClientError


Ended: TypeAlias = Answered[T] | Failed
Step: TypeAlias = Send | Wait | Answered[T] | Failed


class Call(Generic[T]):
    """One call and its attempts. Times are seconds of any one clock that goes forward.

    Args:
        rules: of the client, with this call's time.
        budget: of the client.
        now: when the call begins.
        chance: draws from 0 to 1, for full jitter.
    """

    def __init__(self, rules: Rules, budget: Budget, now: float, chance: Callable[[], float]) -> None:
        self.deadline = now + rules.timeout_s
        self._rules = rules
        self._budget = budget
        self._chance = chance
        self._flying = 0
        self._retried = 0
        self._end: Ended[T] | None = None
        self._error: ClientError | None = None  # of the last attempt that failed and may be repeated
        self._hedge_at = now + rules.hedge_s if rules.hedge_s is not None else self.deadline
        self._send_at = now
        budget.earn()

    def step(self, now: float) -> Step[T]:
        """What to do now."""
        if self._end is not None:
            return self._end
        if now >= self.deadline:
            return Failed(self.timed_out())
        if self._flying:
            return self._hedge(now)
        if now < self._send_at:
            return Wait(self._send_at)
        self._flying = 1
        return Send()

    def ended(self, now: float, outcome: Ended[T]) -> None:
        """An attempt ended."""
        self._flying -= 1
        if self._end is not None:
            return
        if isinstance(outcome, Answered) or not may_repeat(outcome.error):
            self._end = outcome
            return
        self._error = outcome.error
        if not self._flying and not self._schedule(now, outcome.error):
            self._end = outcome

    def timed_out(self) -> TimedOut:
        """What the call ends with when its time is up."""
        before = f"; before that: {self._error}" if self._error else ""
        return TimedOut(f"no answer in {self._rules.timeout_s:g} s{before}")

    def _hedge(self, now: float) -> Send | Wait:
        if now < self._hedge_at:
            return Wait(self._hedge_at)
        self._hedge_at = self.deadline  # once a call
        if not self._budget.spend():
            return Wait(self.deadline)
        self._flying += 1
        return Send()

    def _schedule(self, now: float, error: ClientError) -> bool:
        """Choose when to try again; False: there is no point, no time or no budget."""
        if self._retried >= self._rules.retries:
            return False
        asked_s = error.retry_after_s if isinstance(error, Overloaded | NotReady | UnexpectedAnswer) else None
        wait_s = asked_s if asked_s is not None else self._backoff_s()
        if now + wait_s >= self.deadline or not self._budget.spend():
            return False
        self._retried += 1
        self._send_at = now + wait_s
        return True

    def _backoff_s(self) -> float:
        most_s: float = min(self._rules.longest_backoff_s, self._rules.backoff_s * 2.0**self._retried)
        return most_s * self._chance()


def may_repeat(error: ClientError) -> bool:
    """Whether another attempt may do better. Scoring changes nothing, so that one that was lost may be repeated.

    Not after 504: the time that ran out was the caller's. Not after 500: a defect stays one.
    """
    if isinstance(error, UnexpectedAnswer):
        return error.status in GATEWAY_STATUSES
    return isinstance(error, Overloaded | NotReady | Unreachable)
