"""`dinserve serve` with metrics that do nothing, to show what the others cost.

python -m benchmarks.unobserved_server serve --port 8000
"""

from typing import Any

from service import app, cli
from service.metrics import Metrics
from service.novelty import Novelty

SHOWN = {"table", "exposition"}  # what is not a report


class Silent(Metrics):
    """Hears every report, and does nothing with it."""


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


for name, member in vars(Metrics).items():
    if not name.startswith("_") and name not in SHOWN and callable(member):
        setattr(Silent, name, ignore)

if __name__ == "__main__":
    vars(app)["Metrics"] = Silent  # which `create_app` makes
    setattr(Novelty, "offer", ignore)  # noqa: B010  looks ids up for the metrics
    cli.main()
