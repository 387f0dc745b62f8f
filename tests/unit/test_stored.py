"""Variables read from where a trial has found them, without TensorFlow."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from service import artifact
from service.batch import Floats, Sample
from service.engine import native
from service.engine.native import stored
from service.engine.native.stored import Place
from service.engine.native.variables import find_variables
from service.errors import ArtifactError
from service.trial import Trials, Verdict

COMMITTED = Path(__file__).parents[2] / "model_artifacts" / "din" / "1"
MANIFEST = artifact.read_manifest(COMMITTED)
ARRAYS: dict[str, Any] = {
    "a/table": np.arange(15, dtype=np.float32).reshape(5, 3),
    "a/table/again": np.arange(15, dtype=np.float32).reshape(5, 3),
    "b": np.arange(7, dtype=np.int32),
    "none": np.empty((0, 4), np.float32),
    "one": np.array(0.5, np.float32),
    **{f"layer/{i:03}": np.full((i, 2), i, np.float32) for i in range(1, 300)},  # an index of several blocks
}

needs_native = pytest.mark.skipif(native.PROBLEM is not None, reason="no native engine")


def write(folder: Path, arrays: Mapping[str, Any]) -> None:
    """A checkpoint of arrays, and of a text, as SavedModels have it."""
    tf.raw_ops.SaveV2(
        prefix=str(folder / "variables"),
        tensor_names=[*arrays, "_GRAPH"],
        shape_and_slices=[""] * (len(arrays) + 1),
        tensors=[*arrays.values(), tf.constant("some text of odd length")],
    )


def find(folder: Path, arrays: Mapping[str, Any]) -> list[Place] | None:
    """Where a checkpoint's arrays are."""
    return stored.find(folder, list(arrays), list(arrays.values()))


def assert_same(found: list[Any], expected: Mapping[str, Any]) -> None:
    """Values, shapes and types are those."""
    for ours, theirs in zip(found, expected.values(), strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        np.testing.assert_array_equal(ours, theirs)


def answers(engine: native.NativeEngine) -> Floats:
    """What an engine answers to a request."""
    ids = np.arange(40, dtype=np.int64)
    return engine.run(engine.pack([Sample(ids[:20], ids[:20] % 9, ids, ids % 9)]))


def test_variables_are_read_from_where_they_are(tmp_path: Path) -> None:
    """What TensorFlow wrote is found, and read as it was, also after what was found went through JSON."""
    write(tmp_path, ARRAYS)
    places = find(tmp_path, ARRAYS)
    assert places is not None
    assert_same(stored.read(tmp_path, places), ARRAYS)
    assert_same(stored.read(tmp_path, [Place(*each) for each in json.loads(json.dumps(places))]), ARRAYS)


def test_several_files(tmp_path: Path) -> None:
    """A checkpoint merged from two has two files of data."""
    halves = [dict(list(ARRAYS.items())[i::2]) for i in range(2)]
    for i, half in enumerate(halves):
        (tmp_path / f"{i}").mkdir()
        write(tmp_path / f"{i}", half)
    for i in range(2):  # the text is in both, which may not be
        tf.raw_ops.SaveV2(
            prefix=str(tmp_path / f"{i}" / "variables"),
            tensor_names=list(halves[i]),
            shape_and_slices=[""] * len(halves[i]),
            tensors=list(halves[i].values()),
        )
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / f"{i}" / "variables") for i in range(2)],
        destination_prefix=str(tmp_path / "variables"),
    )
    places = find(tmp_path, ARRAYS)
    assert places is not None
    assert len({each.file for each in places}) == 2
    assert_same(stored.read(tmp_path, places), ARRAYS)


def test_large_arrays_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces there are, with a last one that is shorter; others run meanwhile, most of the time."""
    arrays = {"large": np.arange(12_345, dtype=np.float32)}
    write(tmp_path, arrays)
    places = find(tmp_path, arrays)
    assert places is not None
    monkeypatch.setattr(stored, "_PIECE", 1000)
    used_s, began = time.thread_time(), time.perf_counter()
    found = stored.read(tmp_path, places)
    assert time.thread_time() - used_s < 0.5 * (time.perf_counter() - began)
    assert_same(found, arrays)


def test_what_is_not_there_has_no_place(tmp_path: Path) -> None:
    """Other values, an unknown key, and another file than a checkpoint's are not found, which is no error."""
    write(tmp_path, ARRAYS)
    assert find(tmp_path, {"b": ARRAYS["b"] + 1}) is None
    assert find(tmp_path, {"c": ARRAYS["b"]}) is None
    (data,) = tmp_path.glob("variables.data*")
    content = data.read_bytes()
    data.write_bytes(content[:100])
    assert find(tmp_path, ARRAYS) is None
    data.unlink()
    assert find(tmp_path, ARRAYS) is None
    data.write_bytes(content)
    assert find(tmp_path, ARRAYS) is not None
    (tmp_path / "variables.index").unlink()
    assert find(tmp_path, ARRAYS) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of ARRAYS."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write(folder, ARRAYS)
    return folder


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 20_000), st.binary(min_size=1, max_size=8))
def test_damaged_index_gives_no_wrong_place(checkpoint: Path, at: int, damage: bytes) -> None:
    """Whatever is in the index, what is found is what was asked for."""
    index = checkpoint / "variables.index"
    whole = index.read_bytes()
    content = bytearray(whole)
    at %= len(content)
    content[at : at + len(damage)] = damage
    index.write_bytes(bytes(content))
    try:
        places = find(checkpoint, ARRAYS)
    finally:
        index.write_bytes(whole)
    if places is not None:
        assert_same(stored.read(checkpoint, places), ARRAYS)


@needs_native
def test_engine_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    """An engine whose variables are read where they were found answers bit by bit as one of TensorFlow's reader."""
    places = find_variables(COMMITTED, MANIFEST.variables or {})
    expected = answers(native.load(COMMITTED, MANIFEST))
    np.testing.assert_array_equal(answers(native.load(COMMITTED, MANIFEST, places)), expected)
    bare = Path(shutil.copytree(COMMITTED, tmp_path / "1", ignore=shutil.ignore_patterns("*.index")))
    np.testing.assert_array_equal(answers(native.load(bare, MANIFEST, places)), expected)
    with pytest.raises(ArtifactError, match="cannot be read"):
        native.load(bare, MANIFEST)


@needs_native
def test_engine_needs_no_tensorflow() -> None:
    """A process that was told where the variables are does not import what reads checkpoints."""
    places = json.dumps(find_variables(COMMITTED, MANIFEST.variables or {}))
    code = (
        "import json, sys; from pathlib import Path; from service import artifact; from service.engine import native\n"
        "folder, places = Path(sys.argv[1]), json.loads(sys.argv[2])\n"
        "native.load(folder, artifact.read_manifest(folder), places)\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(COMMITTED), places], check=True, timeout=60)


@needs_native
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"dtype": "<f8", "shape": [1]}, "is float64, not", id="type"),
        pytest.param({"shape": [1]}, "has the shape", id="shape"),
        pytest.param({"offset": 1 << 40}, "ends too early", id="offset"),
        pytest.param({"file": "variables.other"}, "No such file", id="file"),
    ],
)
def test_other_places_are_refused(change: dict[str, Any], problem: str) -> None:
    """What does not fit the manifest, or the files, makes no engine."""
    places = find_variables(COMMITTED, MANIFEST.variables or {})
    assert places is not None
    with pytest.raises((ArtifactError, OSError, ValueError), match=problem):
        native.load(COMMITTED, MANIFEST, [places[0]._replace(**change), *places[1:]])


@needs_native
def test_trial_tells_the_places() -> None:
    """A real trial says where the native engine's variables are; for TensorFlow's engine there is nothing to say."""
    places = find_variables(COMMITTED, MANIFEST.variables or {})
    assert places is not None
    verdict = Trials("try", "--engine", "native").run(COMMITTED)
    assert verdict == Verdict("native", None, json.loads(json.dumps(places)))
    assert Trials("try", "--engine", "tensorflow").run(COMMITTED) == Verdict("tensorflow")
