"""What is measured of the engines, section by section: as `sections`, without a load on a server."""

import time
from statistics import median
from typing import Any

from benchmarks import servers
from benchmarks.comparison import SERVER_CPUS, Model, Pace, run_module
from benchmarks.sections import Finding, Section


def arithmetic(pace: Pace) -> list[Section]:
    """The native engine alone: against the fastest code known, against the matrix product, and one call."""
    found = {
        what: run_module(
            "benchmarks.arithmetic", what, f"--rounds={pace.rounds}", f"--seconds={pace.seconds / 8}", cpus=SERVER_CPUS
        )
        for what in ("floor", "peak", "call")
    }
    against_floor = [
        Finding(f"native: {part} against the floor, {size}", each[part], most, at_least=False)
        for each in found["floor"]
        for size in [f"{each['history']}x{each['candidates']}"]
        for part, most in (("attention", 1.25), ("whole", 1.5))
        if part == "attention" or size == "50x500"
    ]
    share = min(each["share"] for each in found["peak"])
    against_peak = Finding("native: least share of the matrix product's GFLOP/s", share, 0.65, at_least=True)
    one_call = Finding("native: one call, 16x16", found["call"][0]["ms"], 0.1, at_least=False, unit=" ms")
    note = (
        "Floor: perf/limit.py, hand-written AVX2 code for the two attention units of the seed's sizes. `whole` also "
        "hashes, looks up and runs the head; `attention` is what a history adds to that. No value occurs twice."
    )
    return [
        Section(
            "Native engine against the floor, one core (history x candidates)",
            _rounded(found["floor"]),
            against_floor,
            note,
        ),
        Section(
            "Native engine against numpy's matrix product, attention 64-32, one core",
            _rounded(found["peak"]),
            [against_peak],
        ),
        Section("Native engine, one call from Python", _rounded(found["call"]), [one_call]),
    ]


def _rounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: f"{value:.3f}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    ]


def difference(model: Model, pace: Pace) -> Section:
    """How far the native engine's answers are from the reference's."""
    arguments = ("difference", str(model.folder), f"--requests={pace.compared_requests}")
    rows = run_module("benchmarks.engines", *arguments, cpus=SERVER_CPUS)
    worst = rows[0]["largest difference"]
    what = f"{model.name}: native against serving_default, {pace.compared_requests:,} random requests"
    rows[0]["largest difference"] = f"{worst:.1e}"
    finding = Finding(what, worst * 1e5, 1.0, at_least=False, unit="e-5")
    return Section(f"Difference between native engine and serving_default, {model.name}", rows, [finding])


def start(model: Model, pace: Pace) -> Section:
    """From the process's start until /health is ready, and its memory then, by engine."""
    rows = []
    for engine in ("native", "tensorflow"):
        times, sizes = [], []
        for _ in range(pace.rounds):
            before = time.monotonic()
            server = servers.ours(model.folder, SERVER_CPUS, "--engine", engine)
            with servers.running(server):
                times.append(time.monotonic() - before)
                sizes.append(server.rss_bytes / 1e6)
        rows.append({"engine": engine, "ready after s": f"{median(times):.1f}", "RSS MB": round(median(sizes))})
    note = "Both import TensorFlow: the native engine proves itself against it before it serves."
    return Section(f"Start, {model.name}, one core", rows, note=note)
