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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import orjson

from benchmarks import report
from benchmarks.checked_load import SLICE_S
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS
from benchmarks.kinds import WORKLOAD, Kinds
from benchmarks.sections import Finding, Section
from benchmarks.servers import ROOT, Server, environment, ours, pinned, running

LOAD = 0.7  # of the time of the server's core, which the load's rate follows: the machine's pace halves and doubles
SOAK_LOAD = 0.2
CALM_S = 10.5  # under load without a switch, before each
LEAD_S = 3.0  # from the start of a load to a switch: it takes its first to get going
SWITCH_S = 300.0  # longest wait for one switch
# The default queue is a quarter of a second, and whoever shares the machine takes half of it for longer now and then:
# where a second may be waited what is refused is the server's fault.
FLAGS = ("--poll-s", "0.5", "--max-queue-rows", str(1 << 18), "--deadline-ms", "2500")


class Bench:
    """A server over a folder that versions are put into, and loads that check its answers."""

    def __init__(self, folder: Path) -> None:
        self._kinds = Kinds(folder)
        self._model_dir = folder / "din"
        self.version = 3
        self._kinds.publish(self._model_dir, self.version)
        self.server: Server = ours(self._model_dir, SERVER_CPUS, *FLAGS)

    def load(self, rate: float, seconds: float, busy: float = 0.0) -> "subprocess.Popen[bytes]":
        """Start a load, of one rate or from one on."""
        more = ["--busy", str(busy), "--pid", str(self.server.pid)] if busy else []
        command = self._kinds.load_command(self.server.port, rate, seconds, *more)
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
    """One version after another, each after some time under the same load without a switch.

    99th percentiles are compared of stretches of one length: a machine that is shared is slow for a second now and
    then, which is in the percentile of a minute and seldom in that of a few.
    """
    rows: list[dict[str, Any]] = []
    calm_p99s: list[float] = []
    trial_p99s: list[float] = []
    swap_p99s: list[float] = []
    took: list[float] = []
    with bench() as made:
        capacity = made.capacity()
        rate = LOAD * capacity
        for _ in range(count):
            calm = finish(made.load(rate, CALM_S, LOAD))
            rate = calm["rate"]
            load = made.load(rate, SWITCH_S, LOAD)
            time.sleep(LEAD_S)
            took.append(made.switch())
            time.sleep(1)
            if load.poll() is not None:
                raise RuntimeError(f"the load ended before version {made.version} served")
            load.terminate()  # it says what it has found
            busy = finish(load)
            rate = busy["rate"]
            rows += [_row("none", calm), _row(f"to {made.version}, {took[-1]:.1f} s", busy)]
            calm_p99s += calm["p99s"]
            swap_p99s += busy["p99s"][:1]  # the last one
            trial_p99s += busy["p99s"][1:]
            print(*rows[-2:], calm["p99s"], busy["p99s"], sep="\n", file=sys.stderr, flush=True)
    calm_rows, busy_rows = rows[::2], rows[1::2]
    calm_p99 = median(calm_p99s)
    what = f"p99 of {SLICE_S:.0f} s, median, against that without a switch"
    findings = [
        Finding(f"failed or wrong answers over {count} switches at {LOAD:.0%} load", _errors(busy_rows), 0, False, ""),
        Finding(f"{what}, while a version is tried", median(trial_p99s) / calm_p99, 2.0, False),
        Finding(f"{what}, while it takes over", median(swap_p99s) / calm_p99, 2.0, False),
    ]
    note = (
        f"{_range(rows, 'rate')} requests/s of {WORKLOAD}, where a closed loop of 8 connections got {capacity:.0f} "
        f"before; a switch took {min(took):.1f} to {max(took):.1f} s from its renaming; {_errors(calm_rows)} answers "
        "failed between the switches. "
        f"Quartiles of the p99s of {SLICE_S:.0f} s, in ms: {_quartiles(calm_p99s)} without a switch; "
        f"{_quartiles(trial_p99s)} while a version is tried; {_quartiles(swap_p99s)} while it takes over."
    )
    return Section(f"{count} version switches under load, server on one core", rows, findings, note)


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
        Finding("failed or wrong answers", _errors(rows), 0, False, ""),
    ]
    return Section(f"{minutes} minutes with a new version each, server on one core", rows, findings)


def _row(switches: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "switches": switches,
        "rate": round(found["rate"]),
        "sent": found["sent"],
        "errors": found["errors"],
        "versions": len(found["versions"]),
        **{name: round(found[name], 2) for name in ("p50", "p99", "worst")},
    }


def _errors(rows: Sequence[dict[str, Any]]) -> int:
    return sum(sum(row["errors"].values()) for row in rows)


def _quartiles(values: Sequence[float]) -> str:
    return ", ".join(f"{each:.1f}" for each in quantiles(values, n=4))


def _range(rows: Sequence[dict[str, Any]], column: str) -> str:
    values = [row[column] for row in rows]
    return f"{min(values):.0f} to {max(values):.0f}"


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
