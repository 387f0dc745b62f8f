"""An engine whose answers betray any mix-up, and a run function for a batcher that waits to be told."""

import asyncio
import gc
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.artifact import (
    Candidates,
    Feature,
    Features,
    Golden,
    GoldenRequest,
    History,
    Manifest,
    write_golden,
    write_manifest,
)
from service.batch import BlockBatch, Floats, Sample, pack_blocks
from service.engine import Engine

BLOCK = 4  # candidates
NUMBERS = Feature(dtype="int64", buckets=8, dimension=2, max_history=4)
MANIFEST = Manifest(version="1", created="2026-01-01T00:00:00Z", features=Features(id=NUMBERS, tag=NUMBERS))


def probability(ids: Sequence[Any], tags: Sequence[Any], target_id: object, target_tag: object) -> np.float32:
    """The one answer to one candidate of one history: a hash of all of them."""
    return np.float32(zlib.crc32(repr((list(ids), list(tags), target_id, target_tag)).encode()) / 2**32)


class FakeEngine:
    """An engine that hashes instead of scoring; it waits at a gate that tests may close, and fails when told to."""

    name = "fake"
    explains = True
    fallback_reason: str | None = None

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.failure: Exception | None = None
        self.rows: list[tuple[int, ...]] = []
        self.closed = False
        self.compiled = 0

    def pack(self, samples: Sequence[Sample]) -> BlockBatch:
        """Lay out samples in small blocks."""
        return pack_blocks(samples, BLOCK)

    def run(self, batch: BlockBatch) -> Floats:
        """Hash each row, padding too."""
        self.entered.release()
        self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.rows.append(batch.rows)
        return np.array([self._block(batch, k) for k in range(len(batch.block_request))], np.float32)

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Hash each row, and pay each element of the history an attention of one part of its length."""
        blocks = batch.target_id.shape
        return self.run(batch), np.full((*blocks, batch.seq_id.shape[1]), 0.25, np.float32), self._tags(batch)

    def warm(self) -> None:
        """Nothing to compile."""

    def forget(self) -> None:
        """Forget what it was tried with while it was loaded."""
        self.rows.clear()
        self.entered = threading.Semaphore(0)

    def compilations(self) -> int:
        """As many as a test has put there."""
        compiled, self.compiled = self.compiled, 0
        return compiled

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def _block(self, batch: BlockBatch, k: int) -> list[np.float32]:
        r = batch.block_request[k]
        ids = _plain(batch.seq_id[r, : batch.seq_id_length[r]])
        tags = _plain(batch.seq_tag[r, : batch.seq_tag_length[r]])
        targets = zip(_plain(batch.target_id[k]), _plain(batch.target_tag[k]), strict=True)
        return [probability(ids, tags, target_id, target_tag) for target_id, target_tag in targets]

    def _tags(self, batch: BlockBatch) -> Floats:
        return np.full((*batch.target_id.shape, batch.seq_tag.shape[1]), 0.5, np.float32)


def write_version(model_dir: Path, number: int = 1) -> Path:
    """Write a version without a model, whose golden answers are the fake engine's."""
    folder = model_dir / str(number)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    ids, tags = [3, 1, 4, 1, 5], [9, 2, 6, 5, 3]
    requests = [
        GoldenRequest(
            name=f"history of {length}",
            history=History(ids=ids[:length], tags=tags[length:]),
            candidates=Candidates(ids=ids, tags=tags),
            probabilities=[
                float(probability(ids[:length], tags[length:], *pair)) for pair in zip(ids, tags, strict=True)
            ],
        )
        for length in (1, 4)
    ]
    write_golden(folder, Golden(requests=requests))
    write_manifest(folder, MANIFEST.model_copy(update={"version": str(number)}))
    return folder


class Loads:
    """A loader of fake engines that notes what it loads."""

    def __init__(self) -> None:
        self.versions: list[str] = []
        self.engines: dict[str, FakeEngine] = {}

    def __call__(self, folder: Path, manifest: Manifest) -> Engine:
        """Load a version."""
        self.versions.append(folder.name)
        engine = self.engines[folder.name] = FakeEngine()
        return engine


def damage(folder: Path) -> None:
    """Alter a file."""
    (folder / "saved_model.pb").write_bytes(b"something else")


def repair(folder: Path) -> None:
    """Put the file back."""
    (folder / "saved_model.pb").write_bytes(b"graph")


async def freed(engine: FakeEngine) -> bool:
    """Whether an engine is closed soon: that happens in a thread."""
    gc.collect()
    for _ in range(500):
        if engine.closed:
            return True
        await asyncio.sleep(0.01)
    return False


def _plain(values: NDArray[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values.tolist()]


class Gate:
    """A batcher's run function: it notes what it is given, waits until opened, and answers or fails as told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.failure: BaseException | None = None
        self.missing = 0  # answers too few

    def __call__(self, key: str, payloads: list[int]) -> Sequence[str]:
        """Answer each payload with the key and itself."""
        self.calls.append((key, payloads))
        self.entered.release()
        self.opened.wait()
        if self.failure is not None:
            raise self.failure
        return [f"{key}{payload}" for payload in payloads][self.missing :]

    async def reached(self) -> None:
        """Wait until one more run stands at the gate."""
        await asyncio.to_thread(self.entered.acquire)
