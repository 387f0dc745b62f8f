"""Canaries and shadows, and what a version must pass before it takes over."""

import hashlib
from pathlib import Path

import pytest

from service.artifact import Manifest
from service.engine import Engine
from service.errors import ArtifactError, UnknownVersion, VersionRefused
from service.loading import Opener
from service.registry import Registry
from service.rollout import RolloutFile, Share
from tests.fakes import Loads, damage, freed, write_version

pytestmark = pytest.mark.anyio


@pytest.fixture
def loads() -> Loads:
    """The loader."""
    return Loads()


@pytest.fixture
def registry(tmp_path: Path, loads: Loads) -> Registry:
    """A registry over `tmp_path`, not started."""
    return Registry(tmp_path, Opener(loads), RolloutFile(tmp_path / "rollout.json"))


def serving(registry: Registry) -> str:
    """The version that serves, empty if none."""
    return registry.current.version if registry.current else ""


async def test_canary_takes_its_share(tmp_path: Path, registry: Registry, loads: Loads) -> None:
    """A canary scores the same part of the requests each time, until it ends and is freed."""
    for number in (1, 2):
        write_version(tmp_path, number)
    await registry.start()
    await registry.activate("1")
    share = Share(version="2", percent=30)
    await registry.share("canary", share)
    for i in range(1000):
        chosen = registry.choose(str(i))
        assert chosen is not None
        assert chosen.version == ("2" if share.takes(str(i)) else "1")
    assert [each["roles"] for each in registry.describe()] == [["serving"], ["canary"]]
    del chosen
    await registry.share("canary", None)
    assert {registry.choose(str(i)) for i in range(100)} == {registry.current}
    assert await freed(loads.engines["2"])


async def test_canary_can_be_promoted(tmp_path: Path, registry: Registry, loads: Loads) -> None:
    """Activating the canary serves what is loaded already."""
    for number in (1, 2):
        write_version(tmp_path, number)
    await registry.start()
    await registry.activate("1")
    await registry.share("canary", Share(version="2", percent=30))
    loaded = list(loads.versions)
    await registry.activate("2")
    await registry.share("canary", None)
    assert (serving(registry), loads.versions) == ("2", loaded)


async def test_shadow_is_never_the_one_that_answered(tmp_path: Path, registry: Registry) -> None:
    """Requests of the shadow's share are copied to it, but not those that the same version answered."""
    for number in (1, 2):
        write_version(tmp_path, number)
    await registry.start()
    await registry.share("shadow", Share(version="1", percent=100))
    current, shadow = registry.current, registry.shadow
    assert current is not None
    assert shadow is not None
    assert registry.shadow_of("request", current) is shadow
    assert registry.shadow_of("request", shadow) is None
    await registry.share("shadow", None)
    assert registry.shadow_of("request", current) is None


@pytest.mark.parametrize("role", ["canary", "shadow"])
async def test_bad_share_changes_nothing(tmp_path: Path, registry: Registry, role: str) -> None:
    """A canary or shadow that is bad or missing is refused, and the one there was stays."""
    write_version(tmp_path, 1)
    good = Share(version="1", percent=1)
    await registry.start()
    await registry.share(role, good)
    damage(write_version(tmp_path, 2))
    with pytest.raises(VersionRefused):
        await registry.share(role, Share(version="2", percent=1))
    with pytest.raises(UnknownVersion):
        await registry.share(role, Share(version="3", percent=1))
    assert getattr(registry.rollout, role) == good


def sha256(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_trial_decides(tmp_path: Path) -> None:
    """The first version is proven here, later ones elsewhere first, and only once while they stay the same."""
    loads, tried = Loads(), []

    class Somewhere:
        def run(self, folder: Path, stamp: object) -> str:
            tried.append(folder.name)
            if folder.name == "3":
                raise ArtifactError("3: crashed")
            return f"verdict on {folder.name}"

        def stop(self) -> None:
            tried.append("stop")

    def load(folder: Path, manifest: Manifest, verdict: str) -> Engine:
        assert verdict == f"verdict on {folder.name}"
        return loads(folder, manifest)

    registry = Registry(tmp_path, Opener(loads, Somewhere(), load))  # type: ignore[arg-type]
    write_version(tmp_path, 1)
    await registry.start()
    assert tried == []
    for number in (2, 3):
        write_version(tmp_path, number)
    await registry.settle()
    assert (serving(registry), registry.problems) == ("2", ["3: crashed"])
    for version in ("1", "2", "1", "2"):
        await registry.activate(version)
    assert tried == ["3", "2", "1"]
    await registry.stop()
    assert tried[-1] == "stop"


async def test_allowed_manifests_are_asked_first(tmp_path: Path, loads: Loads) -> None:
    """With a list of allowed manifests nothing of another version is loaded, until the list names it."""
    allowed = tmp_path / "allowed"
    folders = [write_version(tmp_path / "din", number) for number in (1, 2)]
    allowed.write_text(sha256(folders[0] / "manifest.json") + "\n")
    registry = Registry(tmp_path / "din", Opener(loads, allowed=allowed))
    await registry.start()
    assert (serving(registry), loads.versions) == ("1", ["1"])
    assert len(registry.problems) == 1
    allowed.write_text(allowed.read_text() + sha256(folders[1] / "manifest.json") + "\n")
    await registry.settle()
    assert serving(registry) == "2"
