"""Twice the load that one core can bear, and what is left of it: goodput, latency of what is let in, probes meanwhile.

python -m benchmarks.overload                  # minutes, then short rounds, each between measures of the capacity
python -m benchmarks.overload --seconds 10 --max-queue-rows 400000 --deadline-ms 200
python -m benchmarks.overload --append         # to RESULTS.md

A core that is shared halves its pace for seconds at a time. So goodput is compared with the capacity before minutes
and after them, which tell how the server bears a minute, and in rounds of a few seconds, which tell what that costs it.
Capacities are means, and are measured while the same probes ask, which is a part of what a server has to do.
"""

import argparse
import http.client
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from benchmarks import models, report, servers
from benchmarks.bodies import WORKLOADS
from benchmarks.capacity import Capacity, rate
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS, Model, Pace, Target
from benchmarks.sections import Finding, Section
from benchmarks.summary import Load, percentile

EXPECTED = {"503", "504"}  # what an overloaded server may answer, but for 200
TIMES = 2.0  # what it can bear
ROUND_S, SIDE_S = 4.0, 1.5  # of overload in a round, and of each closed loop beside it
LONG_SIDES = 6  # closed loops before a long one and after it
# Before that, unmeasured: by then the queue is short. What a long one held when the measuring began would be answered
# in it, and count for the time before, when it was due.
WARM_S = 2.0
PROBES = {"/health": 20.0, "/metrics": 1.0}  # a second


@dataclass(slots=True)
class Probe:
    """Asks a path again and again on a connection of its own; `latencies_ms` count from when it was due."""

    port: int
    path: str
    per_s: float
    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        if servers.CPUS:
            os.sched_setaffinity(0, LOAD_CPUS)  # of this thread
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        due = time.perf_counter()
        while not stop.wait(max(0.0, due - time.perf_counter())):
            try:
                connection.request("GET", self.path)
                response = connection.getresponse()
                response.read()
                self.failed += response.status != 200
            except (OSError, http.client.HTTPException):
                self.failed += 1
                connection.close()
            self.latencies_ms.append((time.perf_counter() - due) * 1000)
            due += 1 / self.per_s
        connection.close()

    @property
    def p99(self) -> float:
        """Milliseconds that 99 of 100 did not exceed."""
        return percentile(sorted(self.latencies_ms), 0.99)


@contextmanager
def probing(port: int) -> Iterator[list[Probe]]:
    """Ask every path of `PROBES` while the block runs."""
    stop, probes = threading.Event(), [Probe(port, path, per_s) for path, per_s in PROBES.items()]
    threads = [threading.Thread(target=probe.run, args=[stop]) for probe in probes]
    for thread in threads:
        thread.start()
    try:
        yield probes
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True, slots=True)
class Overload:
    """What a server did under too much load, and in closed loops just before and after."""

    before: list[Load]
    load: Load
    after: list[Load]
    probes: list[Probe]

    @property
    def sides(self) -> list[Load]:
        """All closed loops."""
        return self.before + self.after

    @property
    def unexpected(self) -> int:
        """Requests with another answer than 200, 503 and 504, or none."""
        return sum(times for problem, times in self.load.errors.items() if problem not in EXPECTED)


def goodput(runs: Sequence[Overload]) -> dict[str, float]:
    """Answered with 200 and in time, as shares of capacity, of requests and of candidates.

    Means by means: a mean or a median of shares would be high or low as the machine's pace scatters.
    """
    sides = [side for run in runs for side in run.sides]
    in_time = mean(run.load.requests_per_s * run.load.in_time for run in runs)
    candidates = mean(run.load.candidates_in_time_per_s for run in runs)
    return {
        "requests": in_time / rate(sides),
        "candidates": candidates / mean(side.candidates_per_s for side in sides),
    }


def by_cpu(runs: Sequence[Overload]) -> float:
    """The same by what an answered request cost the server then, refusals included, and beside it."""
    beside = mean(side.server_cpu_us for run in runs for side in run.sides)
    return beside / mean(run.load.server_cpu_us for run in runs)


def measure(capacity: Capacity, seconds: float, deadline_ms: float, sides: int = 1) -> Overload:
    """Find the capacity, offer twice that in an open loop, find the capacity again."""
    target = capacity.target
    before = _beside(capacity, sides)
    due = TIMES * capacity.requests_per_s
    with probing(target.server.port) as probes:
        load = target.load(
            capacity.workload,
            Pace(1, seconds, (0, 0)),
            rate=due,
            warm_s=WARM_S,
            requests=round(5 * (WARM_S + seconds) * due),
            deadline_ms=deadline_ms,
        )
    return Overload(before, load, _beside(capacity, sides), probes)


def _beside(capacity: Capacity, count: int) -> list[Load]:
    with probing(capacity.target.server.port):
        return [capacity.measure() for _ in range(count)]


def row(found: Overload) -> dict[str, Any]:
    """What one run found, for the table."""
    load, share = found.load, goodput([found])
    health, metrics = found.probes
    return {
        "s": f"{load.window_s:.0f}",
        "capacity req/s": f"{rate(found.before):.0f} before, {rate(found.after):.0f} after",
        "due req/s": round(load.offered),
        "goodput req/s": round(load.requests_per_s * load.in_time),
        "of capacity": f"{share['requests']:.2f}",
        "goodput cand/s": round(load.candidates_in_time_per_s),
        "of capacity, cand": f"{share['candidates']:.2f}",
        "by CPU time": f"{by_cpu([found]):.2f}",
        "p50 ms": f"{load.p50:.1f}",
        "p99 ms": f"{load.p99:.1f}",
        "max ms": f"{load.worst:.1f}",
        "refused p99 ms": f"{load.refused_p99:.1f}",
        "/health p99 ms": f"{health.p99:.1f}",
        "/metrics p99 ms": f"{metrics.p99:.1f}",
        "errors": " ".join(f"{problem}: {times}" for problem, times in load.errors.items()) or "none",
        "sent late p99 ms": f"{load.sent_late_p99:.1f}",
    }


def section(name: str, workload: str, deadline_ms: float, long: list[Overload], rounds: list[Overload]) -> Section:
    """The table and the targets: goodput over all long ones, and the worst of them in all else."""
    what = f"{name}, {workload}, twice the capacity"
    times = f"{len(long)} times {long[0].load.window_s:.0f} s"
    findings = [
        Finding(f"{what}: goodput in {unit}/s, of capacity, {times}", share, 0.9, at_least=True)
        for unit, share in goodput(long).items()
    ]
    if rounds:
        of = f"of capacity, {len(rounds)} rounds of {ROUND_S:.0f} s"
        findings += [
            Finding(f"{what}: goodput in {unit}/s, {of}", share, 0.9, at_least=True)
            for unit, share in goodput(rounds).items()
        ]
        findings.append(Finding(f"{what}: the same by CPU time", by_cpu(rounds), 0.9, at_least=True))
    p99 = max(each.load.p99 for each in long)
    unexpected = sum(each.unexpected for each in long)
    health_p99 = max(each.probes[0].p99 for each in long)
    failed = sum(probe.failed for each in long for probe in each.probes)
    findings += [
        Finding(f"{what}: p99 of accepted", p99, deadline_ms, at_least=False, unit=" ms"),
        Finding(f"{what}: answers other than 200, 503, 504", unexpected, 0, at_least=False, unit=""),
        Finding(f"{what}: p99 of /health", health_p99, 50.0, at_least=False, unit=" ms"),
        Finding(f"{what}: failed probes", failed, 0, at_least=False, unit=""),
    ]
    note = (
        "Open loop, latency from the time due. `sent late` is the generator's own delay, which latencies include; "
        "`by CPU time` compares what an answered request cost the server beside the overload and in it."
    )
    rows = [row(each) for each in (*long, *rounds)]
    return Section(f"Overload, {name}, {workload}, one core, deadline {deadline_ms:g} ms", rows, findings, note)


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload in one go")
    parser.add_argument("--times", type=int, default=3, help="so often")
    parser.add_argument("--rounds", type=int, default=12, help="after that; 0 for none")
    parser.add_argument("--workload", choices=WORKLOADS, default="mixed")
    parser.add_argument("--deadline-ms", type=float, default=1000.0, help="the server's default")
    parser.add_argument("--max-queue-rows", type=int, help="of the server; default: its own")
    parser.add_argument("--append", action="store_true", help="add the run to RESULTS.md")
    options = parser.parse_args()
    model = Model("committed", models.COMMITTED)
    flags = ["--deadline-ms", str(options.deadline_ms)]
    if options.max_queue_rows:
        flags += ["--max-queue-rows", str(options.max_queue_rows)]
    where = report.machine()
    server = servers.ours(model.folder, SERVER_CPUS, *flags)
    with servers.running(server):
        capacity = Capacity(Target(server, model.dtypes), options.workload, SIDE_S)
        long = [measure(capacity, options.seconds, options.deadline_ms, LONG_SIDES) for _ in range(options.times)]
        rounds = [measure(capacity, ROUND_S, options.deadline_ms) for _ in range(options.rounds)]
    done = [section(model.name, options.workload, options.deadline_ms, long, rounds)]
    print(f"{report.text(done[0])}\n\n{report.targets(done[0].findings)}")
    if options.append:
        report.append(where, f"overload of {options.seconds:g} s", done)
    print(report.as_json(where, done))


if __name__ == "__main__":
    main()
