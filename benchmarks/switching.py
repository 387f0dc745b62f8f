"""Versions that change under load: wrong or failed answers, and what a switch does to the tail of the latency.

python -m benchmarks.switching --switches 50 [--append]
python -m benchmarks.switching --soak 30 [--append]     # minutes, a new version each, resident memory
"""

import argparse
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks import report
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS
from benchmarks.kinds import WORKLOAD, Kinds
from benchmarks.sections import Finding, Section
from benchmarks.servers import ROOT, Server, environment, ours, pinned, running

LOAD = 0.7  # of the capacity measured first
SOAK_LOAD = 0.2
SWITCH_S = 300.0  # longest wait for one switch
FLAGS = ("--poll-s", "0.5")


class Bench:
    """A server over a folder that versions are put into, and loads that check its answers."""

    def __init__(self, folder: Path) -> None:
        self._kinds = Kinds(folder)
        self._model_dir = folder / "din"
        self.version = 3
        self._kinds.publish(self._model_dir, self.version)
        self.server: Server = ours(self._model_dir, SERVER_CPUS, *FLAGS)

    def load(self, rate: float, seconds: float) -> "subprocess.Popen[bytes]":
        """Start a load."""
        command = self._kinds.load_command(self.server.port, rate, seconds)
        with pinned(LOAD_CPUS):
            return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE)

    def switch(self) -> float:
        """Put the next version into the folder and wait until it serves; returns the seconds that took."""
        self.version += 1
        started = time.monotonic()
        self._kinds.publish(self._model_dir, self.version)
        while self.serving() != str(self.version):
            if time.monotonic() - started > SWITCH_S:
                raise RuntimeError(f"version {self.version} does not serve after {SWITCH_S:.0f} s")
            time.sleep(0.2)
        return time.monotonic() - started

    def serving(self) -> str:
        """The version that serves now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.port}/health", timeout=10) as response:
            version: str = orjson.loads(response.read())["version"]
            return version

    def capacity(self) -> float:
        """Requests/s of a closed loop with 8 connections."""
        seconds = 4.0
        return float(finish(self.load(0.0, seconds))["answered"]) / seconds


def finish(load: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """What a load found."""
    output, _ = load.communicate(timeout=600)
    found: dict[str, Any] = orjson.loads(output)
    return found


@contextmanager
def bench() -> Iterator[Bench]:
    """A started bench in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="dinserve-switching-") as folder:
        made = Bench(Path(folder))
        with running(made.server):
            yield made


def switching(count: int) -> Section:
    """Latency without and with switches in turn, until so many have been made."""
    rows: list[dict[str, Any]] = []
    took: list[float] = []
    with bench() as made:
        rate = LOAD * made.capacity()
        while len(took) < count:
            calm = finish(made.load(rate, 20.0))
            busy, before = [], len(took)
            while len(took) < min(count, before + 10):
                load = made.load(rate, 60.0)
                while load.poll() is None and len(took) < min(count, before + 10):
                    took.append(made.switch())
                busy.append(finish(load))
            rows += [_row("none", calm), *(_row(f"{len(took) - before} in these", each) for each in busy)]
    failed = sum(sum(row["errors"].values()) for row in rows)
    ratios = _ratios(rows)
    findings = [
        Finding(f"failed or wrong answers over {len(took)} switches at {LOAD:.0%} load", failed, 0, False, ""),
        Finding("p99 during switches against p99 without, median", ratios, 2.0, False),
    ]
    note = f"{rate:.0f} requests/s of {WORKLOAD}; a switch took {min(took):.1f} to {max(took):.1f} s from its renaming."
    return Section(f"{len(took)} version switches under load, server on one core", rows, findings, note)


def soak(minutes: int) -> Section:
    """Resident memory, minute by minute, with a new version in each."""
    rows = []
    with bench() as made:
        rate = SOAK_LOAD * made.capacity()
        for minute in range(minutes):
            load = made.load(rate, 60.0)
            time.sleep(5)
            made.switch()
            found = finish(load)
            rows.append({"minute": minute + 1, "rss_mb": round(made.server.rss_bytes / 1e6, 1), **_row("1", found)})
            print(rows[-1], file=sys.stderr, flush=True)
    settled = min(5, minutes // 2)
    growth = max(row["rss_mb"] for row in rows[settled:]) / rows[settled - 1]["rss_mb"]
    findings = [
        Finding(f"most resident memory after minute {settled} against it", growth, 1.05, False),
        Finding("failed or wrong answers", sum(sum(row["errors"].values()) for row in rows), 0, False, ""),
    ]
    return Section(f"{minutes} minutes with a new version each, server on one core", rows, findings)


def _row(switches: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "switches": switches,
        "sent": found["sent"],
        "errors": found["errors"],
        "versions": len(found["versions"]),
        **{name: round(found[name], 2) for name in ("p50", "p99", "worst")},
    }


def _ratios(rows: list[dict[str, Any]]) -> float:
    """Median p99 of the loads with switches against that of the loads without."""
    calm = [float(row["p99"]) for row in rows if row["switches"] == "none"]
    return median([float(row["p99"]) for row in rows if row["switches"] != "none"]) / median(calm)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=0)
    parser.add_argument("--soak", type=int, default=0, help="minutes")
    parser.add_argument("--append", action="store_true", help="add the run to RESULTS.md")
    given = parser.parse_args()
    where = report.machine()
    sections = [switching(given.switches)] if given.switches else []
    sections += [soak(given.soak)] if given.soak else []
    for section in sections:
        print(report.text(section))
        print(report.targets(section.findings))
    if given.append:
        report.append(where, "versions under load", sections)
    print(report.as_json(where, sections))


if __name__ == "__main__":
    main()
