"""The load generator, a process of its own: bodies are ready before the clock starts, and it stops by itself.

python -m benchmarks.load PORT --workload mixed --connections 8 --seconds 5
python -m benchmarks.load PORT --workload mixed --rate 500 --seconds 10
"""

import argparse
import asyncio
import dataclasses
import gc
import time
from statistics import median

import orjson
import psutil
import uvloop

from benchmarks.bodies import WORKLOADS
from benchmarks.generator import Generator, Order, Outcome
from benchmarks.summary import Load, count_by, percentile


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used so far, by this process and by the server."""

    at: float
    client_s: float
    server_s: float

    @classmethod
    def now(cls, pid: int) -> "Usage":
        """Read the clocks; a `pid` of 0 has used nothing."""
        server_s = 0.0
        if pid:
            used = psutil.Process(pid).cpu_times()
            server_s = used.user + used.system
        return cls(time.perf_counter(), time.process_time(), server_s)


async def run(order: Order) -> Load:
    """Carry out an order.

    Raises:
        OSError: the server cannot be reached.
        TimeoutError: it does not answer.
    """
    generator = Generator(order)
    loop = asyncio.get_running_loop()
    marks: list[Usage] = []
    await generator.connect()
    for after in (order.warm_s, order.warm_s + order.seconds):
        loop.call_later(after, lambda: marks.append(Usage.now(order.pid)))
    try:
        async with asyncio.timeout(order.warm_s + order.seconds + 60):
            await (generator.open() if order.rate else generator.closed())
    finally:
        generator.close()
    while len(marks) < 2:  # all requests were answered before the time was up
        marks.append(Usage.now(order.pid))
    return summarise(order, generator.outcomes, generator.unanswered, generator.sent, (marks[0], marks[1]))


def summarise(order: Order, outcomes: list[Outcome], unanswered: int, sent: int, marks: tuple[Usage, Usage]) -> Load:
    """Figures of what was answered (closed loop) or due (open loop) between two marks."""
    first, last = marks
    seconds = last.at - first.at
    seen = [each for each in outcomes if first.at <= (each.intended if order.rate else each.done) < last.at]
    good = [each for each in seen if not each.problem]
    errors = count_by(each.problem for each in outcomes if each.problem)
    if unanswered:
        errors["unanswered"] = unanswered
    in_time = [each for each in good if (each.done - each.intended) * 1000 <= order.deadline_ms]
    latencies = sorted((each.done - each.intended) * 1000 for each in good)
    stages = good[0].latency_ms if good else {}
    overheads = [(each.done - each.intended) * 1000 - each.latency_ms["infer"] for each in good]
    return Load(
        window_s=seconds,
        offered=order.rate,
        answered=len(good),
        errors=errors,
        requests_per_s=len(good) / seconds,
        candidates_per_s=sum(each.rows for each in good) / seconds,
        p50=percentile(latencies, 0.5),
        p90=percentile(latencies, 0.9),
        p99=percentile(latencies, 0.99),
        worst=latencies[-1] if latencies else 0.0,
        stages={stage: median(each.latency_ms[stage] for each in good) for stage in stages},
        overhead=median(overheads) if overheads else 0.0,
        client_cpu=(last.client_s - first.client_s) / seconds,
        server_cpu_us=(last.server_s - first.server_s) * 1e6 / len(good) if good else 0.0,
        reused=sent > order.bodies,
        in_time=len(in_time) / len(good) if good else 0.0,
        candidates_in_time_per_s=sum(each.rows for each in in_time) / seconds,
        refused_p99=percentile(sorted((each.done - each.intended) * 1000 for each in seen if each.problem), 0.99),
        sent_late_p99=percentile(sorted((each.sent - each.intended) * 1000 for each in seen), 0.99),
    )


def main() -> None:
    """Carry out the order that the command line gives and print its figures as JSON."""
    defaults = {field.name: field.default for field in dataclasses.fields(Order)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--workload", choices=WORKLOADS, default="mixed")
    parser.add_argument("--dtypes", default="int64,int64", help="of ids and tags, as the manifest has them")
    for name in (
        "connections",
        "rate",
        "seconds",
        "warm_s",
        "requests",
        "bodies",
        "seed",
        "path",
        "pid",
        "deadline_ms",
        "gaps",
    ):
        default = defaults[name]
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    options = vars(parser.parse_args())
    ids, tags = options.pop("dtypes").split(",")
    order = Order(workload=WORKLOADS[options.pop("workload")], dtypes=(ids, tags), **options)
    gc.disable()  # a look through what a run has kept takes tens of ms, which would be charged to the server
    print(orjson.dumps(uvloop.run(run(order))).decode())


if __name__ == "__main__":
    main()
