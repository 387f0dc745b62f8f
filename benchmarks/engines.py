"""The engines without HTTP: over sizes, under one and two executors, and how far apart their answers are.

python -m benchmarks.engines growth|cores|difference MODEL_DIR    prints JSON
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson

from benchmarks.bodies import WORKLOADS, Workload, make_samples
from benchmarks.servers import CPUS
from service import artifact
from service.batch import Sample
from service.config import Settings
from service.engine import Engine, choice, native, tensorflow
from service.loading import Opener
from service.registry import Registry
from service.release import Policy
from service.scorer import Scorer

GROWTH_CANDIDATES = (10, 20, 50, 100, 200, 500, 1000, 2000)
GROWTH_HISTORY = (1, 2, 5, 10, 20, 50, 100, 150, 200)
AT_ONCE = 20  # requests of the comparison in a batch
IN_FLIGHT = 16  # enough that two executors always find a batch waiting


def median_ms(call: Callable[[], object], seconds: float) -> float:
    """Median time of a call, in ms, over at least `seconds` and five calls."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * median(times)


def infer_ms(engine: Engine, manifest: artifact.Manifest, history: int, candidates: int, seconds: float) -> float:
    """Median time of an engine's run of one request, in ms."""
    samples = make_samples(Workload("one", candidates, history), 1, history * candidates, manifest)
    batch = engine.pack(samples)
    return median_ms(lambda: engine.run(batch), seconds)


def growth(model_dir: Path, seconds: float) -> dict[str, list[dict[str, float]]]:
    """Time of the native engine and of the signatures `score` and `serving_default`, over candidates and history."""
    manifest, engines = _open(model_dir)
    most = manifest.features.id.max_history

    def at(history: int, candidates: int) -> dict[str, float]:
        sizes = {"history": history, "candidates": candidates}
        return sizes | {
            f"{name}_ms": infer_ms(each, manifest, history, candidates, seconds) for name, each in engines.items()
        }

    return {
        "candidates": [at(min(50, most), candidates) for candidates in GROWTH_CANDIDATES],
        "history": [at(history, 500) for history in GROWTH_HISTORY if history <= most],
    }


async def cores(model_dir: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Candidates/s through the real `Scorer`: one executor on one CPU, then an executor on each of two.

    Everything is in this process, its event loop too, so that no load generator takes from the second CPU what the
    first measurement did not have to pay.
    """
    registries = [await _loaded(model_dir, executors) for executors in (1, 2)]
    found = []
    for name in ("100x50", "500x50"):
        samples = make_samples(WORKLOADS[name], 500, 1, artifact.read_manifest(artifact.versions(model_dir)[-1]))
        pairs = [
            [await _throughput(registries[n - 1], samples, CPUS[-n:], seconds) for n in (1, 2)] for _ in range(rounds)
        ]
        found.append(
            {
                "workload": name,
                "one": median(one for (one, _), _ in pairs),
                "two": median(two for _, (two, _) in pairs),
                "ratio": median(two / one for (one, _), (two, _) in pairs),
                "cores_used": median(used for _, (_, used) in pairs),
            }
        )
    for registry in registries:
        await registry.stop()
    return found


async def _loaded(model_dir: Path, executors: int) -> Registry:
    """The newest version, with the threads that a server of as many executors gives it."""
    registry = Registry(model_dir, Opener(partial(choice.load, intra_op_threads=executors)))
    await registry.start()
    if registry.current is None:
        raise RuntimeError(registry.problem)
    return registry


async def _throughput(
    registry: Registry, samples: Sequence[Sample], cpus: Sequence[int], seconds: float
) -> tuple[float, float]:
    """Candidates/s with as many executors as CPUs, and the default policy; and how many cores' time that took."""
    served, defaults = registry.current, Settings()
    assert served is not None
    policy = Policy(defaults.max_batch_rows, defaults.max_queue_rows, defaults.max_delay_ms / 1000)
    _pin_all_threads(cpus)
    scorer = Scorer(policy, len(cpus), lambda *_: None)
    await scorer.start()
    _pin_all_threads(cpus)  # the executors' too
    turn, rows = itertools.cycle(samples), [0]
    warm_until = time.perf_counter() + seconds / 5
    end = warm_until + seconds
    started, used_s = time.perf_counter(), time.process_time()

    async def keep_asking() -> None:
        while (now := time.perf_counter()) < end:
            sample = next(turn)
            await scorer.score(served, sample, time.monotonic() + 60)
            rows[0] += sample.rows if now >= warm_until else 0

    await asyncio.gather(*(keep_asking() for _ in range(IN_FLIGHT)))
    now = time.perf_counter()
    await scorer.stop(5)
    return rows[0] / (now - warm_until), (time.process_time() - used_s) / (now - started)


def _pin_all_threads(cpus: Sequence[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended since it was listed
            os.sched_setaffinity(int(thread.name), cpus)


def difference(model_dir: Path, requests: int) -> list[dict[str, float]]:
    """Largest difference between the native engine and `serving_default` over random requests."""
    manifest, engines = _open(model_dir)
    samples = make_samples(WORKLOADS["mixed"], requests, 11, manifest)
    worst, rows = 0.0, 0
    for start in range(0, requests, AT_ONCE):
        some = samples[start : start + AT_ONCE]
        ours, theirs = (
            np.concatenate(batch.split(engine.run(batch)))
            for engine in (engines["native"], engines["serving_default"])
            for batch in [engine.pack(some)]
        )
        worst, rows = max(worst, float(np.abs(ours - theirs).max())), rows + len(ours)
    return [{"requests": requests, "candidates": rows, "largest difference": worst}]


def _open(model_dir: Path) -> tuple[artifact.Manifest, dict[str, Engine]]:
    """The newest version in every engine, warm."""
    version = artifact.versions(model_dir)[-1]
    manifest = artifact.read_manifest(version)
    model = tensorflow.SavedModel(version)
    engines: dict[str, Engine] = {
        "native": native.load(version, manifest),
        "score": tensorflow.open_engine(model, manifest),
        "serving_default": tensorflow.RowEngine(model, manifest),
    }
    for engine in engines.values():
        engine.warm()
    return manifest, engines


def main() -> None:
    """Measure what the command line names and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("growth", "cores", "difference"))
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--requests", type=int, default=10_000, help="of the comparison")
    options = parser.parse_args()
    found: Any
    if options.what == "growth":
        found = growth(options.model_dir, options.seconds)
    elif options.what == "difference":
        found = difference(options.model_dir, options.requests)
    else:
        found = asyncio.run(cores(options.model_dir, options.rounds, options.seconds))
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    main()
