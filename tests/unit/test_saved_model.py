import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from service import artifact
from service.artifact import BlockSignature, Manifest, RowSignature, Signatures
from service.batch import Sample
from service.engine import tensorflow
from service.errors import ArtifactError
from service.loading import open_version

FOREIGN = RowSignature(
    name="rank",
    output="clicks",
    seq_id="past",
    seq_tag="past_kind",
    seq_id_length="past_count",
    seq_tag_length="past_kind_count",
    target_id="item",
    target_tag="kind",
)


class Foreign(tf.Module):  # type: ignore[misc]  # tf.Module is Any to mypy
    """A model made elsewhere: how many of the past equal the item, in other words for everything."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(0.5)

    def rank(self, **given: Any) -> dict[str, Any]:
        """Rows in, `clicks` out."""
        same = self.count(given["past"], given["past_count"], given["item"])
        alike = self.count(given["past_kind"], given["past_kind_count"], given["kind"])
        return {"clicks": tf.sigmoid(self.weight * same - self.weight * alike)}

    def count(self, past: Any, count: Any, item: Any) -> Any:
        """How often each item (N,) is among the first `count` (N,) of its past (N, T)."""
        real = tf.sequence_mask(count, tf.shape(past)[1])
        return tf.reduce_sum(tf.cast(real & (past == item[:, None]), tf.float32), 1)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of a model made elsewhere, without manifest."""
    model, folder = Foreign(), tmp_path_factory.mktemp("foreign") / "1"
    shapes: dict[str, tuple[tuple[int | None, ...], Any]] = {
        "past": ((None, None), tf.int64),
        "past_kind": ((None, None), tf.int64),
        "past_count": ((None,), tf.int32),
        "past_kind_count": ((None,), tf.int32),
        "item": ((None,), tf.int64),
        "kind": ((None,), tf.int64),
    }
    specs = {name: tf.TensorSpec(*spec, name) for name, spec in shapes.items()}
    rank = tf.function(model.rank).get_concrete_function(**specs)
    tf.saved_model.save(model, str(folder), signatures={"rank": rank})
    return folder


@pytest.fixture(scope="module")
def foreign_manifest(manifest: Manifest) -> Manifest:
    """What someone would write for `foreign`."""
    return Manifest(
        version="1", created=manifest.created, features=manifest.features, signatures=Signatures(row=FOREIGN)
    )


def test_foreign_model_is_served(foreign: Path, foreign_manifest: Manifest) -> None:
    """A row-per-candidate model with other input names is served through the names in its manifest."""
    shutil.copytree(foreign, folder := foreign.parent.parent / "served" / "1")
    artifact.write_manifest(folder, foreign_manifest)
    engine = open_version(folder, tensorflow.load).engine
    past, kinds = np.array([5, 6, 5]), np.array([1])
    none = np.array([], np.int64)
    batch = engine.pack([Sample(past, kinds, np.array([5, 6, 7]), np.array([2, 1, 0])), Sample(none, none, past, past)])
    first, second = batch.split(engine.run(batch))
    engine.close()
    np.testing.assert_allclose(first, 1 / (1 + np.exp([-1.0, 0.0, 0.0])), atol=1e-6)
    assert second.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("signatures", "reason"),
    [
        pytest.param({"row": {"name": "other"}}, "no signature other; it has .*rank", id="signature"),
        pytest.param({"row": {**dict(FOREIGN), "target_id": "thing"}}, "rank has no input thing", id="input"),
        pytest.param({"row": {**dict(FOREIGN), "output": "sales"}}, "rank has no output sales", id="output"),
        pytest.param({"row": FOREIGN, "score": {"name": "score", "block": 8}}, "no signature score", id="score"),
    ],
)
def test_manifest_of_another_graph(
    foreign: Path, foreign_manifest: Manifest, signatures: dict[str, Any], reason: str
) -> None:
    """A manifest that names what the graph does not have is refused, with the name."""
    wrong = foreign_manifest.model_copy(update={"signatures": Signatures.model_validate(signatures)})
    with pytest.raises(ArtifactError, match=reason):
        tensorflow.load(foreign, wrong)


def test_explain_is_checked_on_loading(exported: Path, manifest: Manifest) -> None:
    """An `explain` signature that is missing is noticed on loading and not by the first who asks."""
    absent = manifest.signatures.model_copy(update={"explain": BlockSignature(name="why", block=16)})
    with pytest.raises(ArtifactError, match="no signature why"):
        tensorflow.load(exported, manifest.model_copy(update={"signatures": absent}))


@pytest.mark.parametrize(
    "name", ["saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]
)
@pytest.mark.parametrize(
    "kept", [pytest.param(0, id="emptied"), pytest.param(100, id="cut"), pytest.param(None, id="gone")]
)
def test_truncated_model_is_refused(
    exported: Path, manifest: Manifest, tmp_path: Path, name: str, kept: int | None
) -> None:
    """A SavedModel with a file cut short or missing is refused by folder, whatever TensorFlow makes of it."""
    shutil.copytree(exported, tmp_path / "1")
    file = tmp_path / "1" / name
    if kept is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"1: not a SavedModel that loads: .+"):
        tensorflow.load(tmp_path / "1", manifest)


def test_empty_folder_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    """A folder without a SavedModel is refused with the reason."""
    with pytest.raises(ArtifactError, match=r"not a SavedModel that loads: .*saved_model"):
        tensorflow.load(tmp_path, manifest)


@pytest.mark.parametrize(
    ("feature", "reason"),
    [
        pytest.param("id", "rank takes past as int64, not string", id="ids"),
        pytest.param("tag", "rank takes past_kind as int64, not string", id="tags"),
    ],
)
def test_manifest_of_other_types(foreign: Path, foreign_manifest: Manifest, feature: str, reason: str) -> None:
    """A manifest that promises text to a graph of integers is refused, not left to the first text that is no number."""
    text = foreign_manifest.features.id.model_copy(update={"dtype": "string"})
    features = foreign_manifest.features.model_copy(update={feature: text})
    with pytest.raises(ArtifactError, match=reason):
        tensorflow.load(foreign, foreign_manifest.model_copy(update={"features": features}))


def test_graph_that_fails_is_refused(foreign: Path, foreign_manifest: Manifest, tmp_path: Path) -> None:
    """A graph that loads and cannot run fails while it is warmed, not under a request."""
    shutil.copytree(foreign, tmp_path / "1")
    crossed = RowSignature.model_validate({**dict(FOREIGN), "seq_id": "item", "target_id": "past"})
    update = {"signatures": Signatures(row=crossed)}
    artifact.write_manifest(tmp_path / "1", foreign_manifest.model_copy(update=update))
    with pytest.raises(ArtifactError, match="1: does not run: "):
        open_version(tmp_path / "1", tensorflow.load)
