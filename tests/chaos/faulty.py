"""`dinserve` with an engine that does what a request's first candidate tells it to; as a script, the command line.

The real engine computes everything else.
"""

import time
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

from service import cli
from service.artifact import Manifest
from service.batch import Batch, Floats, Sample
from service.engine import Engine, choice


class Fault(IntEnum):
    """Ids of candidates."""

    RAISE = 6661
    SHORT = 6662  # one probability too few
    LONG = 6663  # one too many
    NAN = 6664
    SLEEP = 6665  # for as many seconds as the candidate's tag says


class FaultyEngine:
    """An engine around another one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._told: dict[int, list[tuple[int, int]]] = {}  # by id of a packed batch: first candidates

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def pack(self, samples: Sequence[Sample]) -> Batch:
        """Pack, and remember what the batch tells."""
        batch = self._engine.pack(samples)
        self._told[id(batch)] = [(int(each.target_id[0]), int(each.target_tag[0])) for each in samples]
        return batch

    def run(self, batch: Batch) -> Floats:
        """Do what the batch tells."""
        answer = self._engine.run(batch)
        for target, tag in self._told.pop(id(batch)):
            match target:
                case Fault.RAISE:
                    raise RuntimeError("told to")
                case Fault.SHORT:
                    answer = answer[:-1]
                case Fault.LONG:
                    answer = answer[[*range(len(answer)), 0]]
                case Fault.NAN:
                    answer[-1] = float("nan")
                case Fault.SLEEP:
                    time.sleep(tag)
        return answer


def main() -> None:
    """Run the command line on it."""
    load = choice.load

    def load_faulty(version: Path, manifest: Manifest, *arguments: Any, **options: Any) -> Any:
        return FaultyEngine(load(version, manifest, *arguments, **options))

    choice.load = load_faulty
    cli.main()


if __name__ == "__main__":
    main()
