"""Twice the load that one core can bear, and what is left of it: goodput, latency of what is let in, probes meanwhile.

python -m benchmarks.overload                  # a minute, and the capacity before and after it
python -m benchmarks.overload --seconds 10 --max-queue-rows 400000 --deadline-ms 200
python -m benchmarks.overload --append         # to RESULTS.md
"""

import argparse
import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean
from typing import Any

from benchmarks import models, report, servers
from benchmarks.bodies import WORKLOADS
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS, Model, Pace, Target
from benchmarks.sections import Finding, Section
from benchmarks.summary import Load, percentile

EXPECTED = {"503", "504"}  # what an overloaded server may answer, but for 200
TIMES = 2.0  # what it can bear
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


def best(target: Target, workload: str, seconds: float) -> Load:
    """The most that a closed loop gets out of a server, with few connections and with many."""
    pace = Pace(1, seconds, (0, 0))
    loads = [target.load(workload, pace, connections=each) for each in (8, 32)]
    return max(loads, key=lambda load: load.candidates_per_s)


@dataclass(frozen=True, slots=True)
class Overload:
    """What a server did under too much load. Shares are of the capacity measured just before and after."""

    before: Load
    load: Load
    after: Load
    probes: list[Probe]

    @property
    def goodput(self) -> dict[str, float]:
        """Answered with 200 and in time, as shares of capacity: of requests and of candidates."""
        load, sides = self.load, (self.before, self.after)
        return {
            "requests": load.requests_per_s * load.in_time / mean(each.requests_per_s for each in sides),
            "candidates": load.candidates_in_time_per_s / mean(each.candidates_per_s for each in sides),
        }

    @property
    def unexpected(self) -> int:
        """Requests with another answer than 200, 503 and 504, or none."""
        return sum(times for problem, times in self.load.errors.items() if problem not in EXPECTED)


def measure(target: Target, workload: str, seconds: float, deadline_ms: float, side_s: float = 3.0) -> Overload:
    """Find the capacity, offer twice that in an open loop, find the capacity again."""
    before = best(target, workload, side_s)
    with probing(target.server.port) as probes:
        load = target.load(
            workload,
            Pace(1, seconds, (0, 0)),
            rate=TIMES * before.requests_per_s,
            requests=round(10 * seconds * before.requests_per_s),
            deadline_ms=deadline_ms,
        )
    return Overload(before, load, best(target, workload, side_s), probes)


def section(name: str, workload: str, deadline_ms: float, found: Overload) -> Section:
    """The table and the targets."""
    load, goodput = found.load, found.goodput
    health, metrics = found.probes
    row: dict[str, Any] = {
        "capacity req/s": f"{found.before.requests_per_s:.0f} before, {found.after.requests_per_s:.0f} after",
        "due req/s": round(load.offered),
        "goodput req/s": round(load.requests_per_s * load.in_time),
        "of capacity": f"{goodput['requests']:.2f}",
        "goodput cand/s": round(load.candidates_in_time_per_s),
        "of capacity, cand": f"{goodput['candidates']:.2f}",
        "by CPU time": f"{found.before.server_cpu_us / load.server_cpu_us:.2f}",
        "p50 ms": f"{load.p50:.1f}",
        "p99 ms": f"{load.p99:.1f}",
        "max ms": f"{load.worst:.1f}",
        "refused p99 ms": f"{load.refused_p99:.1f}",
        "/health p99 ms": f"{health.p99:.1f}",
        "/metrics p99 ms": f"{metrics.p99:.1f}",
        "errors": " ".join(f"{problem}: {times}" for problem, times in load.errors.items()) or "none",
        "sent late p99 ms": f"{load.sent_late_p99:.1f}",
    }
    what = f"{name}, {workload}, twice the capacity"
    findings = [
        Finding(f"{what}: goodput in {unit}/s, of capacity", share, 0.9, at_least=True)
        for unit, share in goodput.items()
    ]
    findings += [
        Finding(f"{what}: p99 of accepted", load.p99, deadline_ms, at_least=False, unit=" ms"),
        Finding(f"{what}: answers other than 200, 503, 504", found.unexpected, 0, at_least=False, unit=""),
        Finding(f"{what}: p99 of /health", health.p99, 50.0, at_least=False, unit=" ms"),
        Finding(f"{what}: failed probes", health.failed + metrics.failed, 0, at_least=False, unit=""),
    ]
    note = (
        f"Open loop of {load.window_s:.0f} s, latency from the time due. `sent late` is the generator's own delay, "
        "which latencies include; `by CPU time` compares what an answered request cost the server before and then."
    )
    return Section(f"Overload, {name}, {workload}, one core, deadline {deadline_ms:g} ms", [row], findings, note)


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
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
        found = measure(Target(server, model.dtypes), options.workload, options.seconds, options.deadline_ms)
    done = [section(model.name, options.workload, options.deadline_ms, found)]
    print(f"{report.text(done[0])}\n\n{report.targets(done[0].findings)}")
    if options.append:
        report.append(where, f"overload of {options.seconds:g} s", done)
    print(report.as_json(where, done))


if __name__ == "__main__":
    main()
