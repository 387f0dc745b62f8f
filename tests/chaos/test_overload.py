"""Twice the load that one core can bear, on a real server; `benchmarks.overload` has the figures."""

import os
import time
from pathlib import Path
from statistics import median

import pytest

from benchmarks import models, servers
from benchmarks.capacity import Capacity
from benchmarks.comparison import SERVER_CPUS, Model, Target
from benchmarks.overload import Overload, measure

STAT = Path("/proc/stat")
SECONDS = 6.0
HEALTH_MS = 250.0  # the promise is 50, on a core of its own; tests share theirs
WAIT_MS = 150.0  # at the median, with any queue: a full one of the default size is 250 to 400
LATE_MS = 5.0  # a load generator that was later itself has measured the machine, not the server
STOLEN = 0.02  # of the time of the server's core: one that more is taken from than that cannot keep a deadline
ATTEMPTS = 5
RUNS = 3  # of which the median p99 counts: a core that is shared stands still for a tenth of a second at times


def stolen_s() -> float:
    """How long the server's cores were with other machines of the same host so far; 0 where that is not told."""
    if not STAT.exists():
        return 0.0
    lines = [line.split() for line in STAT.read_text().splitlines()]
    ticks = sum(int(line[8]) for line in lines if line[0] in {f"cpu{each}" for each in SERVER_CPUS})
    return ticks / os.sysconf("SC_CLK_TCK")


def overload(deadline_ms: float, max_queue_rows: int) -> list[Overload]:
    """Measure until the machine let load generator and server run `RUNS` times; skip the test where it does not."""
    kept, late, stolen = [], 0.0, 0.0
    model = Model("committed", models.COMMITTED)
    flags = "--deadline-ms", str(deadline_ms), "--max-queue-rows", str(max_queue_rows)
    server = servers.ours(model.folder, SERVER_CPUS, *flags)
    with servers.running(server):
        capacity = Capacity(Target(server, model.dtypes), "mixed", seconds=1.0)
        for _ in range(RUNS - 1 + ATTEMPTS):
            began, before_s = time.monotonic(), stolen_s()
            found = measure(capacity, SECONDS, deadline_ms)
            late, stolen = found.load.sent_late_p99, (stolen_s() - before_s) / (time.monotonic() - began)
            if late <= LATE_MS and stolen <= STOLEN:
                kept.append(found)
            if len(kept) == RUNS:
                return kept
    return pytest.skip(
        f"load generator {late:.0f} ms late, {stolen:.0%} of the server's core stolen: too busy a machine"
    )


@pytest.mark.skipif(len(servers.CPUS) < 2, reason="server and load generator need a core each")
@pytest.mark.parametrize(
    ("deadline_ms", "max_queue_rows"),
    [
        pytest.param(1000.0, 16_384, id="bound-in-rows"),
        pytest.param(200.0, 1_000_000, id="predicted-wait"),
        pytest.param(1000.0, 65_536, id="standing-queue"),
    ],
)
def test_twice_the_capacity(deadline_ms: float, max_queue_rows: int) -> None:
    """Whichever bound holds, requests are scored in time or refused, do not wait for long, and nobody else notices."""
    found = overload(deadline_ms, max_queue_rows)
    for each in found:
        assert each.unexpected == 0, each.load.errors
        assert each.load.errors["503"] > 0
        assert each.load.answered > 0
        assert sum(probe.failed for probe in each.probes) == 0
        assert not any(load.failed for load in each.after), "it has not recovered"
    assert median(each.load.p99 for each in found) <= deadline_ms
    assert median(each.load.p50 for each in found) <= WAIT_MS
    health_p99s = [each.probes[0].p99 for each in found]
    assert median(health_p99s) <= HEALTH_MS
