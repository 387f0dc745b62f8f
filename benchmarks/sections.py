"""What is measured, section by section; each returns rows for its table and findings for the targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks import servers
from benchmarks.bodies import WORKLOADS
from benchmarks.capacity import Capacity
from benchmarks.comparison import LOAD_CPUS, SERVER_CPUS, Model, Pace, Target, both, faster_way, run_module
from benchmarks.servers import CPUS
from benchmarks.summary import Load, median_ratio


@dataclass(frozen=True, slots=True)
class Finding:
    """A number that has a target."""

    what: str
    value: float
    target: float
    at_least: bool  # or at most
    unit: str = "x"
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether it is as good as wanted."""
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass(frozen=True, slots=True)
class Section:
    """A table."""

    title: str
    rows: list[dict[str, Any]]
    findings: list[Finding] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Of an open loop's requests: at a share of what the server can do, and how they lie in time."""

    percent: int
    gaps: str  # as of `benchmarks.generator.arrivals`


POISSON, EVEN = Arrivals(80, "poisson"), Arrivals(80, "even")
ARRIVALS = (Arrivals(50, "poisson"), POISSON, EVEN, Arrivals(150, "poisson"))
SHARED = 64  # connections where the load generator shares the servers' cores: with 16 they often wait for it
THROUGHPUT = {"10x20": 4.0, "100x50": 7.0, "500x50": 7.0, "500x200": 7.0}  # at 8 connections


def closed(model: Model, pace: Pace) -> Section:
    """Both servers under 1 and 8 connections, and the load generator's own ceiling beside them."""
    rows, findings = [], []
    with both(model) as (ours, theirs):
        for workload in WORKLOADS:
            for connections in (1, 8):
                rounds = _rounds(ours, theirs, workload, pace, connections)
                rows += [_closed_row(workload, connections, each) for each in rounds]
                findings += _closed_findings(model, workload, connections, *rounds)
            if workload == "100x50":
                findings.append(_overhead_in_pool(model, ours, theirs, pace))
    return Section(f"Closed loop, {model.name}, each server on one core", rows, findings)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """What one server did in each round of a cell."""

    server: str
    loads: list[Load]

    def of(self, name: str) -> list[float]:
        """One figure, round by round."""
        return [getattr(load, name) for load in self.loads]


def _rounds(ours: Target, theirs: Target, workload: str, pace: Pace, connections: int) -> tuple[_Rounds, _Rounds]:
    """Ours, theirs, ours, theirs: what else the machine does hits both."""
    theirs = faster_way(theirs, workload, pace, connections)
    pairs = [
        [target.load(workload, pace, connections=connections, seed=seed) for target in (ours, theirs)]
        for seed in range(pace.rounds)
    ]
    name = "baseline" if theirs.path == "/score" else "baseline (inline)"
    return _Rounds("ours", [pair[0] for pair in pairs]), _Rounds(name, [pair[1] for pair in pairs])


def _closed_row(workload: str, connections: int, rounds: _Rounds) -> dict[str, Any]:
    return {
        "workload": workload,
        "conns": connections,
        "server": rounds.server,
        "req/s": round(median(rounds.of("requests_per_s"))),
        "cand/s": round(median(rounds.of("candidates_per_s"))),
        **_latencies(rounds.loads),
        "server CPU us/req": round(median(rounds.of("server_cpu_us"))),
        "load CPU": f"{median(rounds.of('client_cpu')):.0%}",
        "failed": sum(load.failed for load in rounds.loads),
    }


def _latencies(loads: list[Load]) -> dict[str, str]:
    names = {"p50": "p50 ms", "p90": "p90 ms", "p99": "p99 ms", "worst": "max ms", "overhead": "total-infer ms"}
    shown = {label: f"{median(getattr(load, name) for load in loads):.2f}" for name, label in names.items()}
    stages = {stage: median(load.stages[stage] for load in loads if load.stages) for stage in loads[0].stages}
    return {**shown, "stages ms": " ".join(f"{stage} {ms:.2f}" for stage, ms in stages.items())}


def _closed_findings(model: Model, workload: str, connections: int, ours: _Rounds, theirs: _Rounds) -> list[Finding]:
    if connections == 8 and workload in THROUGHPUT:
        ratio = median_ratio(ours.of("candidates_per_s"), theirs.of("candidates_per_s"))
        what = f"{model.name}: candidates/s against the baseline, 8 connections, {workload}"
        cpu = median_ratio(theirs.of("server_cpu_us"), ours.of("server_cpu_us"))
        return [Finding(what, ratio, THROUGHPUT[workload], at_least=True, note=f"by CPU time {cpu:.2f}x")]
    if connections == 1 and workload == "100x50":
        what = f"{model.name}: total minus infer at 100x50, one connection"
        ratio = median_ratio(ours.of("overhead"), theirs.of("overhead"))
        return [
            Finding(what, median(ours.of("overhead")), 0.6, at_least=False, unit=" ms"),
            Finding(f"{what}, against the baseline's", ratio, 0.5, at_least=False),
        ]
    return []


def _overhead_in_pool(model: Model, ours: Target, theirs: Target, pace: Pace) -> Finding:
    """Overhead against the endpoint that most teams write, in the thread pool, whichever is faster."""
    pairs = [
        [target.load("100x50", pace, connections=1, seed=seed).overhead for target in (ours, theirs)]
        for seed in range(pace.rounds)
    ]
    what = f"{model.name}: total minus infer at 100x50, one connection, against the baseline's in the thread pool"
    return Finding(what, median(a / b for a, b in pairs), 0.5, at_least=False)


def open_loop(model: Model, pace: Pace) -> Section:
    """Ours and the baseline at shares of what each can do, mixed; constant work tells the machine's part."""
    found: dict[str, dict[Arrivals, list[Load]]] = {}
    with both(model) as (ours, theirs):
        capacity = Capacity(ours, "mixed", pace.seconds)
        work = servers.constant(1e6 / capacity.requests_per_s, SERVER_CPUS)
        with servers.running(work):
            steady = Capacity(Target(work, model.dtypes), "mixed", pace.seconds)
            for seed in range(pace.rounds):
                for each, rates in ((capacity, ARRIVALS), (steady, ARRIVALS[:-1])):
                    _open_round(each, rates, pace, seed, found)
        faster = Capacity(faster_way(theirs, "mixed", pace, 8), "mixed", pace.seconds)
        for seed in range(pace.rounds):
            _open_round(faster, ARRIVALS, pace, seed, found)
    rows = [_open_row(name, rate, loads) for name, by in found.items() for rate, loads in by.items()]
    findings, notes = [], []
    for rate in (EVEN, POISSON):
        tails = {name: median(load.p99 / load.p50 for load in by[rate]) for name, by in found.items()}
        what = f"{model.name}: p99 / p50, open loop, mixed, at {rate.percent} %, {rate.gaps} arrivals"
        findings.append(Finding(what, tails[ours.server.name], 4.0, at_least=False))
        notes.append(f"{rate.gaps} {', '.join(f'{tail:.1f}x {name}' for name, tail in tails.items())}")
    note = f"p99 / p50 at 80 %: {'; '.join(notes)}."
    return Section(f"Open loop, {model.name}, mixed, latency from the time due", rows, findings, note)


def _open_round(
    capacity: Capacity, rates: Sequence[Arrivals], pace: Pace, seed: int, found: dict[str, dict[Arrivals, list[Load]]]
) -> None:
    """Load a server at some percentages of what it can do of late."""
    target = capacity.target
    by = found.setdefault(target.server.name, {})
    for rate in rates:
        capacity.measure()
        due = capacity.requests_per_s * rate.percent / 100
        by.setdefault(rate, []).append(target.load("mixed", pace, rate=due, seed=seed, gaps=rate.gaps))


def _open_row(server: str, rate: Arrivals, loads: list[Load]) -> dict[str, Any]:
    errors: dict[str, int] = {}
    for load in loads:
        for problem, times in load.errors.items():
            errors[problem] = errors.get(problem, 0) + times
    return {
        "server": server,
        "rate": f"{rate.percent} %, {rate.gaps}",
        "due req/s": round(median(load.offered for load in loads)),
        "answered req/s": round(median(load.requests_per_s for load in loads)),
        **_latencies(loads),
        "errors": " ".join(f"{problem}: {times}" for problem, times in errors.items()) or "none",
    }


def memory(model: Model, pace: Pace) -> Section:
    """RSS of our server after some mixed requests and after many."""
    first, last = pace.memory_requests
    server = servers.ours(model.folder, SERVER_CPUS)
    with servers.running(server):
        target, rows, done = Target(server, model.dtypes), [], 0
        ready = server.rss_bytes
        for until in (first, last):
            load = target.load("mixed", pace, connections=16, requests=until - done, seconds=1200, seed=until, warm_s=0)
            done = until
            rows.append({"after requests": until, "RSS MB": round(server.rss_bytes / 1e6, 1), "failed": load.failed})
    growth = rows[1]["RSS MB"] / rows[0]["RSS MB"]
    what = f"{model.name}: RSS after {last:,} mixed requests against after {first:,}"
    rows.insert(0, {"after requests": 0, "RSS MB": round(ready / 1e6, 1), "failed": 0})
    return Section(f"Memory, {model.name}", rows, [Finding(what, growth, 1.02, at_least=False)])


def cores(model: Model, pace: Pace) -> list[Section]:
    """One executor on one core against one on each of two: the scorer alone, and over HTTP."""
    arguments = ("cores", str(model.folder), f"--rounds={pace.rounds}", f"--seconds={pace.seconds}")
    found = run_module("benchmarks.engines", *arguments, cpus=CPUS)
    rows = [
        {"workload": each["workload"], "1 core cand/s": round(each["one"]), "2 cores cand/s": round(each["two"])}
        | {"ratio": f"{each['ratio']:.2f}", "cores used of the two": f"{each['cores_used']:.2f}"}
        for each in found
    ]
    findings = [
        Finding(f"{model.name}: two cores against one, scorer, {each['workload']}", each["ratio"], 1.7, at_least=True)
        for each in found
    ]
    note = "Requests through the real Scorer in one process. Where it used fewer than two cores, others took the rest."
    return [Section(f"Two cores, scorer, {model.name}", rows, findings, note), _cores_http(model, pace)]


def _cores_http(model: Model, pace: Pace) -> Section:
    one = servers.ours(model.folder, SERVER_CPUS)
    wide = {
        "one process": servers.ours(model.folder, CPUS[-2:]),
        "--workers 2": servers.ours(model.folder, CPUS[-2:], "--workers", "2"),
    }
    rows, findings = [], []
    with servers.running(one, *wide.values()):
        alone = Target(one, model.dtypes, load_cpus=LOAD_CPUS)
        targets = {name: Target(server, model.dtypes, load_cpus=CPUS[-2:]) for name, server in wide.items()}
        for workload in ("100x50", "500x50"):
            rounds = [
                [each.load(workload, pace, connections=SHARED, seed=seed) for each in (alone, *targets.values())]
                for seed in range(pace.rounds)
            ]
            for i, name in enumerate(targets, 1):
                plain = median(each[i].candidates_per_s / each[0].candidates_per_s for each in rounds)
                corrected = median(_without_load(each[i]) / each[0].candidates_per_s for each in rounds)
                rows.append(
                    {
                        "workload": workload,
                        "on two cores": name,
                        "1 core cand/s": round(median(each[0].candidates_per_s for each in rounds)),
                        "2 cores cand/s": round(median(each[i].candidates_per_s for each in rounds)),
                        "load CPU on the two": f"{median(each[i].client_cpu for each in rounds):.0%} of a core",
                        "ratio": f"{plain:.2f}",
                        "without the load": f"{corrected:.2f}",
                    }
                )
                what = f"{model.name}: two cores against one, HTTP without the load's CPU, {name}, {workload}"
                findings.append(Finding(what, corrected, 1.7, at_least=True))
    note = (
        "With one core the load generator has the other; with two it shares them. `without the load` is what the two "
        "cores would do if the CPU time that the load generator took had been the server's: cand/s * 2 / (2 - load)."
    )
    return Section(f"Two cores, HTTP, {model.name}", rows, findings, note)


def _without_load(load: Load) -> float:
    return load.candidates_per_s * 2 / (2 - load.client_cpu)


def ceiling(pace: Pace) -> Section:
    """What the load generator can do when the server costs nothing."""
    rows = []
    for workload in ("10x20", "500x200"):
        server = servers.null(WORKLOADS[workload].candidates or 1, SERVER_CPUS)
        with servers.running(server):
            load = Target(server, ("int64", "int64")).load(workload, pace, connections=8)
        cost = load.client_cpu * 1e6 / load.requests_per_s
        rows.append({"workload": workload, "req/s": round(load.requests_per_s), "load CPU us/req": round(cost)})
    return Section("The load generator's ceiling: against a server that does nothing", rows)
