"""The native engine's arithmetic against the floor and against the matrix product, on weights of any size.

python -m benchmarks.arithmetic floor|peak|call    prints JSON
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.engines import median_ms
from benchmarks.servers import ROOT
from service.artifact import Architecture
from service.batch import Sample
from service.engine.native import NativeEngine
from service.engine.native.variables import shapes
from service.engine.native.weights import fold

LIMIT = ROOT.parent / "shared" / "perf" / "limit.py"
FLOOR_SIZES = ((50, 100), (50, 500), (200, 500))  # history, candidates
DIMENSIONS = (32, 64)
BUCKETS = 1 << 16


def make_engine(dimension: int, attention: tuple[int, ...]) -> NativeEngine:
    """An engine with random weights, ids and tags alike."""
    rng = np.random.default_rng(0)
    architecture = Architecture(attention_hidden=attention, head_hidden=(16, 8))
    tables = dict.fromkeys(("id", "tag"), (BUCKETS, dimension))
    drawn = {role: rng.normal(0, 0.3, shape) for role, shape in shapes(tables, architecture).items()}
    drawn["norm.variance"] = np.abs(drawn["norm.variance"]) + 1
    return NativeEngine(fold(drawn, architecture))


def make_call(engine: NativeEngine, history: int, candidates: int) -> Callable[[], object]:
    """One call of the engine for one request; no value occurs twice in it, so that nothing is computed once for two."""
    rng = np.random.default_rng(history * candidates)
    values = [rng.choice(10**9, count, replace=False) for count in (history, history, candidates, candidates)]
    batch = engine.pack([Sample(*values)])
    return lambda: engine.run(batch)


def floor(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Engine and `perf/limit.py` beside each other, round by round, at the seed's sizes; times in ms.

    `attention_ms` is the whole forward pass minus that of the same candidates without a history.
    """
    engine = make_engine(8, (32, 16))
    found: dict[tuple[int, int], list[tuple[float, float, float]]] = {size: [] for size in FLOOR_SIZES}
    for _ in range(rounds):
        limit = {(case["history"], case["candidates"]): case["ms"] for case in _limit()["cases"]}
        for (history, candidates), times in found.items():
            whole = median_ms(make_call(engine, history, candidates), seconds)
            rest = median_ms(make_call(engine, 0, candidates), seconds)
            times.append((whole, whole - rest, limit[history, candidates]))
    return [
        {
            "history": history,
            "candidates": candidates,
            "level": engine.level,
            "whole_ms": median(whole for whole, _, _ in times),
            "attention_ms": median(attention for _, attention, _ in times),
            "floor_ms": median(limit for _, _, limit in times),
            "whole": median(whole / limit for whole, _, limit in times),
            "attention": median(attention / limit for _, attention, limit in times),
        }
        for (history, candidates), times in found.items()
    ]


def peak(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """GFLOP/s of both attention units with 64-32 units, as a share of numpy's float32 matrix product on this core."""
    engines = {dimension: make_engine(dimension, (64, 32)) for dimension in DIMENSIONS}
    sizes = [(dimension, *size) for dimension in DIMENSIONS for size in FLOOR_SIZES]
    found: dict[tuple[int, int, int], list[tuple[float, float]]] = {size: [] for size in sizes}
    for _ in range(rounds):
        product = float(_limit()["peak_gflops"])
        for (dimension, history, candidates), rates in found.items():
            flops = 2 * 2 * history * candidates * (dimension * 64 + 64 * 32 + 32)
            rates.append(
                (flops / median_ms(make_call(engines[dimension], history, candidates), seconds) / 1e6, product)
            )
    return [
        {
            "dimension": dimension,
            "history": history,
            "candidates": candidates,
            "level": engines[dimension].level,
            "gflops": median(rate for rate, _ in rates),
            "peak_gflops": median(product for _, product in rates),
            "share": median(rate / product for rate, product in rates),
        }
        for (dimension, history, candidates), rates in found.items()
    ]


def call(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One call from Python with 16 candidates and a history of 16, in ms."""
    engine = make_engine(8, (32, 16))
    times = [median_ms(make_call(engine, 16, 16), seconds) for _ in range(rounds)]
    return [{"history": 16, "candidates": 16, "level": engine.level, "ms": median(times)}]


def _limit() -> Any:
    command = [sys.executable, str(LIMIT)]
    return orjson.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


MEASURES: dict[str, Callable[[int, float], Sequence[dict[str, Any]]]] = {"floor": floor, "peak": peak, "call": call}


def main() -> None:
    """Measure what the command line names and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5)
    options = parser.parse_args()
    print(orjson.dumps(MEASURES[options.what](options.rounds, options.seconds)).decode())


if __name__ == "__main__":
    main()
