"""The real registry, over versions into whose folders reports are written."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service import artifact
from service.artifact import Manifest
from service.engine import Engine
from service.errors import ArtifactError
from service.loading import Opener, Served
from service.registry import Registry
from service.training import publish, report
from service.trial import Verdict
from tests.fakes import MANIFEST, FakeEngine, Loads, write_version
from tests.labelled import make_split

pytestmark = pytest.mark.anyio

SPLIT = make_split()
REPORT = report.make_report(
    MANIFEST, SPLIT, np.linspace(0.1, 0.9, len(SPLIT.test), dtype=np.float32), seed=1, draws=100
)


def write_report(version: Path) -> None:
    """Publish a report in a version."""
    publish.publish(version, artifact.read_manifest(version), REPORT)


async def evaluation_of(model_dir: Path) -> Any:
    """What a server that starts now knows of the evaluation; it must serve."""
    registry = Registry(model_dir, Opener(Loads()))
    await registry.start()
    assert (registry.problem, registry.problems) == (None, [])
    assert registry.current is not None
    return registry.current.manifest.evaluation


async def test_running_server_goes_on(tmp_path: Path) -> None:
    """A report about the serving version has it neither loaded again nor refused; the next to load it has the news."""
    version, loads = write_version(tmp_path), Loads()
    registry = Registry(tmp_path, Opener(loads))
    await registry.start()
    served = registry.current
    write_report(version)
    await registry.settle()
    assert registry.current is served
    assert (loads.versions, registry.problems) == (["1"], [])
    assert await evaluation_of(tmp_path) == REPORT.evaluation


async def test_every_state_on_the_way_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a server starts while a report is written it serves, with the old headline until the new is whole."""
    version = write_version(tmp_path / "original")
    copies: list[Path] = []
    replace: Callable[[Path, Path], Path] = Path.replace

    def copying(path: Path, target: Path) -> Path:
        for moment in ("before", "after"):
            if moment == "after":
                replace(path, target)
            copies.append(tmp_path / f"copy {len(copies)}")
            shutil.copytree(version, copies[-1] / "1")
        return target

    monkeypatch.setattr(Path, "replace", copying)
    write_report(version)
    found = [await evaluation_of(copy) for copy in copies]
    assert found == [None] * (len(copies) - 1) + [REPORT.evaluation]
    assert len(copies) == 2 * (4 + 1)  # four files and the manifest


async def test_report_is_no_reason_to_try_again(tmp_path: Path) -> None:
    """The files of a report leave a version's stamp as it was, so that what was refused is not tried for them."""
    version, opener = write_version(tmp_path), Opener(Loads())
    stamp = opener.stamp(version)
    (version / "report").mkdir()
    (version / "report" / "report.md").write_text("half a page")
    assert opener.stamp(version) == stamp
    assert await evaluation_of(tmp_path) is None


class Busy:
    """Trials in which something happens to the folder meanwhile."""

    def __init__(self, happens: Callable[[Path], Any]) -> None:
        self.happens = happens

    def run(self, folder: Path, stamp: object) -> Verdict:
        """Find nothing wrong."""
        self.happens(folder)
        return Verdict("fake", None)

    def stop(self) -> None:
        """Nothing runs."""


def open_beside(tmp_path: Path, happens: Callable[[Path], Any], allowed: Path | None = None) -> Served:
    """Open version 2 beside the running 1 while something happens to its folder."""

    def load(folder: Path, manifest: Manifest, verdict: Verdict | None = None) -> Engine:
        return FakeEngine()

    trials: Any = Busy(happens)
    opener = Opener(load, trials, load, allowed)
    running = Served(artifact.read_manifest(write_version(tmp_path, 1)), FakeEngine(), 0, 0)
    folder = write_version(tmp_path, 2)
    if allowed is not None:
        allowed.write_text(artifact.manifest_sum(folder))
    return opener.open(folder, opener.stamp(folder), running)


def retrain(folder: Path) -> None:
    """Let the manifest be of another training."""
    artifact.write_manifest(folder, artifact.read_manifest(folder).model_copy(update={"created": "2030-01-01"}))


def test_report_during_a_trial(tmp_path: Path) -> None:
    """A version whose report is sealed while it is tried is loaded, headline and all."""
    assert open_beside(tmp_path, write_report).manifest.evaluation == REPORT.evaluation


@pytest.mark.parametrize(
    "happens",
    [
        pytest.param(retrain, id="manifest"),
        pytest.param(lambda folder: (folder / "saved_model.pb").write_bytes(b"other"), id="model"),
    ],
)
def test_other_change_during_a_trial(tmp_path: Path, happens: Callable[[Path], Any]) -> None:
    """Any other change while a version is tried makes the trial void."""
    with pytest.raises(ArtifactError, match="changed while it was tried"):
        open_beside(tmp_path, happens)


def test_report_during_a_trial_must_be_allowed(tmp_path: Path) -> None:
    """Where manifests are listed, one that an evaluation has sealed anew must be, too."""
    with pytest.raises(ArtifactError, match="is not among those that"):
        open_beside(tmp_path, write_report, tmp_path / "allowed")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(lambda folder: (folder / "report.md").write_text("better"), "sha256 is not", id="altered"),
        pytest.param(lambda folder: (folder / "report.md").unlink(), "missing", id="missing"),
        pytest.param(lambda folder: (folder / "more.md").write_text(""), "not listed", id="unlisted"),
    ],
)
async def test_damaged_report(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    """A report that is not the manifest's keeps no version from serving, and is found by who checks reports."""
    version = write_version(tmp_path)
    write_report(version)
    damage(version / "report")
    with pytest.raises(ArtifactError, match=message):
        artifact.check_report(version, artifact.read_manifest(version))
    assert await evaluation_of(tmp_path) == REPORT.evaluation
