"""An open loop that checks each answer against the version it names; a process of its own.

python -m benchmarks.checked_load PORT EXPECTED --rate 500 --seconds 10
python -m benchmarks.checked_load PORT EXPECTED --rate 500 --busy .7 --pid PID --seconds 10

On SIGTERM it sends no more, and says what it has found.
"""

import argparse
import asyncio
import gc
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
import psutil
import uvloop

from benchmarks.bodies import WORKLOADS
from benchmarks.connection import Exchange
from benchmarks.generator import Generator, Order, Outcome, failure
from benchmarks.kinds import BODIES, SEED, kind_of, read_expected
from benchmarks.pacing import LOOK_S, Pacer
from benchmarks.summary import count_by, percentile
from service.artifact import TOLERANCE

SLICE_S = 5.0


class Checked(Generator):
    """Compares probabilities, and notes which versions answered."""

    def __init__(self, order: Order, expected: Path) -> None:
        super().__init__(order)
        self._expected = read_expected(expected, order.workload)
        self._places = {id(body): place for place, body in enumerate(self.bodies)}
        self.versions: dict[str, int] = {}
        self.rate = order.rate
        self._answered = 0

    def due(self) -> Iterable[float]:
        """When requests are due: at one rate, or at that which keeps the server as busy as is wanted."""
        return self._paced() if self.order.busy else super().due()

    def _paced(self) -> Iterator[float]:
        """A Poisson process whose rate is looked at anew all the time, and so drawn one by one."""
        order, server = self.order, psutil.Process(self.order.pid)
        pacer, gaps = Pacer(order.busy, order.rate), np.random.default_rng(order.seed)
        at = look_at = time.perf_counter()
        ends_at = at + order.seconds
        while at < ends_at:
            if at >= look_at:
                used = server.cpu_times()
                self.rate = pacer.look(used.user + used.system, self._answered)
                look_at += LOOK_S
            at += float(gaps.exponential(1 / self.rate))
            yield at

    def judge(self, exchange: Exchange) -> Outcome:
        """Check one answer."""
        problem = failure(exchange) or self._compare(exchange)
        self._answered += not problem
        return Outcome(exchange.intended, exchange.done, exchange.body.rows, problem, {})

    def _compare(self, exchange: Exchange) -> str:
        answer = orjson.loads(exchange.content)
        version = answer["model"]["version"]
        self.versions[version] = self.versions.get(version, 0) + 1
        expected = self._expected[kind_of(version)][self._places[id(exchange.body)]]
        ours = np.array(answer["probabilities"])
        if ours.shape != expected.shape or not np.abs(ours - expected).max() <= TOLERANCE:
            return "wrong"
        return ""


def slices(outcomes: Sequence[Outcome]) -> list[float]:
    """99th percentile in ms of what was due in each whole `SLICE_S`, counted from the end."""
    good = [each for each in outcomes if not each.problem]
    if not good:
        return []
    first, last = min(each.intended for each in good), max(each.intended for each in good)
    found: list[list[float]] = [[] for _ in range(int((last - first) // SLICE_S))]
    for each in good:
        place = int((last - each.intended) // SLICE_S)
        if place < len(found):
            found[place].append((each.done - each.intended) * 1000)
    return [percentile(sorted(each), 0.99) for each in found]


async def run(order: Order, expected: Path) -> dict[str, object]:
    """Carry out an order and sum it up: times in ms, `rate` the last, `p99s` of slices of `SLICE_S`, newest first."""
    generator = Checked(order, expected)
    await generator.connect()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, generator.stop)
    try:
        async with asyncio.timeout(order.seconds + 60):
            await (generator.open() if order.rate else generator.closed())
    finally:
        generator.close()
    good = sorted((each.done - each.intended) * 1000 for each in generator.outcomes if not each.problem)
    errors = count_by(each.problem for each in generator.outcomes if each.problem)
    if generator.unanswered:
        errors["unanswered"] = generator.unanswered
    return {
        "rate": generator.rate,
        "sent": generator.sent,
        "answered": len(good),
        "errors": errors,
        "versions": generator.versions,
        "p50": percentile(good, 0.5),
        "p99": percentile(good, 0.99),
        "p99s": slices(generator.outcomes),
        "worst": good[-1] if good else 0.0,
    }


def main() -> None:
    """Carry out the order that the command line gives and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("expected", type=Path)
    parser.add_argument("--workload", choices=WORKLOADS, default="mixed")
    parser.add_argument("--rate", type=float, default=0.0, help="requests/s; 0: a closed loop of 8 connections")
    parser.add_argument("--busy", type=float, default=0.0, help="share of a core's time, which the rate then follows")
    parser.add_argument("--pid", type=int, default=0, help="of the server, with --busy")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    order = Order(
        given.port,
        WORKLOADS[given.workload],
        rate=given.rate,
        seconds=given.seconds,
        warm_s=0.0,
        requests=sys.maxsize,
        bodies=BODIES,
        seed=SEED,
        pid=given.pid,
        busy=given.busy,
    )
    gc.disable()  # see benchmarks.load
    print(orjson.dumps(uvloop.run(run(order, given.expected))).decode())


if __name__ == "__main__":
    main()
