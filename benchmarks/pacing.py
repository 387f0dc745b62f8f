"""The rate at which a server is busy for a given share of the time, on a machine whose pace changes by the second."""

from collections import deque
from typing import NamedTuple

LOOK_S = 0.5  # between two looks
LOOKS = 4  # that count
MOST = 1.5  # by what the rate may change at a look


class Look(NamedTuple):
    """What a server had done by then."""

    cpu_s: float
    answered: int


class Pacer:
    """Follows what a request costs: a server is busy for its rate times the CPU seconds of each (utilisation law).

    Args:
        busy: the share of one core's time wanted.
        rate: requests/s to begin with.
    """

    def __init__(self, busy: float, rate: float) -> None:
        self.rate = rate
        self._busy = busy
        self._looks: deque[Look] = deque(maxlen=LOOKS + 1)

    def look(self, cpu_s: float, answered: int) -> float:
        """Take in CPU seconds used and requests answered so far; returns the rate from now on.

        Refused requests are not answered, so that what they cost lowers the rate.
        """
        self._looks.append(Look(cpu_s, answered))
        first = self._looks[0]
        used_s, done = cpu_s - first.cpu_s, answered - first.answered
        if used_s > 0:
            self.rate = min(max(self._busy * done / used_s, self.rate / MOST), self.rate * MOST)
        return self.rate
