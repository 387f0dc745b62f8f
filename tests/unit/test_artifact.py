import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from service import artifact
from service.artifact import Architecture, BlockSignature, Feature, Features, Golden, Quality, Signatures, Training
from service.drift import Scores
from service.errors import ArtifactError
from service.seen import Seen
from tests.fakes import MANIFEST, write_version

FULL = MANIFEST.model_copy(
    update={
        "architecture": Architecture(pooling="mean", attention_hidden=(3,), head_hidden=(), head_activation="dice"),
        "variables": {"table_id": "din/tables/id"},
        "signatures": Signatures(score=BlockSignature(block=64), explain=BlockSignature(name="explain", block=64)),
        "training": Training(data="drawn", rows=2, test_rows=1, epochs=1, batch_rows=2, learning_rate=0.1, seed=7),
        "metrics": {"din": Quality(auc=0.75, gauc=0.7, logloss=0.5)},
        "scores": Scores(bounds=(0.5, 1.0), shares=(0.25, 0.75), rows=4, clicks=0.5),
        "seen": Seen(ids=3, hashes=7, bits=32),
    }
)
ID = {"dtype": "int64", "buckets": 8, "dimension": 2, "max_history": 4}
TEXT = ID | {"dtype": "string"}
SCORES = {"bounds": [0.5, 1.0], "rows": 4, "clicks": 0.5}


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    """A manifest reads back as it was written, with the checksum of every other file of the folder, nested ones too."""
    version = tmp_path / "1"
    (version / "variables").mkdir(parents=True)
    (version / "variables" / "index").write_bytes(b"weights")
    artifact.write_manifest(version, FULL)
    read = artifact.read_manifest(version)
    assert read.files == {"variables/index": hashlib.sha256(b"weights").hexdigest()}
    assert read.model_copy(update={"files": {}}) == FULL
    artifact.check_files(version, read)


def test_golden_survives_the_disk(tmp_path: Path) -> None:
    """Golden requests read back as they were written, their probabilities to the last bit, a line each."""
    version = write_version(tmp_path)
    golden = artifact.read_golden(version)
    artifact.write_golden(version, golden)
    assert artifact.read_golden(version) == golden
    assert len((version / artifact.GOLDEN).read_text().splitlines()) == len(golden.requests) + 2


def test_versions_are_sorted_by_number(tmp_path: Path) -> None:
    """Numbered folders come lowest first; files, other names and a missing folder give nothing."""
    for name in ("10", "9", "100", "0", "01", "1a", "latest", "1" * 19):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file")
    assert [path.name for path in artifact.versions(tmp_path)] == ["9", "10", "100"]
    assert artifact.versions(tmp_path / "missing") == []


def test_unreadable_model_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model folder that the system does not let us list is an error, not an empty one."""

    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ArtifactError, match="cannot be read: Permission denied"):
        artifact.versions(tmp_path)


def test_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read for its checksum makes the version bad."""
    version = write_version(tmp_path)
    manifest = artifact.read_manifest(version)

    def refuse(path: Path, mode: str = "r") -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ArtifactError, match="1: cannot be read: Permission denied"):
        artifact.check_files(version, manifest)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        pytest.param({"format": 2}, "format", id="format-of-the-future"),
        pytest.param({"extra": 1}, "extra", id="unknown-field"),
        pytest.param({"version": 1}, "version", id="version-not-text"),
        pytest.param({"features": {"id": {"dtype": "float"}}}, "features.id.dtype", id="unknown-dtype"),
        pytest.param(
            {"architecture": {"head_activation": "swish"}}, "architecture.head_activation", id="unknown-activation"
        ),
        pytest.param({"architecture": {"attention_hidden": []}}, "architecture.attention_hidden", id="no-layer"),
        pytest.param({"architecture": {"head_hidden": [0]}}, "architecture.head_hidden.0", id="empty-layer"),
        pytest.param({"signatures": {"score": {"block": 0}}}, "signatures.score.block", id="empty-blocks"),
        pytest.param({"scores": {"bounds": [0.5]}}, "scores.shares", id="no-shares"),
        pytest.param({"scores": SCORES | {"shares": [0.5, 0.1]}}, "scores", id="not-all-rows"),
        pytest.param({"seen": {"ids": 3, "hashes": 7, "bits": 33}}, "seen.bits", id="part-of-a-byte"),
        pytest.param({"features": {"id": ID | {"default": "a"}, "tag": ID}}, "features.id", id="default-of-text"),
        pytest.param({"features": {"id": ID, "tag": TEXT | {"default": 5}}}, "features.tag", id="default-of-number"),
    ],
)
def test_bad_manifest_names_the_place(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    """A manifest that does not keep the contract is refused, naming the file and the first place."""
    version = write_version(tmp_path)
    path = version / artifact.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactError) as caught:
        artifact.read_manifest(version)
    assert str(caught.value).startswith(f"{path}: {place}: ")


@pytest.mark.parametrize("default", [-1, 2**63 - 1, "é", "5"])
def test_default_keeps_its_type(default: int | str) -> None:
    """What an unknown item takes is a number or a text, as the manifest has it."""
    dtype = "string" if isinstance(default, str) else "int64"
    feature = Feature.model_validate_json(json.dumps(ID | {"dtype": dtype, "default": default}))
    assert Feature.model_validate_json(feature.model_dump_json()).default == default


@pytest.mark.parametrize(
    ("created", "seconds"),
    [
        pytest.param("2026-01-01T00:00:00+00:00", 1767225600, id="utc"),
        pytest.param("2026-01-01T02:00:00+02:00", 1767225600, id="elsewhere"),
        pytest.param("2026-01-01T00:00:00", 1767225600, id="no-zone"),
        pytest.param("2026-01-01T00:00:00Z", 1767225600, id="z"),
        pytest.param("last week", None, id="no-time"),
    ],
)
def test_creation_is_a_time(created: str, seconds: float | None) -> None:
    """What a manifest says of its creation is Unix time, or unknown; without a zone it is UTC."""
    assert MANIFEST.model_copy(update={"created": created}).created_s == seconds


def test_golden_ids_fit_int64() -> None:
    """A golden id beyond int64 is refused when it is read."""
    columns = {"ids": [2**63], "tags": [1]}
    with pytest.raises(ValidationError):
        Golden.model_validate(
            {"requests": [{"name": "n", "history": columns, "candidates": columns, "probabilities": [0.5]}]}
        )


def test_sample_keeps_the_newest_history() -> None:
    """Each history sequence is cut to its own maximum, from the old end; candidates stay whole."""

    def feature(dtype: Literal["int64", "string"], most: int) -> Feature:
        return Feature(dtype=dtype, buckets=8, dimension=2, max_history=most)

    features = Features(id=feature("int64", 3), tag=feature("string", 2))
    manifest = MANIFEST.model_copy(update={"features": features})
    sample = artifact.to_sample(manifest, ([1, 2, 3, 4], ["a", "é", "c"]), ([5, 6, 7, 8], ["w", "x", "y", "z"]))
    assert sample.seq_id.tolist() == [2, 3, 4]
    assert sample.seq_tag.tolist() == ["é".encode(), b"c"]
    assert sample.target_id.tolist() == [5, 6, 7, 8]
    assert sample.target_tag.tolist() == [b"w", b"x", b"y", b"z"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        pytest.param([], "int64", np.dtype(np.int64), id="no-numbers"),
        pytest.param([-(2**63), 2**63 - 1], "int64", np.dtype(np.int64), id="extremes"),
        pytest.param([], "string", np.dtype(object), id="no-strings"),
        pytest.param(["a\0"], "string", np.dtype(object), id="trailing-zero-byte"),
    ],
)
def test_column_has_the_features_type(values: list[Any], dtype: str, expected: np.dtype[Any]) -> None:
    """A column is int64 or objects whatever it holds, and loses nothing."""
    made = artifact.to_array(values, dtype)
    assert made.dtype == expected
    assert [each.decode() if isinstance(each, bytes) else each for each in made.tolist()] == values


def test_column_beyond_int64_overflows() -> None:
    """A number beyond int64 is never wrapped round."""
    with pytest.raises(OverflowError):
        artifact.to_array([2**63], "int64")
