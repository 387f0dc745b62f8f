"""Versions on disk, loaded by a fake engine whose answers the golden requests hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from service.artifact import (
    GOLDEN,
    MANIFEST,
    Golden,
    Manifest,
    read_golden,
    read_manifest,
    write_golden,
    write_manifest,
)
from service.batch import BlockBatch, Floats
from service.engine import Engine
from service.errors import ArtifactError
from service.loading import Opener, resident_bytes
from service.registry import Registry
from service.seen import SEEN_IDS, make_seen, write_seen
from tests.fakes import FakeEngine, write_version

pytestmark = pytest.mark.anyio

Damage: TypeAlias = Callable[[Path], Any]


class NotANumber(FakeEngine):
    """Answers NaN."""

    def run(self, batch: BlockBatch) -> Floats:
        """Answer of the right shape, and nothing else right."""
        return np.full(batch.target_id.shape, np.nan, np.float32)


class Off(FakeEngine):
    """Answers a little too much."""

    def run(self, batch: BlockBatch) -> Floats:
        """Answer with ten times the tolerance added."""
        return super().run(batch) + np.float32(1e-4)


class ExplainsOff(FakeEngine):
    """Answers well, but otherwise when it explains."""

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Explain other probabilities than `run` answers."""
        probability, ids, tags = super().explain(batch)
        return 1 - probability, ids, tags


class Narrow(FakeEngine):
    """Answers fewer rows than it is asked."""

    def run(self, batch: BlockBatch) -> Floats:
        """Leave out a block."""
        return super().run(batch)[1:]


class Cold(FakeEngine):
    """Cannot be warmed."""

    def warm(self) -> None:
        """Fail as a compiler does, at length."""
        raise RuntimeError("no kernel\nand many lines more")


class Plain(FakeEngine):
    """Has no attention to show."""

    explains = False

    def explain(self, batch: BlockBatch) -> tuple[Floats, Floats, Floats]:
        """Never called."""
        raise AssertionError


async def started(model_dir: Path, engine: Engine) -> Registry:
    """Start a registry whose loader hands out one engine."""
    registry = Registry(model_dir, Opener(lambda *_: engine))
    await registry.start()
    return registry


def reseal(folder: Path, requests: list[Any]) -> None:
    """Change a version's golden requests and make its checksums agree."""
    write_golden(folder, Golden(requests=requests))
    write_manifest(folder, read_manifest(folder))


def drop_an_answer(folder: Path) -> None:
    """Take the last probability from the first golden request."""
    first = read_golden(folder).requests[0]
    reseal(folder, [first.model_copy(update={"probabilities": first.probabilities[:-1]})])


def rename(folder: Path) -> None:
    """Let the manifest be another version's."""
    write_manifest(folder, read_manifest(folder).model_copy(update={"version": "2"}))


def break_golden(folder: Path) -> None:
    """Let the golden file, checksum and all, hold something else."""
    (folder / GOLDEN).write_text("[]")
    write_manifest(folder, read_manifest(folder))


def cut_seen(folder: Path) -> None:
    """Let the file of seen ids, checksum and all, be shorter than the manifest says."""
    made = make_seen(np.arange(10))
    (folder / SEEN_IDS).write_bytes(made.content.tobytes()[: made.seen.bits // 16])
    write_manifest(folder, read_manifest(folder).model_copy(update={"seen": made.seen}))


def lose_seen(folder: Path) -> None:
    """Let the manifest describe a file of seen ids, and list none."""
    write_manifest(folder, read_manifest(folder).model_copy(update={"seen": make_seen(np.arange(10)).seen}))


@pytest.mark.parametrize("kind", [pytest.param(FakeEngine, id="explains"), pytest.param(Plain, id="does-not")])
async def test_start_serves_a_sound_version(tmp_path: Path, kind: type[FakeEngine]) -> None:
    """A version that passes every check is current, with its manifest and engine, and nothing is wrong."""
    write_version(tmp_path, 7)
    engine = kind()
    registry = await started(tmp_path, engine)
    assert registry.problem is None
    assert registry.current is not None
    assert (registry.current.version, registry.current.engine) == ("7", engine)
    assert registry.current.load_s >= 0
    assert not engine.closed


async def test_seen_ids_are_loaded(tmp_path: Path) -> None:
    """A version that came with the ids of its training knows them; one without has none, and serves."""
    made = make_seen(np.arange(10))
    write_seen(write_version(tmp_path, 1), made)
    write_manifest(tmp_path / "1", read_manifest(tmp_path / "1").model_copy(update={"seen": made.seen}))
    registry = await started(tmp_path, FakeEngine())
    assert registry.current is not None
    assert registry.current.seen is not None
    assert registry.current.seen.contains(np.arange(10)).all()
    write_version(tmp_path, 2)
    await registry.settle()
    assert registry.current.version == "2"
    assert registry.current.seen is None


async def test_loading_says_what_it_took(tmp_path: Path) -> None:
    """A version knows the programs compiled for it and the memory it added."""
    write_version(tmp_path, 1)
    engine = FakeEngine()
    engine.compiled = 2
    registry = await started(tmp_path, engine)
    assert registry.current is not None
    assert registry.current.compilations == 2
    assert abs(registry.current.memory_bytes) < resident_bytes()


def test_resident_memory_is_known_everywhere(tmp_path: Path) -> None:
    """Memory is bytes held now, and where the system has no such file something at least."""
    array = np.ones(1 << 22)
    assert resident_bytes() > array.nbytes
    assert resident_bytes(tmp_path / "statm") > 0


async def test_newest_version_is_served(tmp_path: Path) -> None:
    """Versions are compared as numbers, and what is not a numbered folder is no version."""
    for number in (9, 10, 2):
        write_version(tmp_path, number)
    for junk in ("011", "12a", "v13", "-14", ".15.tmp", "١٦"):
        (tmp_path / junk).mkdir()
    (tmp_path / "17").write_text("a file")
    registry = await started(tmp_path, FakeEngine())
    assert registry.current is not None
    assert registry.current.version == "10"


async def test_loading_is_the_first_problem(tmp_path: Path) -> None:
    """Until it is started a registry says that it is loading."""
    registry = Registry(tmp_path, Opener(lambda *_: FakeEngine()))
    assert (registry.current, registry.problem) == (None, "loading")


@pytest.mark.parametrize("folder", ["empty", "missing"])
async def test_no_version_is_a_problem(tmp_path: Path, folder: str) -> None:
    """A model folder without versions, or that does not exist, is named."""
    (tmp_path / "empty").mkdir()
    registry = await started(tmp_path / folder, FakeEngine())
    assert registry.current is None
    assert registry.problem == f"{tmp_path / folder}: holds no version (a folder named by a number)"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        pytest.param(lambda folder: (folder / MANIFEST).unlink(), "manifest.json: cannot be read", id="no-manifest"),
        pytest.param(
            lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json: file: Invalid JSON", id="not-json"
        ),
        pytest.param(
            lambda folder: (folder / MANIFEST).write_text("{}"), "manifest.json: version: Field", id="no-fields"
        ),
        pytest.param(rename, "says version 2, the folder is 1", id="another-version"),
        pytest.param(lambda folder: (folder / "saved_model.pb").unlink(), "saved_model.pb: missing", id="missing"),
        pytest.param(
            lambda folder: (folder / "saved_model.pb").write_text("?"), "saved_model.pb: sha256", id="altered"
        ),
        pytest.param(lambda folder: (folder / "more").write_text("?"), "more: not listed", id="unlisted"),
        pytest.param(break_golden, "golden.json: file: Input should be an object", id="golden-malformed"),
        pytest.param(lambda folder: reseal(folder, []), "golden.json: holds no request", id="golden-empty"),
        pytest.param(drop_an_answer, "'history of 1': 4 probabilities for 5 candidates", id="golden-short"),
        pytest.param(cut_seen, "seen_ids.bin: holds 48 bits, the manifest says 96", id="filter-cut"),
        pytest.param(lose_seen, "seen_ids.bin: cannot be read: No such file", id="filter-missing"),
    ],
)
async def test_bad_version_is_not_served(tmp_path: Path, damage: Damage, problem: str) -> None:
    """A version whose files are not what they should be is refused, naming the file and the reason."""
    damage(write_version(tmp_path))
    registry = await started(tmp_path, FakeEngine())
    assert registry.current is None
    assert problem in (registry.problem or "")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        pytest.param(Off, "golden request 'history of 1': off by 0.0001", id="off"),
        pytest.param(ExplainsOff, "golden request 'history of 1': off by 0.", id="explains-off"),
        pytest.param(NotANumber, "golden request 'history of 1': off by nan", id="nan"),
        pytest.param(Narrow, "does not run: ValueError: the engine answered (1, 4)", id="wrong-shape"),
        pytest.param(Cold, "1: does not run: RuntimeError: no kernel", id="cannot-warm"),
    ],
)
async def test_bad_engine_is_closed(tmp_path: Path, kind: type[FakeEngine], problem: str) -> None:
    """An engine that fails, or whose answers are not the golden ones, is freed and never serves."""
    write_version(tmp_path)
    engine = kind()
    registry = await started(tmp_path, engine)
    assert registry.current is None
    assert problem in (registry.problem or "")
    assert "\n" not in (registry.problem or "")
    assert engine.closed


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        pytest.param(ArtifactError("1: no signature score"), "1: no signature score", id="foreseen"),
        pytest.param(KeyError("inputs"), "does not run: KeyError: 'inputs'", id="unforeseen"),
    ],
)
async def test_failing_loader_is_a_problem(
    tmp_path: Path, error: Exception, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a loader raises becomes one sentence, which the log has too."""

    def load(folder: Path, manifest: Manifest) -> Engine:
        raise error

    write_version(tmp_path)
    registry = Registry(tmp_path, Opener(load))
    await registry.start()
    assert registry.current is None
    assert (registry.problem or "").endswith(problem)
    assert problem in caplog.text


async def test_version_without_golden_requests_is_served(tmp_path: Path) -> None:
    """A version made elsewhere may come without golden requests; it is only warmed."""
    folder = write_version(tmp_path)
    (folder / GOLDEN).unlink()
    write_manifest(folder, read_manifest(folder))
    registry = await started(tmp_path, Off())
    assert registry.current is not None


async def test_stop_frees_the_version(tmp_path: Path) -> None:
    """Once stopped nothing is served and the engine is closed; stopping again does nothing."""
    write_version(tmp_path)
    engine = FakeEngine()
    registry = await started(tmp_path, engine)
    await registry.stop()
    await registry.stop()
    assert (registry.current, registry.problem) == (None, "stopped")
    assert engine.closed
