"""Servers under load: who is asked, how, and what the rounds come to."""

import http.client
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks import servers
from benchmarks.bodies import WORKLOADS, make_bodies
from benchmarks.servers import CPUS, ROOT, Server, environment, pinned
from benchmarks.summary import Load
from service import artifact

SERVER_CPUS, LOAD_CPUS = CPUS[-1:], CPUS[:1]  # interrupts prefer the first: the servers get the last
CONNECTIONS = (8, 32)  # few and many, in a closed loop
CHECKED = 20  # bodies of each workload that both servers must answer alike
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the measuring takes."""

    rounds: int
    seconds: float  # of each load run
    memory_requests: tuple[int, int]  # RSS is read after so many
    compared_requests: int = 10_000


PACES = {
    "full": Pace(3, 4.0, (20_000, 200_000)),
    "quick": Pace(1, 1.0, (1_000, 5_000), 500),
}


@dataclass(frozen=True, slots=True)
class Model:
    """One model folder under measurement."""

    name: str
    folder: Path

    @property
    def version(self) -> Path:
        """Its newest version."""
        return artifact.versions(self.folder)[-1]

    @property
    def dtypes(self) -> tuple[str, str]:
        """Of ids and tags."""
        features = artifact.read_manifest(self.version).features
        return features.id.dtype, features.tag.dtype


def run_module(module: str, *arguments: str, cpus: Sequence[int]) -> Any:
    """Run one of our modules on `cpus`; returns the JSON it prints.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    command = [sys.executable, "-m", module, *arguments]
    with pinned(cpus):
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{done.stderr[-3000:]}")
    return orjson.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True, slots=True)
class Target:
    """A server and the way in that is measured."""

    server: Server
    dtypes: tuple[str, str]
    path: str = "/score"
    load_cpus: Sequence[int] = LOAD_CPUS

    def load(self, workload: str, pace: Pace, **options: float | str) -> Load:
        """One run of the load generator, in a process of its own."""
        given = {"seconds": pace.seconds, "bodies": _enough(workload, pace.seconds), **options}
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        named = ["--workload", workload, "--dtypes", ",".join(self.dtypes), "--path", self.path]
        port, pid = str(self.server.port), str(self.server.pid)
        return Load(**run_module("benchmarks.load", port, "--pid", pid, *named, *flags, cpus=self.load_cpus))


@contextmanager
def both(model: Model) -> Iterator[tuple[Target, Target]]:
    """Ours and the baseline, on the same CPU; idle while the other one is measured, and proved to agree."""
    pair = servers.ours(model.folder, SERVER_CPUS), servers.baseline(model.version, SERVER_CPUS)
    with servers.running(*pair):
        ours, theirs = (Target(server, model.dtypes) for server in pair)
        check_agreement(ours, theirs)
        yield ours, theirs


def check_agreement(ours: Target, theirs: Target) -> float:
    """Ask both servers the same; returns the largest difference between their probabilities.

    Raises:
        RuntimeError: it is larger than float32 explains.
    """
    worst = 0.0
    for workload in WORKLOADS.values():
        for body in make_bodies(workload, CHECKED, 7, ours.dtypes):
            answers = [_ask(target.server.port, body.content) for target in (ours, theirs)]
            worst = max(worst, float(np.abs(np.array(answers[0]) - np.array(answers[1])).max()))
    if worst > TOLERANCE:
        raise RuntimeError(f"the two servers disagree by {worst:.2g}")
    return worst


def faster_way(theirs: Target, workload: str, pace: Pace, connections: int) -> Target:
    """The baseline's endpoint that answers more of this: in the thread pool or on the event loop."""
    ways = [theirs, replace(theirs, path="/score-inline")]
    short = replace(pace, seconds=min(2.0, pace.seconds))
    return max(ways, key=lambda way: way.load(workload, short, connections=connections).requests_per_s)


def _ask(port: int, content: bytes) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/score", content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer: list[float] = orjson.loads(response.read())["probabilities"]
        return answer
    finally:
        connection.close()


def _enough(workload: str, seconds: float) -> int:
    """Bodies for a run without sending one twice, up to what is quickly made and held."""
    most_per_s = {"10x20": 6000, "100x50": 2500, "500x50": 1000, "500x200": 500, "mixed": 3000}[workload]
    return min(20_000, int(most_per_s * (seconds + 0.5)))
