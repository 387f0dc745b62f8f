"""`dinserve serve` whose metrics and traces are switched off and on while it runs, to show what they cost.

python -m benchmarks.switched_server serve --port 8000 --trace-ratio 0.01

It starts with everything on. Each SIGUSR1 takes it on to the next of `MODES`, from the last to the first. Two processes
of one program differ by some 5 % for as long as they live, which is as much as is looked for: so one process is both.
"""

import signal
from typing import Any, Final

from service import app, cli
from service.metrics import Metrics
from service.middleware import Edge
from service.novelty import Novelty

OFF, METRICS, BOTH = "both off", "metrics", "metrics and traces"
MODES: Final = (OFF, METRICS, BOTH)
SHOWN = {"table", "exposition"}  # what is not a report


class Silent(Metrics):
    """Hears every report, and does nothing with it."""


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


for name, member in vars(Metrics).items():
    if not name.startswith("_") and name not in SHOWN and callable(member):
        setattr(Silent, name, ignore)


class Switch:
    """What is switched, as `create_app` makes it."""

    def __init__(self) -> None:
        self.mode = BOTH
        self._metrics: list[Metrics] = []
        self._edges: list[tuple[Edge, Any]] = []  # and what watches there
        self._offer = Novelty.offer

    def make_metrics(self, *arguments: Any, **options: Any) -> Metrics:
        """Stand for `Metrics`."""
        self._metrics.append(Metrics(*arguments, **options))
        return self._metrics[-1]

    def make_edge(self, *arguments: Any, **options: Any) -> Edge:
        """Stand for `Edge`."""
        edge = Edge(*arguments, **options)
        self._edges.append((edge, options.get("watch")))
        return edge

    def turn(self, *_: Any) -> None:
        """Go on to the next mode."""
        self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]
        for metrics in self._metrics:
            metrics.__class__ = Silent if self.mode == OFF else Metrics
        for edge, watch in self._edges:
            edge._watch = watch if self.mode == BOTH else None  # noqa: SLF001
        setattr(Novelty, "offer", ignore if self.mode == OFF else self._offer)  # noqa: B010  looks ids up for the metrics


if __name__ == "__main__":
    switch = Switch()
    vars(app).update(Metrics=switch.make_metrics, Edge=switch.make_edge)
    signal.signal(signal.SIGUSR1, switch.turn)
    cli.main()
