"""Versions that come, fail, are chosen and go, while one of them serves."""

import asyncio
import gc
import shutil
from pathlib import Path

import pytest

from service.artifact import read_manifest, write_manifest
from service.errors import UnknownVersion, VersionRefused
from service.loading import Opener, Served
from service.registry import Registry
from service.rollout import Rollout, RolloutFile
from tests.fakes import Loads, damage, freed, repair, write_version

pytestmark = pytest.mark.anyio


class Events:
    """Notes what a registry tells."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.refused = 0

    def load(self, served: Served) -> None:
        """Note a version."""
        self.loaded.append(served.version)

    def refuse(self) -> None:
        """Note a failure."""
        self.refused += 1


@pytest.fixture
def loads() -> Loads:
    """The loader."""
    return Loads()


@pytest.fixture
def events() -> Events:
    """What the registry told."""
    return Events()


@pytest.fixture
def registry(tmp_path: Path, loads: Loads, events: Events) -> Registry:
    """A registry over `tmp_path`, not started."""
    file = RolloutFile(tmp_path / "rollout.json")
    return Registry(tmp_path, Opener(loads), file, loaded=events.load, refused=events.refuse)


def serving(registry: Registry) -> str:
    """The version that serves, empty if none."""
    return registry.current.version if registry.current else ""


async def test_new_version_takes_over_and_the_old_is_freed(tmp_path: Path, registry: Registry, loads: Loads) -> None:
    """A version that appears serves from the next look on; the old one lasts as long as somebody uses it."""
    write_version(tmp_path, 1)
    await registry.start()
    in_flight = registry.choose("request")
    write_version(tmp_path, 2)
    await registry.settle()
    assert serving(registry) == "2"
    assert in_flight is not None
    gc.collect()
    await asyncio.sleep(0.05)
    assert not loads.engines["1"].closed
    del in_flight
    assert await freed(loads.engines["1"])
    assert not loads.engines["2"].closed


async def test_look_that_finds_nothing_new_loads_nothing(tmp_path: Path, registry: Registry, loads: Loads) -> None:
    """Looking again and again costs no load."""
    write_version(tmp_path, 1)
    await registry.start()
    for _ in range(3):
        await registry.settle()
    assert loads.versions == ["1"]


async def test_bad_version_changes_nothing_but_is_told(
    tmp_path: Path, registry: Registry, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad version is counted, logged once and told; the old one serves on; it is tried again only when it changes."""
    write_version(tmp_path, 1)
    await registry.start()
    before = registry.current
    damage(write_version(tmp_path, 2))
    for _ in range(3):
        await registry.settle()
    assert registry.current is before
    assert events.refused == 1
    assert caplog.text.count("saved_model.pb: sha256 is not the manifest's") == 1
    assert registry.problems == [f"{tmp_path}/2/saved_model.pb: sha256 is not the manifest's"]
    repair(tmp_path / "2")
    await registry.settle()
    assert (serving(registry), registry.problems) == ("2", [])


async def test_bad_version_that_goes_is_forgotten(tmp_path: Path, registry: Registry) -> None:
    """A bad version is no problem any more once it is gone, or a newer good one serves."""
    write_version(tmp_path, 1)
    damage(write_version(tmp_path, 2))
    await registry.start()
    assert (serving(registry), len(registry.problems)) == ("1", 1)
    write_version(tmp_path, 3)
    await registry.settle()
    assert (serving(registry), registry.problems) == ("3", [])
    damage(write_version(tmp_path, 4))
    await registry.settle()
    assert len(registry.problems) == 1
    shutil.rmtree(tmp_path / "4")
    await registry.settle()
    assert registry.problems == []


async def test_start_falls_back_to_an_older_version(tmp_path: Path, registry: Registry) -> None:
    """A server that starts with a bad newest version serves the newest good one and says so."""
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    damage(write_version(tmp_path, 3))
    await registry.start()
    assert (serving(registry), registry.problem) == ("2", None)
    assert "3/saved_model.pb" in registry.problems[0]


async def test_version_that_arrives_late_is_served(tmp_path: Path, registry: Registry) -> None:
    """A server that found nothing to serve serves what comes."""
    await registry.start()
    assert serving(registry) == ""
    write_version(tmp_path, 1)
    await registry.settle()
    assert (serving(registry), registry.problem, registry.problems) == ("1", None, [])


async def test_removed_version_gives_way_to_the_next(tmp_path: Path, registry: Registry) -> None:
    """Unpinned, removing the newest version goes back to the one before; removing all changes nothing but is told."""
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    await registry.start()
    shutil.rmtree(tmp_path / "2")
    await registry.settle()
    assert serving(registry) == "1"
    shutil.rmtree(tmp_path / "1")
    await registry.settle()
    assert serving(registry) == "1"
    assert "holds no version" in registry.problems[0]


async def test_pin_survives(tmp_path: Path, registry: Registry, loads: Loads) -> None:
    """A pinned version serves though newer ones come, and after a restart; unpinned, the newest does."""
    for number in (1, 2):
        write_version(tmp_path, number)
    await registry.start()
    await registry.activate("1")
    write_version(tmp_path, 3)
    await registry.settle()
    assert serving(registry) == "1"
    again = Registry(tmp_path, Opener(loads), RolloutFile(tmp_path / "rollout.json"))
    await again.start()
    assert (serving(again), again.problems) == ("1", [])
    await again.follow_latest()
    assert serving(again) == "3"
    assert RolloutFile(tmp_path / "rollout.json").read() == (Rollout(), None)


async def test_missing_pin_is_told(tmp_path: Path, registry: Registry) -> None:
    """Where the pinned version is gone the newest serves, at a start, and the problem is told."""
    RolloutFile(tmp_path / "rollout.json").write(Rollout(pin="9"))
    write_version(tmp_path, 1)
    await registry.start()
    assert serving(registry) == "1"
    assert registry.problems == [f"version 9, the pin, is not in {tmp_path}"]


async def test_bad_version_cannot_be_activated(tmp_path: Path, registry: Registry) -> None:
    """Activating a bad version, or one that is not there, changes nothing; a repaired one is tried again at once."""
    for number in (1, 2):
        write_version(tmp_path, number)
    await registry.start()
    await registry.activate("2")
    damage(write_version(tmp_path, 3))
    with pytest.raises(VersionRefused, match="sha256 is not the manifest's"):
        await registry.activate("3")
    with pytest.raises(UnknownVersion):
        await registry.activate("../3")
    assert (serving(registry), registry.rollout.pin) == ("2", "2")
    repair(tmp_path / "3")
    await registry.activate("3")
    assert serving(registry) == "3"


async def test_decision_that_is_not_kept_is_told(tmp_path: Path, loads: Loads) -> None:
    """Where the file cannot be written the decision holds, and it is a problem that a restart will forget it."""
    for number in (1, 2):
        write_version(tmp_path, number)
    registry = Registry(tmp_path, Opener(loads), RolloutFile(tmp_path / "missing" / "rollout.json"))
    await registry.start()
    await registry.activate("1")
    await registry.settle()
    assert serving(registry) == "1"
    assert "rollout.json: cannot be written" in registry.problems[0]


async def test_other_feature_types_are_refused(tmp_path: Path, registry: Registry) -> None:
    """A version that takes strings where the running one takes integers cannot take over; nor can another model."""
    write_version(tmp_path, 1)
    await registry.start()
    for number, update in ((2, {"features": None}), (3, {"name": "other"})):
        folder = write_version(tmp_path, number)
        manifest = read_manifest(folder)
        strings = manifest.features.id.model_copy(update={"dtype": "string"})
        features = manifest.features.model_copy(update={"tag": strings})
        write_manifest(folder, manifest.model_copy(update=update if number == 3 else {"features": features}))
    await registry.settle()
    assert serving(registry) == "1"
    assert sorted(registry.problems) == [
        f"{tmp_path}/2: takes tags as string, the running version as int64",
        f"{tmp_path}/3: is the model other, the running version is din",
    ]
