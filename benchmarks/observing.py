"""What being observed costs: throughput with metrics and 1 % of the requests traced, against both off.

python -m benchmarks.observing                     # four workloads, about nine minutes
python -m benchmarks.observing --starts 1 --rounds 1 --seconds 1 --workloads 10x20
python -m benchmarks.observing --append            # to RESULTS.md

One server on one core, switched between the three by a signal (`benchmarks.switched_server`) and measured in each in
turn, round by round: what else the machine does hits all of them. It is started anew a few times, as two processes of
one program differ. Its spans go to a collector that throws them away, on the load generator's core.
"""

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

from benchmarks import models, report, servers
from benchmarks.bodies import WORKLOADS
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS, Model, Pace, Target
from benchmarks.sections import Finding, Section
from benchmarks.servers import Server
from benchmarks.summary import Load, median_ratio
from benchmarks.switched_server import BOTH, METRICS, MODES, OFF

KEPT = 0.95  # of the throughput, with metrics and traces
SEEDS = 100  # apart, for rounds


class Drain(BaseHTTPRequestHandler):
    """Takes spans and forgets them."""

    taken = 0  # posts

    def do_POST(self) -> None:
        """Take some."""
        self.rfile.read(int(self.headers["Content-Length"]))
        Drain.taken += 1
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def collecting() -> Iterator[str]:
    """Be a collector for the length of the block; the value is its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Drain) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{collector.server_port}"
        finally:
            collector.shutdown()
            thread.join()


class Switched(Target):
    """The server, and how to have it as `MODES` say."""

    def turn(self) -> None:
        """Go on to the next mode."""
        os.kill(self.server.pid, signal.SIGUSR1)


def measure(model: Model, workloads: list[str], pace: Pace, starts: int) -> Section:
    """Load it in all three modes in turn, `starts` times anew."""
    rows, findings = [], []
    found: dict[str, dict[str, list[Load]]] = {each: {mode: [] for mode in MODES} for each in workloads}
    arguments = ["benchmarks.switched_server", "serve", "--port", "{port}", "--model-dir", str(model.folder)]
    for start in range(starts):
        server = Server("switched", [*arguments, "--trace-ratio", "0.01"], SERVER_CPUS)
        with servers.running(server):
            target = Switched(server, model.dtypes)
            for workload in workloads:
                for seed in range(start * pace.rounds, (start + 1) * pace.rounds):
                    for mode in MODES:
                        target.turn()
                        found[workload][mode].append(target.load(workload, pace, connections=8, seed=SEEDS * seed))
    for workload, by_mode in found.items():
        rows += [_row(workload, mode, loads, by_mode[OFF]) for mode, loads in by_mode.items()]
        findings += [_finding(model, workload, by_mode, than) for than in (OFF, METRICS)]
    if not Drain.taken:
        raise RuntimeError("no span arrived: nothing was traced")
    note = (
        f"8 connections; medians of {starts} starts with {pace.rounds} rounds of {pace.seconds:g} s each, in which "
        "each mode has its turn."
    )
    return Section(f"Being observed, {model.name}, one core", rows, findings, note)


def _of(loads: list[Load], figure: str) -> list[float]:
    return [getattr(load, figure) for load in loads]


def _row(workload: str, name: str, loads: list[Load], off: list[Load]) -> dict[str, Any]:
    rates = _of(loads, "requests_per_s")
    return {
        "workload": workload,
        "on": name,
        "req/s": round(median(rates)),
        "of both off": f"{median_ratio(rates, _of(off, 'requests_per_s')):.3f}",
        "server CPU us/req": f"{median(_of(loads, 'server_cpu_us')):.1f}",
        "p50 ms": f"{median(_of(loads, 'p50')):.2f}",
        "p99 ms": f"{median(_of(loads, 'p99')):.2f}",
        "failed": sum(load.failed for load in loads),
    }


def _finding(model: Model, workload: str, loads: dict[str, list[Load]], than: str) -> Finding:
    ratio = median_ratio(_of(loads[BOTH], "requests_per_s"), _of(loads[than], "requests_per_s"))
    cpu = median_ratio(_of(loads[than], "server_cpu_us"), _of(loads[BOTH], "server_cpu_us"))
    what = f"{model.name}, {workload}: requests/s with metrics and 1 % traced, against {than}"
    return Finding(what, ratio, KEPT, at_least=True, note=f"by CPU time {cpu:.3f}x")


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3, help="with each start")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load run")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["10x20", "100x50", "500x50", "mixed"])
    parser.add_argument("--append", action="store_true", help="add the run to RESULTS.md")
    options = parser.parse_args()
    where = report.machine()
    if servers.CPUS:
        os.sched_setaffinity(0, LOAD_CPUS)  # of the collector
    with collecting() as address:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address  # the servers inherit it
        pace = Pace(options.rounds, options.seconds, (0, 0))
        done = [measure(Model("committed", models.COMMITTED), options.workloads, pace, options.starts)]
    print(f"{report.text(done[0])}\n\n{report.targets(done[0].findings)}")
    if options.append:
        what = f"observing, {options.starts} starts, {options.rounds} rounds of {options.seconds:g} s"
        report.append(where, what, done)
    print(report.as_json(where, done))


if __name__ == "__main__":
    main()
