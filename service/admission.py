"""Whether what arrives now can still be answered in time: arithmetic on counts and measures, without a clock."""

import math
from dataclasses import dataclass, field

from service.errors import Overloaded

# How much of the time that is left a request may be expected to wait. A core that is shared was seen to run at half its
# speed for a second (benchmarks/RESULTS.md): who is let in should be answered in time even then.
PROMISED = 0.4

# A queue that stays full absorbs no burst: it makes everybody wait, and each request dearer, as what waits leaves the
# core's caches. So once some have been refused for `STANDS_S`, without a pause of `PAUSE_S`, no more than `SHORT_S` may
# wait. (Nichols and Jacobson's standing queue, "Controlling Queue Delay", 2012; here told by refusals, not by waits, as
# a queue that refuses nobody does what it was asked for.)
STANDS_S = 1.0
PAUSE_S = 0.1
SHORT_S = 0.01  # a few batches, so that they stay full

_KEPT = 15 / 16  # of what was known, with each observation: the newest sixteen or so count
_SURPRISE = 8.0  # an observation counts as at most so many times what was expected: a pause is no new pace


@dataclass(frozen=True, slots=True)
class PerRow:
    """What a row takes, of whatever: a running mean over rows, in which the newest observations count most."""

    rows: float = 0.0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """Of one row; 0 before the first observation."""
        return self.total / self.rows if self.rows else 0.0

    def after(self, rows: int, took: float) -> "PerRow":
        """What is known after `rows` more rows took `took` together."""
        most = _SURPRISE * self.mean * rows
        return PerRow(self.rows * _KEPT + rows, self.total * _KEPT + (min(took, most) if most else took))


def learn(row_s: float, rows: int, took_s: float) -> float:
    """What a row takes at best, given what was thought so far and what one batch took.

    Faster is believed at once, slower by half a step: a thread that waits for its turn makes a batch look slow.
    """
    return min(took_s / rows, row_s * 1.5)


def predict_wait(ahead: int, own: int, row_s: float, executors: int, overdue_s: float = 0.0) -> float:
    """Seconds until `own` rows are done that arrive behind `ahead` others, which `executors` share.

    `overdue_s` is how long every executor has been at its batch beyond what was expected; it may take as long again.
    """
    return ahead * row_s / executors + own * row_s + overdue_s


def in_time(ahead: int, wait_s: float, left_s: float) -> bool:
    """Whether to let a request in that would wait `wait_s` and has `left_s` left.

    With nothing `ahead` always: only what runs tells that a measure is out of date.
    """
    return not ahead or wait_s <= PROMISED * left_s


def retry_after_s(wait_s: float) -> int:
    """When to come back, in whole seconds, at least one: when what is here now will be done."""
    return max(1, math.ceil(wait_s))


@dataclass(slots=True)
class Admission:
    """The rows that are here, what a row takes, and so how long the next one would wait."""

    max_rows: int  # waiting
    executors: int
    waiting: int = 0
    coming: int = 0  # let in, and not yet among those that wait
    running: int = 0
    best_row_s: float = math.inf  # in its executor, when nothing disturbs it; unknown at first
    pace: PerRow = field(default_factory=PerRow)  # seconds until answered, whatever else the core does meanwhile
    row_s: float = 0.0  # by that pace
    refused_at: float = -math.inf  # the last one that was; monotonic seconds, as `now` below
    refusing_since: float = -math.inf  # the first one before it, without a pause since

    @property
    def ahead(self) -> int:
        """Rows that the next one waits for."""
        return self.waiting + self.coming + self.running

    def ran(self, rows: int, took_s: float, held_s: float) -> None:
        """A batch took its executor `took_s`; it was answered `held_s` after it was released, or the one before was."""
        self.best_row_s = learn(self.best_row_s, rows, took_s)
        self.pace = self.pace.after(rows, held_s)
        self.row_s = self.pace.mean

    def wait_s(self, rows: int = 0, overdue_s: float = 0.0) -> float:
        """How long `rows` rows would take that arrive now."""
        return predict_wait(self.ahead, rows, self.row_s, self.executors, overdue_s)

    def standing(self, now: float) -> bool:
        """Whether requests have been refused for so long that the queue should be short until no more are."""
        return now - self.refused_at < PAUSE_S and now - self.refusing_since >= STANDS_S

    def pressed(self, now: float, left_s: float, overdue_s: float) -> bool:
        """Whether one with `left_s` left might soon be refused: half of the queue is taken, or of the wait allowed."""
        here = self.waiting + self.coming
        late = not in_time(self.ahead, 2 * self.wait_s(0, overdue_s), left_s)
        return late or 2 * here > self.max_rows or self.standing(now)

    def free(self, now: float, left_s: float, overdue_s: float, room: int = 0) -> float:
        """Rows that may enter now with `left_s` seconds to their deadline, however many requests they come in.

        As `refusal` has it, for as long as nothing else enters; it may let in a few more.
        """
        here, row_s = self.waiting + self.coming, self.row_s
        free: float = self.max_rows - here - room
        if row_s:
            free = min(free, (PROMISED * left_s - self.wait_s(0, overdue_s)) / row_s)
            if self.standing(now):
                free = min(free, SHORT_S * self.executors / row_s - here)
        return max(0.0, free)

    def refusal(self, rows: int, now: float, left_s: float, overdue_s: float, room: int = 0) -> Overloaded | None:
        """Why `rows` rows with `left_s` seconds to their deadline should not enter now; None if they may.

        With less than `room` left in the queue nobody may: else only the small would get in. Who is refused is noted.
        """
        here = self.waiting + self.coming
        ahead = here + self.running
        wait_s = predict_wait(ahead, rows, self.row_s, self.executors, overdue_s)
        refusal = None
        if here + max(rows, room) > self.max_rows:
            refusal = Overloaded("too many candidates are waiting", "queue", wait_s)
        elif not in_time(ahead, wait_s, left_s):
            refusal = Overloaded("what is waiting will take too long for the deadline", "deadline", wait_s)
        elif here * self.row_s > SHORT_S * self.executors and self.standing(now):
            refusal = Overloaded("more is asked than can be answered, for some time now", "standing", wait_s)
        if refusal is not None:
            if now - self.refused_at >= PAUSE_S:
                self.refusing_since = now
            self.refused_at = now
        return refusal
