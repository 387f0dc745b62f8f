"""The list of manifests that may be loaded."""

import hashlib
from pathlib import Path

import pytest

from service import artifact
from service.errors import ArtifactError
from service.loading import Opener
from tests.fakes import FakeEngine, write_version

OTHER = hashlib.sha256(b"another manifest").hexdigest()


@pytest.fixture
def version(tmp_path: Path) -> Path:
    """A version without a model."""
    return write_version(tmp_path / "din")


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """Where the list is."""
    return tmp_path / "allowed"


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("{sum}", id="bare"),
        pytest.param("{sum}  din/1/manifest.json\n", id="of-sha256sum"),
        pytest.param("{sum} *din/1/manifest.json\n", id="of-sha256sum-binary"),
        pytest.param("# trained in March\r\n\r\n{other}  2\r\n{sum}  1\r\n", id="among-others"),
    ],
)
def test_listed_manifest_is_allowed(version: Path, allowed: Path, lines: str) -> None:
    """A manifest whose sum begins a line may be loaded, in either case of letters, whatever else the file holds."""
    found = hashlib.sha256((version / "manifest.json").read_bytes()).hexdigest()
    for spelling in (found, found.upper()):
        allowed.write_text(lines.format(sum=spelling, other=OTHER))
        artifact.check_allowed(version, allowed)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("", id="nothing"),
        pytest.param("{other}  din/1/manifest.json\n", id="another-sum-under-its-name"),
        pytest.param("# {sum}\n", id="comment"),
        pytest.param("{sum}0\n", id="too-long"),
        pytest.param("{short}\n", id="cut-short"),
    ],
)
def test_unlisted_manifest_is_not(version: Path, allowed: Path, lines: str) -> None:
    """A manifest that is not listed is refused, and the message has the sum that would allow it."""
    found = artifact.manifest_sum(version)
    allowed.write_text(lines.format(sum=found, short=found[:-1], other=OTHER))
    with pytest.raises(ArtifactError, match=f"manifest.json: sha256 {found} is not among those that {allowed} allows"):
        artifact.check_allowed(version, allowed)


def test_without_a_list_nothing_is_allowed(version: Path, allowed: Path) -> None:
    """A list that cannot be read allows nothing, and is named."""
    with pytest.raises(ArtifactError, match=f"^{allowed}: cannot be read: No such file"):
        artifact.check_allowed(version, allowed)


def test_version_without_manifest_is_not_allowed(version: Path, allowed: Path) -> None:
    """A manifest that cannot be read is not allowed, and is named."""
    allowed.write_text(artifact.manifest_sum(version))
    (version / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=f"^{version / 'manifest.json'}: cannot be read: No such file"):
        artifact.check_allowed(version, allowed)


def test_unlisted_version_is_not_touched(version: Path, allowed: Path) -> None:
    """What is not listed is refused before anything of it is loaded."""
    loaded: list[object] = []

    def load(*arguments: object) -> FakeEngine:
        loaded.append(arguments)
        return FakeEngine()

    opener = Opener(load, allowed=allowed)
    allowed.write_text(OTHER)
    with pytest.raises(ArtifactError, match="not among"):
        opener.open(version, opener.stamp(version), None)
    assert loaded == []
    allowed.write_text(artifact.manifest_sum(version))
    assert opener.open(version, opener.stamp(version), None).version == "1"
