"""`dinserve serve` whose metrics and traces go off and on while it runs, and which notes what that costs.

OBSERVED=told.json python -m benchmarks.switched_server serve --port 8000 --trace-ratio 0.01

Fifty requests in each of `MODES`, in an order drawn anew for each round, for as long as requests come. Two processes
of one program differ by some 5 % for as long as they live, and one from a tenth of a second to the next by more, which
is as much as is looked for: so one process is all, and whatever else the machine does hits each mode alike. At its end
it writes what it noted.
"""

import json
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from service import app, cli, scoring
from service.metrics import Metrics
from service.middleware import Edge
from service.novelty import Novelty

OFF, METRICS, BOTH = "both off", "metrics", "metrics and traces"
MODES: Final = (OFF, METRICS, BOTH)
SHOWN = {"table", "exposition"}  # what is not a report
TURN = 50  # requests; of eight connections some begin in one mode and end in another, but few of so many
PAUSE_S = 0.5  # without a request: nobody loads the server, and this turn counts for nothing; a stall is shorter
WARM = 2000  # requests that come before the first turn that counts


class Silent(Metrics):
    """Hears every report, and does nothing with it."""


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


for name, member in vars(Metrics).items():
    if not name.startswith("_") and name not in SHOWN and callable(member):
        setattr(Silent, name, ignore)


@dataclass(slots=True)
class Spent:
    """What the turns of a mode come to; requests that arrive in a turn stand for those that end in it."""

    requests: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0  # of the whole process


class Switch:
    """What is switched, as `create_app` makes it."""

    def __init__(self) -> None:
        self.mode = BOTH
        self._next: list[str] = []  # modes of this round
        self.spent = {mode: Spent() for mode in MODES}
        self._metrics: list[Metrics] = []
        self._edges: list[tuple[Edge, Any]] = []  # and what watches there
        self._novelties: list[Novelty] = []
        self._all = self._here = 0  # requests: ever, and of this turn
        self._wall_s = self._cpu_s = self._last_s = 0.0  # when the turn began, and when the last request came

    def make_metrics(self, *arguments: Any, **options: Any) -> Metrics:
        """Stand for `Metrics`."""
        self._metrics.append(Metrics(*arguments, **options))
        return self._metrics[-1]

    def make_novelty(self, *arguments: Any) -> Novelty:
        """Stand for `Novelty`, which looks ids up for the metrics."""
        self._novelties.append(Novelty(*arguments))
        return self._novelties[-1]

    def make_edge(self, *arguments: Any, **options: Any) -> Edge:
        """Stand for `Edge`."""
        edge = Noted(*arguments, **options)
        edge.switch = self
        self._edges.append((edge, options.get("watch")))
        return edge

    def arrived(self) -> None:
        """A request has."""
        now = time.perf_counter()
        paused, self._last_s = now - self._last_s > PAUSE_S, now
        self._all += 1
        if paused or self._all < WARM:
            self._begin()
            return
        self._here += 1
        if self._here == TURN:
            spent = self.spent[self.mode]
            spent.requests += TURN
            spent.wall_s += now - self._wall_s
            spent.cpu_s += time.process_time() - self._cpu_s
            self.turn()
            self._begin()

    def turn(self) -> None:
        """Go on to the next mode."""
        self._next = self._next or random.sample(MODES, len(MODES))
        self.mode = self._next.pop()
        for metrics in self._metrics:
            metrics.__class__ = Silent if self.mode == OFF else Metrics
        for edge, watch in self._edges:
            edge._watch = watch if self.mode == BOTH else None  # noqa: SLF001
        for novelty in self._novelties:
            vars(novelty).pop("offer", None)
            if self.mode == OFF:
                vars(novelty)["offer"] = ignore

    def tell(self, path: Path) -> None:
        """Write what was noted, as JSON."""
        path.write_text(json.dumps({mode: asdict(spent) for mode, spent in self.spent.items()}))

    def _begin(self) -> None:
        self._here, self._wall_s, self._cpu_s = 0, time.perf_counter(), time.process_time()


class Noted(Edge):
    """An edge that tells the switch of each request."""

    switch: Switch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            self.switch.arrived()
        await super().__call__(scope, receive, send)


if __name__ == "__main__":
    switch = Switch()
    vars(app).update(Metrics=switch.make_metrics, Edge=switch.make_edge)
    vars(scoring).update(Novelty=switch.make_novelty)
    try:
        cli.main()
    finally:
        switch.tell(Path(os.environ["OBSERVED"]))
