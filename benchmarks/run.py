"""Measure the service, print tables and a last line of JSON, and append the run to RESULTS.md.

make bench                                  # everything, about half an hour
make bench ARGS="--quick"                   # a look, a few minutes: numbers are noise
make bench ARGS="--only closed --no-append"
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import engine_sections, models, report, sections
from benchmarks.comparison import PACES, SERVER_CPUS, Model, Pace, run_module
from benchmarks.sections import Section
from benchmarks.servers import CPUS

SECTIONS = ("ceiling", "arithmetic", "start", "difference", "closed", "open", "cores", "memory", "growth")
SEED_SIZES = "seed sizes"


def measure(chosen: set[str], found: list[Model], pace: Pace) -> Iterator[Section]:
    """Run the sections one after the other."""
    if "ceiling" in chosen:
        yield sections.ceiling(pace)
    if "arithmetic" in chosen:
        yield from _arithmetic(pace)
    for model in found:
        for name, section in PER_MODEL.items():
            if name in chosen:
                yield from section(model, pace)
        if "growth" in chosen:
            yield _growth(model, pace)


def _arithmetic(pace: Pace) -> list[Section]:
    from benchmarks.arithmetic import LIMIT

    if not LIMIT.exists():
        print(f"skipped: the engine against the floor needs {LIMIT}")
        return []
    return engine_sections.arithmetic(pace)


PER_MODEL: dict[str, Callable[[Model, Pace], list[Section]]] = {
    "start": lambda model, pace: [engine_sections.start(model, pace)],
    "difference": lambda model, pace: [engine_sections.difference(model, pace)],
    "closed": lambda model, pace: [sections.closed(model, pace)],
    "open": lambda model, pace: [sections.open_loop(model, pace)],
    "cores": lambda model, pace: sections.cores(model, pace) if len(CPUS) > 1 else [],
    "memory": lambda model, pace: [sections.memory(model, pace)],
}


def _growth(model: Model, pace: Pace) -> Section:
    from benchmarks.plots import draw_growth

    found = run_module(
        "benchmarks.engines", "growth", str(model.folder), f"--seconds={pace.seconds / 8}", cpus=SERVER_CPUS
    )
    pictures = ", ".join(f"![{path.stem}]({path.name})" for path in draw_growth(model.name, found))
    rows = [
        {name: f"{value:.3f}" if name.endswith("_ms") else value for name, value in point.items()}
        for points in found.values()
        for point in points
    ]
    return Section(f"Growth of inference time, {model.name}, one core", rows, note=pictures)


def _models(chosen: list[str], scratch: Path) -> list[Model]:
    found = []
    if "committed" in chosen:
        if models.COMMITTED.is_dir():
            found.append(Model("committed", models.COMMITTED))
        else:
            print(f"skipped: there is no committed model in {models.COMMITTED}")
    if "seed" in chosen:
        run_module("benchmarks.models", str(scratch), cpus=CPUS)
        found.append(Model(SEED_SIZES, scratch))
    return found


def main() -> None:
    """Read the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--models", nargs="+", choices=("committed", "seed"), default=["committed", "seed"])
    parser.add_argument("--rounds", type=int, help="of ours and the baseline in turn; medians are reported")
    parser.add_argument("--seconds", type=float, help="of each load run")
    parser.add_argument("--memory-requests", type=int, nargs=2, metavar=("FIRST", "LAST"))
    parser.add_argument("--no-append", action="store_true", help="leave RESULTS.md alone")
    options = parser.parse_args()
    pace = PACES["quick" if options.quick else "full"]
    given = {"rounds": options.rounds, "seconds": options.seconds}
    if options.memory_requests:
        given["memory_requests"] = tuple(options.memory_requests)
    pace = replace(pace, **{name: value for name, value in given.items() if value})
    where = report.machine()
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    done = []
    with tempfile.TemporaryDirectory(prefix="dinserve-bench-") as scratch:
        for section in measure(set(options.only), _models(options.models, Path(scratch)), pace):
            print(f"\n{report.text(section)}", flush=True)
            done.append(section)
    print(f"\n{report.targets(finding for section in done for finding in section.findings)}")
    if not options.no_append:
        report.append(where, "quick" if options.quick else f"{pace.rounds} rounds of {pace.seconds:g} s", done)
    print(report.as_json(where, done))


if __name__ == "__main__":
    main()
