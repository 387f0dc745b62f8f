"""What a server can do, on a core whose pace changes by the second."""

from collections.abc import Sequence
from statistics import mean

from benchmarks.comparison import CONNECTIONS, Pace, Target
from benchmarks.summary import Load

TRIES = 2  # of each number of connections, before one is chosen
RECENT = 8  # closed loops whose mean is the rate that others are told by


class Capacity:
    """The mean of closed loops: the best of them is the machine's best second, and not what a server can do.

    The number of connections is chosen once, for the same reason.

    Args:
        target: the server.
        workload: by its name.
        seconds: of each closed loop.
    """

    def __init__(self, target: Target, workload: str, seconds: float) -> None:
        self.target, self.workload = target, workload
        self._pace = Pace(1, seconds, (0, 0))
        tried: dict[int, list[Load]] = {each: [] for each in CONNECTIONS}
        for _ in range(TRIES):
            for connections, loads in tried.items():
                loads.append(self._loop(connections))
        self.connections = max(tried, key=lambda each: rate(tried[each]))
        self._loads = tried[self.connections]

    @property
    def requests_per_s(self) -> float:
        """What it could do of late."""
        return rate(self._loads[-RECENT:])

    def measure(self) -> Load:
        """One more closed loop."""
        load = self._loop(self.connections)
        self._loads.append(load)
        return load

    def _loop(self, connections: int) -> Load:
        return self.target.load(self.workload, self._pace, connections=connections)


def rate(loads: Sequence[Load]) -> float:
    """Requests/s that were answered as they should be, over loads of one length."""
    return mean(load.requests_per_s for load in loads)
