import logging
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("service.engine.native._forward", reason="the native engine is not built")

from service import artifact
from service.artifact import Architecture, Manifest, Signatures, to_array
from service.batch import Floats, Sample
from service.config import EngineChoice
from service.engine import Engine, choice, native, tensorflow
from service.engine.checkpoint import SUFFIX
from service.engine.native import NativeEngine
from service.errors import ArtifactError
from service.loading import open_version
from service.training.export import Origin, export

MakeDin: TypeAlias = Callable[..., Any]

COMMITTED = Path(__file__).parents[2] / "model_artifacts" / "din" / "1"
KNOWN = np.arange(40), np.arange(40) % 7
MAPS = {"id": np.arange(512, dtype=np.int32) % 30, "tag": np.arange(64, dtype=np.int32) % 9}
TEXT = tuple(np.array([f"{name} é{i}".encode() for i in range(20)], object) for name in ("item", "tag"))


def draw(manifest: Manifest, seed: int, candidates: int) -> Sample:
    """A request of random lengths, none included; every second one has few values."""
    rng, features = np.random.default_rng(seed), (manifest.features.id, manifest.features.tag)
    most, rows = 10 if seed % 2 else 2**62, int(rng.integers(1, candidates, endpoint=True))
    lengths = [*(int(rng.integers(0, each.max_history, endpoint=True)) for each in features), rows, rows]
    pairs = zip(lengths, features * 2, strict=True)
    return Sample(*(to_array(rng.integers(-most, most, length).tolist(), each.dtype) for length, each in pairs))


def difference(engine: Engine, version: Path, manifest: Manifest, requests: int, candidates: int) -> float:
    """How far an engine is from `serving_default` at most, over random requests in batches of 50."""
    largest = 0.0
    with closing(tensorflow.load(version, manifest.model_copy(update={"signatures": Signatures()}))) as rows:
        assert rows.name == "tensorflow-rows"
        for start in range(0, requests, 50):
            samples = [draw(manifest, seed, candidates) for seed in range(start, start + 50)]
            for ours, theirs in zip(answers(engine, samples), answers(rows, samples), strict=True):
                assert np.isfinite(ours).all()
                largest = max(largest, float(abs(ours - theirs).max()))
    return largest


def answers(engine: Engine, samples: list[Sample]) -> list[Floats]:
    """Probabilities of each sample, all in one batch."""
    batch = engine.pack(samples)
    return batch.split(engine.run(batch))


def doctored(version: Path, role: str, value: float, folder: Path) -> Path:
    """A copy of a version, one number of one variable of which is another."""
    copy = folder / version.name
    shutil.copytree(version, copy)
    prefix, manifest = str(copy / "variables" / "variables"), artifact.read_manifest(copy)
    assert manifest.variables is not None
    reader = tf.train.load_checkpoint(prefix)
    arrays = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    arrays[manifest.variables[role] + SUFFIX].flat[0] = value
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=list(arrays), shape_and_slices=[""] * len(arrays), tensors=list(arrays.values())
    )
    artifact.write_manifest(copy, manifest)
    return copy


def with_keys(manifest: Manifest, **keys: str | None) -> dict[str, Any]:
    """A change of a manifest: roles by `__` for dots, with the role whose key they get, or None for none at all."""
    variables = dict(manifest.variables or {})
    for role, other in keys.items():
        variables[role.replace("__", ".")] = (manifest.variables or {})[other] if other else "nowhere"
    return {"variables": variables}


def fall_back(version: Path, manifest: Manifest) -> str:
    """Load by `auto` a version that the native engine cannot serve; returns the reason it gives."""
    with closing(choice.load(version, manifest)) as engine:
        assert engine.name == "tensorflow"
        assert engine.fallback_reason is not None
        return engine.fallback_reason


@pytest.mark.parametrize("chosen", ["auto", "native"])
def test_native_serves_what_it_computes(exported: Path, manifest: Manifest, chosen: EngineChoice) -> None:
    """A version exported here is served by the native engine, and nobody need be told why."""
    with closing(choice.load(exported, manifest, chosen)) as engine:
        assert isinstance(engine, NativeEngine)
        assert (engine.name, engine.fallback_reason, engine.compilations()) == ("native", None, 0)


def test_tensorflow_when_asked_for(exported: Path, manifest: Manifest) -> None:
    """TensorFlow serves when it was chosen, which is no fallback."""
    with closing(choice.load(exported, manifest, "tensorflow")) as engine:
        assert (engine.name, engine.fallback_reason) == ("tensorflow", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda _: {"architecture": None}, "manifest.json: architecture: not given", id="no-architecture"),
        pytest.param(lambda _: {"variables": None}, "manifest.json: variables: not given", id="no-variables"),
        pytest.param(lambda each: with_keys(each, norm__beta=None), "nowhere (norm.beta) is missing", id="missing"),
        pytest.param(lambda each: with_keys(each, table_id="table_tag"), "(table_id) has the shape", id="shape"),
    ],
)
def test_manifest_that_is_wrong(exported: Path, manifest: Manifest, change: Any, message: str) -> None:
    """A version that its manifest does not describe, or wrongly, is served by TensorFlow, and the reason is told."""
    assert message in fall_back(exported, manifest.model_copy(update=change(manifest)))


def test_infinite_weights(exported: Path, tmp_path: Path) -> None:
    """The native engine leaves a checkpoint with an infinite value alone."""
    version = doctored(exported, "table_id", np.inf, tmp_path)
    assert "(table_id) holds NaN or infinity" in fall_back(version, artifact.read_manifest(version))


@pytest.mark.parametrize("chosen", ["auto", "native", "tensorflow"])
@pytest.mark.parametrize("row", [-1, 30])
def test_map_that_leaves_its_tables(make_din: MakeDin, tmp_path: Path, row: int, chosen: EngineChoice) -> None:
    """No engine serves a checkpoint of which a map names a row that no table has."""
    exported = export(make_din(maps={"id": MAPS["id"]}, rows={"id": 30, "tag": 64}), tmp_path, KNOWN, Origin())
    version = doctored(exported, "rows_id", row, tmp_path / "doctored")
    with pytest.raises(ArtifactError, match=f"maps/id holds {row}, which is no row of tables of 30"):
        choice.load(version, artifact.read_manifest(version), chosen)


@pytest.mark.parametrize("chosen", ["auto", "native", "tensorflow"])
def test_weights_that_are_no_numbers(exported: Path, tmp_path: Path, chosen: EngineChoice) -> None:
    """No engine serves a checkpoint with NaN in it, whatever the graph would make of that."""
    version = doctored(exported, "table_id", np.nan, tmp_path)
    with pytest.raises(ArtifactError, match="holds NaN"):
        choice.load(version, artifact.read_manifest(version), chosen)


def test_native_engine_that_is_not_there(
    exported: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Installed without a compiler, `auto` is TensorFlow and logs why; `native` is an error with the same reason."""
    monkeypatch.setattr(native, "PROBLEM", "no module named _forward")
    reason = "no native engine: no module named _forward"
    with caplog.at_level(logging.WARNING):
        assert fall_back(exported, manifest) == reason
    assert caplog.messages == [f"serving with TensorFlow: {reason}"]
    with pytest.raises(ArtifactError, match=f"^{reason}$"):
        choice.load(exported, manifest, "native")


def test_attention_is_compared_too(exported: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose probabilities are right and whose attention is not is not trusted."""

    def explain(self: NativeEngine, batch: Any) -> Any:
        probability, ids, tags = right(self, batch)
        return probability, ids, tags + 1e-3

    right = NativeEngine.explain
    monkeypatch.setattr(NativeEngine, "explain", explain)
    assert "differs from TensorFlow by 0.001" in fall_back(exported, manifest)


def test_answer_that_is_no_number(exported: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that answers NaN is not trusted."""
    monkeypatch.setattr(NativeEngine, "run", lambda _, batch: np.full(sum(batch.rows), np.nan, np.float32))
    assert "differs from TensorFlow by nan" in fall_back(exported, manifest)


def test_engine_that_fails_is_a_reason(exported: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the native engine raises when it is tried, whatever it is, leaves the version to TensorFlow."""

    def fail(*_: object) -> None:
        raise MemoryError("nothing left")

    monkeypatch.setattr(native.NativeEngine, "run", fail)
    engine = choice.load(exported, manifest)
    assert engine.name == "tensorflow"
    assert engine.fallback_reason is not None
    assert engine.fallback_reason.endswith("the native engine fails: MemoryError: nothing left")
    engine.close()


def test_version_of_rows_is_compared_by_rows(exported: Path, manifest: Manifest) -> None:
    """A version with no signature but a row per candidate is served by the native engine, with attention."""
    plain = manifest.model_copy(update={"signatures": Signatures()})
    with closing(choice.load(exported, plain)) as engine:
        assert (engine.name, engine.explains) == ("native", True)


@pytest.mark.parametrize("chosen", ["auto", "native", "tensorflow"])
def test_version_that_is_none(tmp_path: Path, manifest: Manifest, chosen: EngineChoice) -> None:
    """A folder that holds no SavedModel is an error whatever was chosen."""
    with pytest.raises(ArtifactError, match="not a SavedModel that loads"):
        choice.load(tmp_path, manifest, chosen)


def test_wrong_network_is_not_auto(exported: Path, tmp_path: Path, manifest: Manifest) -> None:
    """A network that computes something else, for want of a softmax, gives way to TensorFlow."""
    copy = tmp_path / exported.name
    shutil.copytree(exported, copy)
    artifact.write_manifest(copy, manifest.model_copy(update={"architecture": Architecture(softmax=False)}))
    served = open_version(copy, choice.load)
    served.engine.close()
    assert served.engine.name == "tensorflow"
    assert "differs from TensorFlow by" in (served.engine.fallback_reason or "")


def test_wrong_network_is_not_native(exported: Path, manifest: Manifest) -> None:
    """A network with two variables exchanged is an error when it was to be served natively."""
    exchanged = with_keys(manifest, norm__gamma="norm.variance", norm__variance="norm.gamma")
    with pytest.raises(ArtifactError, match="differs from TensorFlow by"):
        choice.load(exported, manifest.model_copy(update=exchanged), "native")


@pytest.mark.parametrize(
    ("options", "known"),
    [
        pytest.param(
            {"dtype": "string", "attention_activation": "prelu", "head_activation": "dice", "shared_tables": True},
            TEXT,
            id="text-prelu-dice-shared-tables",
        ),
        pytest.param(
            {"attention_activation": "sigmoid", "attention_hidden": (5,), "softmax": False, "head_activation": "prelu"},
            KNOWN,
            id="sigmoid-prelu-no-softmax",
        ),
        pytest.param({"pooling": "mean", "head_hidden": ()}, KNOWN, id="mean-pooling-no-head"),
        pytest.param({"product": True, "item_bias": True, "dimension": 5}, KNOWN, id="product-item-bias"),
        pytest.param({"maps": MAPS, "rows": {"id": 30, "tag": 9}, "item_bias": True}, KNOWN, id="maps"),
        pytest.param(
            {"maps": {"id": MAPS["id"]}, "rows": {"id": 30, "tag": 64}, "dtype": "string", "shared_tables": True},
            TEXT,
            id="text-map-of-ids-shared-tables",
        ),
    ],
)
def test_every_architecture_is_served(
    make_din: MakeDin, tmp_path: Path, options: dict[str, Any], known: tuple[Any, Any]
) -> None:
    """Every architecture is served natively, and 200 random requests are answered as by `serving_default`."""
    version = export(make_din(max_history=20, **options), tmp_path, known, Origin())
    manifest = artifact.read_manifest(version)
    with closing(choice.load(version, manifest, "native")) as engine:
        assert difference(engine, version, manifest, 200, 40) <= artifact.TOLERANCE


def test_committed_version_over_many_requests() -> None:
    """Over 10,000 random requests the native engine differs from `serving_default` by 1e-5 at most."""
    manifest = artifact.read_manifest(COMMITTED)
    with closing(choice.load(COMMITTED, manifest, "native")) as engine:
        assert difference(engine, COMMITTED, manifest, 10_000, 10) <= 1e-5
