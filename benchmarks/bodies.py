"""Random request bodies: distinct, seeded, made before any clock starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from service.artifact import Manifest, read_manifest, versions
from service.batch import Ids, Sample
from service.seen import read_seen

HEAD = b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_COMMITTED = Path(__file__).parents[1] / "model_artifacts" / "din"
_IDS = 250_000  # about MovieLens's largest id
_TAGS = 20
# Mixed: medians and widths of log-normal lengths, and where they are cut.
_MIXED = {"candidates": (60.0, 0.9, 1, 500), "history": (30.0, 0.9, 0, 200)}


@dataclass(frozen=True, slots=True)
class Workload:
    """How many candidates and how much history each request has; None: log-normal."""

    name: str
    candidates: int | None
    history: int | None


WORKLOADS = {
    each.name: each
    for each in (
        Workload("10x20", 10, 20),
        Workload("100x50", 100, 50),
        Workload("500x50", 500, 50),
        Workload("500x200", 500, 200),
        Workload("mixed", None, None),
    )
}


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """One request and how many candidates it asks about."""

    content: bytes  # its JSON
    message: bytes  # the whole HTTP/1.1 request
    rows: int


def make_bodies(
    workload: Workload, count: int, seed: int, dtypes: tuple[str, str] = ("int64", "int64"), path: str = "/score"
) -> list[Body]:
    """Draw `count` bodies; the same ones for a seed. `dtypes` are those of the manifest's ids and tags."""
    rng = np.random.default_rng(seed)
    return [_body(path, *_columns(rng, workload, dtypes)) for _ in range(count)]


def make_samples(workload: Workload, count: int, seed: int, manifest: Manifest) -> list[Sample]:
    """Draw what `make_bodies` draws, as the engine takes it."""
    features = manifest.features
    dtypes = features.id.dtype, features.tag.dtype
    rng = np.random.default_rng(seed)
    drawn = [_columns(rng, workload, dtypes) for _ in range(count)]
    return [
        Sample(
            _array(history[0])[-features.id.max_history :],
            _array(history[1])[-features.tag.max_history :],
            _array(candidates[0]),
            _array(candidates[1]),
        )
        for history, candidates in drawn
    ]


def _columns(rng: np.random.Generator, workload: Workload, dtypes: tuple[str, str]) -> tuple[list[Any], list[Any]]:
    """History and candidates, each a pair of columns."""
    history = _length(rng, "history") if workload.history is None else workload.history
    candidates = _length(rng, "candidates") if workload.candidates is None else workload.candidates
    pairs = [
        [
            _values(rng.choice(_known_ids(), length, replace=False), dtypes[0]),
            _values(rng.integers(1, _TAGS, length, endpoint=True), dtypes[1]),
        ]
        for length in (history, candidates)
    ]
    return pairs[0], pairs[1]


def _length(rng: np.random.Generator, of: str) -> int:
    middle, sigma, least, most = _MIXED[of]
    return int(np.clip(round(rng.lognormal(np.log(middle), sigma)), least, most))


@cache
def _known_ids() -> Ids:
    """What the committed version has met, as its filter says: all other ids share a row, which is computed once.

    A fifth are the filter's errors: such ids as nobody has met.
    """
    ids = np.arange(1, _IDS + 1)
    version = versions(_COMMITTED)[-1]
    seen = read_seen(version, read_manifest(version).seen)
    return ids if seen is None else ids[seen.contains(ids)]


def _values(drawn: Ids, dtype: str) -> Sequence[Any]:
    return drawn.tolist() if dtype == "int64" else [str(each) for each in drawn.tolist()]


def _array(values: Sequence[Any]) -> Ids:
    if values and isinstance(values[0], str):
        return np.array([each.encode() for each in values], object)
    return np.array(values, np.int64)


def _body(path: str, history: Sequence[Any], candidates: Sequence[Any]) -> Body:
    parts = {
        name: {"ids": ids, "tags": tags} for name, (ids, tags) in (("history", history), ("candidates", candidates))
    }
    content = orjson.dumps(parts)
    return Body(content, HEAD % (path.encode(), len(content)) + content, len(candidates[0]))
