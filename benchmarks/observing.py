"""What being observed costs: throughput with metrics and 1 % of the requests traced, against both off.

python -m benchmarks.observing                     # four workloads, about six minutes
python -m benchmarks.observing --starts 1 --seconds 2 --workloads 10x20
python -m benchmarks.observing --append            # to RESULTS.md

One server on one core, under one load, that switches between the three every fifty requests
(`benchmarks.switched_server`): what else the machine does hits all of them. It is started anew a few times. Its spans
go to a collector that throws them away, on the load generator's core.
"""

import argparse
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import models, report, servers
from benchmarks.bodies import WORKLOADS
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS, Model, Pace, Target
from benchmarks.sections import Finding, Section
from benchmarks.servers import Server
from benchmarks.summary import Load, median_ratio
from benchmarks.switched_server import BOTH, METRICS, MODES, OFF, Spent

KEPT = 0.95  # of the throughput, with metrics and traces


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


def measure(model: Model, workloads: list[str], pace: Pace, starts: int) -> Section:
    """Load it with each workload, `starts` times anew."""
    rows, findings = [], []
    found: dict[str, list[dict[str, Spent]]] = {each: [] for each in workloads}
    loads: dict[str, list[Load]] = {each: [] for each in workloads}
    for seed in range(starts):
        for workload in workloads:
            load, spent = _run(model, workload, pace, seed)
            loads[workload].append(load)
            found[workload].append(spent)
    for workload, runs in found.items():
        failed = sum(load.failed for load in loads[workload])
        rows += [_row(workload, mode, runs, failed) for mode in MODES]
        findings += [_finding(model, workload, runs, than) for than in (OFF, METRICS)]
    if not Drain.taken:
        raise RuntimeError("no span arrived: nothing was traced")
    note = f"8 connections; medians of {starts} starts with {pace.seconds:g} s of load each, a third in each mode."
    return Section(f"Being observed, {model.name}, one core", rows, findings, note)


def _run(model: Model, workload: str, pace: Pace, seed: int) -> tuple[Load, dict[str, Spent]]:
    """What the load generator saw of one server, and what the server spent in each mode."""
    arguments = ["benchmarks.switched_server", "serve", "--port", "{port}", "--model-dir", str(model.folder)]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told.json")
        os.environ["OBSERVED"] = str(told)  # the server inherits it
        server = Server("switched", [*arguments, "--trace-ratio", "0.01"], SERVER_CPUS)
        with servers.running(server):
            load = Target(server, model.dtypes).load(workload, pace, connections=8, seed=seed)
        return load, {mode: Spent(**spent) for mode, spent in json.loads(told.read_text()).items()}


def _rates(runs: list[dict[str, Spent]], mode: str) -> list[float]:
    """Requests per second of each run."""
    return [run[mode].requests / run[mode].wall_s for run in runs]


def _cpu_us(runs: list[dict[str, Spent]], mode: str) -> list[float]:
    return [1e6 * run[mode].cpu_s / run[mode].requests for run in runs]


def _row(workload: str, mode: str, runs: list[dict[str, Spent]], failed: int) -> dict[str, Any]:
    rates = _rates(runs, mode)
    return {
        "workload": workload,
        "on": mode,
        "requests": sum(run[mode].requests for run in runs),
        "req/s": round(median(rates)),
        "of both off": f"{median_ratio(rates, _rates(runs, OFF)):.3f}",
        "server CPU us/req": f"{median(_cpu_us(runs, mode)):.1f}",
        "failed": failed,  # in all modes together
    }


def _finding(model: Model, workload: str, runs: list[dict[str, Spent]], than: str) -> Finding:
    rates, others = _rates(runs, BOTH), _rates(runs, than)
    ratios = sorted(rate / other for rate, other in zip(rates, others, strict=True))
    cpu = median_ratio(_cpu_us(runs, than), _cpu_us(runs, BOTH))
    what = f"{model.name}, {workload}: requests/s with metrics and 1 % traced, against {than}"
    note = f"{ratios[0]:.3f} to {ratios[-1]:.3f}; by CPU time {cpu:.3f}x"
    return Finding(what, median_ratio(rates, others), KEPT, at_least=True, note=note)


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each load run")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["10x20", "100x50", "500x50", "mixed"])
    parser.add_argument("--append", action="store_true", help="add the run to RESULTS.md")
    options = parser.parse_args()
    where = report.machine()
    if servers.CPUS:
        os.sched_setaffinity(0, LOAD_CPUS)  # of the collector
    with collecting() as address:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = address  # the servers inherit it
        pace = Pace(1, options.seconds, (0, 0))
        done = [measure(Model("committed", models.COMMITTED), options.workloads, pace, options.starts)]
    print(f"{report.text(done[0])}\n\n{report.targets(done[0].findings)}")
    if options.append:
        what = f"observing, {options.starts} starts of {options.seconds:g} s"
        report.append(where, what, done)
    print(report.as_json(where, done))


if __name__ == "__main__":
    main()
