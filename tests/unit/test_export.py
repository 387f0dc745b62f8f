import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

from service import artifact
from service.batch import Ids, Sample
from service.drift import make_scores
from service.errors import ArtifactError
from service.loading import open_version
from service.seen import SEEN_IDS, read_seen
from service.training import export as exporting
from service.training.export import Origin, export
from service.training.folded import BLOCK

MakeDin: TypeAlias = Callable[..., Any]

KNOWN = np.arange(40), np.arange(40) % 7
MAPS = {"id": np.arange(512, dtype=np.int32) % 30, "tag": np.arange(64, dtype=np.int32) % 9}
GOLDEN_LENGTHS = {  # ids, tags, candidates of each golden request
    "empty history": (0, 0, 10),
    "one item of history": (1, 1, 10),
    "longest history": (50, 50, 20),
    "longer than the maximum": (80, 80, 20),
    "more tags than ids": (5, 13, 10),
    "more ids than tags": (13, 5, 10),
    "ids without tags": (10, 0, 10),
    "tags without ids": (0, 10, 10),
    "one candidate": (20, 20, 1),
    "500 candidates": (20, 20, 500),
    "a candidate more than a block": (20, 20, BLOCK + 1),
}
STOCK_CLIENT = """
import json, sys
sys.modules["service"] = None  # any import of it fails
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
answers = {}
for request in json.load(open(sys.argv[1] + "/golden.json"))["requests"]:
    history, candidates = request["history"], request["candidates"]
    count = len(candidates["ids"])
    ids, tags = history["ids"][-50:], history["tags"][-50:]
    answer = model.signatures["serving_default"](
        seq_id=tf.tile(tf.constant([ids], tf.int64), [count, 1]),
        seq_tag=tf.tile(tf.constant([tags], tf.int64), [count, 1]),
        seq_id_length=tf.fill([count], len(ids)),
        seq_tag_length=tf.fill([count], len(tags)),
        target_id=tf.constant(candidates["ids"], tf.int64),
        target_tag=tf.constant(candidates["tags"], tf.int64),
    )
    answers[request["name"]] = answer["probability"].numpy().tolist()
print(json.dumps(answers))
"""


class FakeServing:
    """Stands for the graph where only files matter: it writes one file and answers a half."""

    failure: OSError | None = None

    def __init__(self, din: Any) -> None:
        self.din = din

    def save(self, folder: Path) -> None:
        """Write a little, and then fail if told to."""
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"a graph")
        if self.failure:
            raise self.failure

    def predict(self, sample: Sample) -> list[float]:
        """A half for each candidate."""
        return [0.5] * sample.rows


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeServing]:
    """The exporter with a fake graph."""
    monkeypatch.setattr(exporting, "Serving", FakeServing)
    monkeypatch.setattr(FakeServing, "failure", None)
    return FakeServing


@pytest.fixture(scope="module")
def model(exported: Path) -> Any:
    """The exported version as TensorFlow loads it."""
    return tf.saved_model.load(str(exported))


def as_rows(sample: Sample, count: int) -> dict[str, Any]:
    """The inputs of `serving_default` for one sample of `count` candidates."""
    return {
        "seq_id": tf.constant(np.tile(sample.seq_id, (count, 1))),
        "seq_tag": tf.constant(np.tile(sample.seq_tag, (count, 1))),
        "seq_id_length": tf.fill([count], len(sample.seq_id)),
        "seq_tag_length": tf.fill([count], len(sample.seq_tag)),
        "target_id": tf.constant(sample.target_id),
        "target_tag": tf.constant(sample.target_tag),
    }


def as_blocks(sample: Sample, count: int) -> dict[str, Any]:
    """The inputs of `score` for one sample of `count` candidates, the last block filled up with zeros."""

    def blocks(target: Ids) -> Any:
        return tf.constant(np.pad(target, (0, -count % BLOCK)).reshape(-1, BLOCK))

    one = {name: value[:1] for name, value in as_rows(sample, count).items()}
    targets = {"target_id": blocks(sample.target_id), "target_tag": blocks(sample.target_tag)}
    return {**one, **targets, "block_request": tf.zeros(-(-count // BLOCK), tf.int32)}


def signature_text(signature: Any) -> dict[str, str]:
    """Inputs and outputs of a signature as `name: dtype shape`."""
    specs = {**signature.structured_input_signature[1], **signature.structured_outputs}
    return {name: f"{spec.dtype.name} {spec.shape}" for name, spec in specs.items()}


def test_serving_default_signature(model: Any) -> None:
    """`serving_default` takes a row per candidate."""
    assert signature_text(model.signatures["serving_default"]) == {
        "seq_id": "int64 (None, None)",
        "seq_tag": "int64 (None, None)",
        "seq_id_length": "int32 (None,)",
        "seq_tag_length": "int32 (None,)",
        "target_id": "int64 (None,)",
        "target_tag": "int64 (None,)",
        "probability": "float32 (None,)",
    }


@pytest.mark.parametrize(
    ("name", "more"),
    [
        pytest.param("score", {}, id="score"),
        pytest.param("explain", dict.fromkeys(("attention_id", "attention_tag"), "None)"), id="explain"),
    ],
)
def test_block_signatures(model: Any, name: str, more: dict[str, str]) -> None:
    """`score` and `explain` take each history once and candidates in blocks."""
    found = signature_text(model.signatures[name])
    assert {each: found.pop(each)[-5:] for each in more} == more
    assert found == {
        "seq_id": "int64 (None, None)",
        "seq_tag": "int64 (None, None)",
        "seq_id_length": "int32 (None,)",
        "seq_tag_length": "int32 (None,)",
        "target_id": f"int64 (None, {BLOCK})",
        "target_tag": f"int64 (None, {BLOCK})",
        "block_request": "int32 (None,)",
        "probability": found["probability"],
    }


def test_signatures_agree_on_golden_requests(exported: Path, model: Any) -> None:
    """`serving_default`, `score`, `explain` and the golden answers are one within 1e-6, on every golden request."""
    manifest = artifact.read_manifest(exported)
    for request in artifact.read_golden(exported).requests:
        sample = artifact.golden_sample(manifest, request)
        rows = model.signatures["serving_default"](**as_rows(sample, sample.rows))["probability"]
        np.testing.assert_allclose(rows, request.probabilities, atol=1e-6, rtol=0, err_msg=request.name)
        for name in ("score", "explain"):
            blocks = model.signatures[name](**as_blocks(sample, sample.rows))["probability"].numpy()
            np.testing.assert_allclose(blocks.ravel()[: sample.rows], rows, atol=1e-6, rtol=0, err_msg=request.name)


def test_golden_requests_cover_the_edges(exported: Path) -> None:
    """At least 12 golden requests: what a server gets wrong first, and nothing but probabilities for answers."""
    requests = {each.name: each for each in artifact.read_golden(exported).requests}
    lengths = {
        name: (len(each.history.ids), len(each.history.tags), len(each.candidates.ids))
        for name, each in requests.items()
    }
    assert len(requests) >= 12
    assert lengths.items() >= GOLDEN_LENGTHS.items()
    odd = requests["negative and 19-digit ids"]
    for column in (odd.history.ids, odd.candidates.ids):
        assert {-1, 0, 2**63 - 1, -(2**63)} <= set(column)
    assert all(0 < one < 1 for each in requests.values() for one in each.probabilities)


def test_manifest_says_what_was_exported(exported: Path, din: Any) -> None:
    """The manifest carries features, architecture, where the version comes from, and checksums that hold."""
    manifest = artifact.read_manifest(exported)
    artifact.check_files(exported, manifest)
    assert (manifest.version, manifest.features.id, manifest.architecture) == ("1", din.features.id, din.architecture)
    assert manifest.features.tag == din.features.tag.model_copy(update={"default": 0})
    assert manifest.training is not None
    assert (manifest.training.seed, manifest.metrics["din"].auc) == (7, 0.75)
    assert {"saved_model.pb", "golden.json"} <= manifest.files.keys()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"shared_tables": True}, id="shared-tables"),
        pytest.param({"pooling": "mean"}, id="mean-pooling"),
        pytest.param({"attention_activation": "dice", "head_activation": "prelu"}, id="dice-and-prelu"),
        pytest.param({"attention_hidden": (3, 4, 5), "head_hidden": ()}, id="other-depths"),
        pytest.param({"maps": MAPS, "rows": {"id": 30, "tag": 9}, "item_bias": True}, id="maps"),
        pytest.param({"maps": {"tag": MAPS["tag"]}, "rows": {"id": 512, "tag": 9}}, id="map-of-tags"),
    ],
)
def test_variables_are_recorded(make_din: MakeDin, tmp_path: Path, options: dict[str, Any]) -> None:
    """The keys that a manifest records are those of the checkpoint, every one, whatever the architecture."""
    din = make_din(**options)
    exporting.Serving(din).save(tmp_path)
    stored = {name for name, _ in tf.train.list_variables(str(tmp_path / "variables" / "variables"))}
    keys = exporting.variable_keys(din.architecture, din.maps)
    suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
    assert {f"{key}{suffix}" for key in keys.values()} == stored - {"_CHECKPOINTABLE_OBJECT_GRAPH"}


@pytest.mark.parametrize(
    ("attention", "head"),
    [
        pytest.param("sigmoid", "prelu", id="sigmoid-and-prelu"),
        pytest.param("prelu", "dice", id="prelu-and-dice"),
        pytest.param("dice", "sigmoid", id="dice-and-sigmoid"),
    ],
)
def test_activations_survive_the_disk(make_din: MakeDin, tmp_path: Path, attention: str, head: str) -> None:
    """A network of other activations and depths answers from the disk as before, through every signature."""
    options = {"attention_activation": attention, "head_activation": head}
    din = make_din(max_history=20, attention_hidden=(7, 6, 5), head_hidden=(9,), **options)
    serving, rng = exporting.Serving(din), np.random.default_rng(3)
    serving.save(tmp_path)
    loaded = tf.saved_model.load(str(tmp_path))
    for history, tags in ((0, 0), (3, 7), (20, 20)):
        sample = Sample(*(rng.integers(0, 10**6, count) for count in (history, tags, 40, 40)))
        expected = serving.predict(sample)
        rows = loaded.signatures["serving_default"](**as_rows(sample, 40))["probability"]
        np.testing.assert_allclose(rows, expected, atol=1e-6, rtol=0)
        for name in ("score", "explain"):
            blocks = loaded.signatures[name](**as_blocks(sample, 40))["probability"].numpy()
            np.testing.assert_allclose(blocks.ravel()[:40], expected, atol=1e-6, rtol=0)


def test_manifest_names_maps(fake: type[FakeServing], make_din: MakeDin, tmp_path: Path) -> None:
    """A manifest has the roles of the maps that there are, and none where a bucket is a row."""
    mapped = make_din(maps={"id": MAPS["id"]}, rows={"id": 30, "tag": 64})
    roles = []
    for din in (mapped, make_din()):
        variables = artifact.read_manifest(export(din, tmp_path, KNOWN, Origin())).variables or {}
        roles.append({role: key for role, key in variables.items() if role.startswith("rows_")})
    assert roles == [{"rows_id": "din/maps/id"}, {}]


def test_altered_file_is_noticed(fake: type[FakeServing], din: Any, tmp_path: Path) -> None:
    """A version whose graph changed after the export does not pass its checksums."""
    folder = export(din, tmp_path, KNOWN, Origin())
    (folder / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(ArtifactError, match=r"saved_model\.pb: sha256"):
        artifact.check_files(folder, artifact.read_manifest(folder))


def test_what_training_met_is_exported(fake: type[FakeServing], din: Any, tmp_path: Path) -> None:
    """The most frequent tag, the scores of the test rows and the ids that were met travel with the version."""
    scores = make_scores(np.array([0.1, 0.9], np.float32), np.array([0, 1], np.float32))
    known = np.arange(5), np.array([7, 3, 7, 3, 5])  # of two as frequent, the lower
    folder = export(din, tmp_path, known, Origin(scores=scores, met=np.arange(100)))
    manifest = artifact.read_manifest(folder)
    artifact.check_files(folder, manifest)
    assert (manifest.features.tag.default, manifest.features.id.default) == (3, None)
    assert manifest.scores == scores
    seen = read_seen(folder, manifest.seen)
    assert seen is not None
    assert seen.contains(np.arange(100)).all()


def test_version_without_samples_has_no_scores(fake: type[FakeServing], din: Any, tmp_path: Path) -> None:
    """A network exported without the rows it was tested on has neither scores nor a filter."""
    folder = export(din, tmp_path, KNOWN, Origin())
    manifest = artifact.read_manifest(folder)
    assert (manifest.scores, manifest.seen, (folder / SEEN_IDS).exists()) == (None, None, False)


def test_version_is_the_highest_and_one(fake: type[FakeServing], din: Any, tmp_path: Path) -> None:
    """The next version follows the highest number, whatever else lies in the model folder."""
    assert export(din, tmp_path / "new" / "din", KNOWN, Origin()).name == "1"
    for name in ("2", "10", "notes", "011", "-3"):
        (tmp_path / name).mkdir()
    assert export(din, tmp_path, KNOWN, Origin()).name == "11"


def test_version_is_readable_by_others(fake: type[FakeServing], din: Any, tmp_path: Path) -> None:
    """A server under another user can read what a private temporary folder became."""
    folder = export(din, tmp_path, KNOWN, Origin())
    assert oct(folder.stat().st_mode)[-3:] == "755"
    assert oct((folder / "golden.json").stat().st_mode)[-3:] == "644"


@pytest.mark.parametrize("where", [pytest.param("graph", id="graph"), pytest.param("manifest", id="manifest")])
def test_failed_export_leaves_nothing(
    fake: type[FakeServing], din: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """An export that fails halfway leaves neither a version nor a scratch folder, and the older version untouched."""

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    before = export(din, tmp_path, KNOWN, Origin())
    if where == "graph":
        monkeypatch.setattr(fake, "failure", OSError(28, "No space left on device"))
    else:
        monkeypatch.setattr(artifact, "write_manifest", fail)
    with pytest.raises(OSError, match="No space left"):
        export(din, tmp_path, KNOWN, Origin())
    assert list(tmp_path.iterdir()) == [before]
    artifact.check_files(before, artifact.read_manifest(before))


@pytest.mark.parametrize("mapped", [pytest.param(False, id="buckets"), pytest.param(True, id="maps")])
def test_stock_client_is_answered(exported: Path, make_din: MakeDin, tmp_path: Path, mapped: bool) -> None:
    """A process with TensorFlow and none of our code gets the golden answers from `serving_default`."""
    if mapped:
        exported = export(make_din(maps=MAPS, rows={"id": 30, "tag": 9}), tmp_path, KNOWN, Origin())
    done = subprocess.run(
        [sys.executable, "-c", STOCK_CLIENT, str(exported)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    for request in artifact.read_golden(exported).requests:
        assert answers[request.name] == pytest.approx(request.probabilities, abs=1e-6)


def test_string_ids_are_exported(make_din: MakeDin, tmp_path: Path) -> None:
    """A network of text ids becomes a version that answers its golden requests, empty history and all."""
    from service.engine import tensorflow

    text = tuple(np.array([f"{name}-é{i}".encode() for i in range(20)], object) for name in ("item", "tag"))
    folder = export(make_din(dtype="string", max_history=8), tmp_path, (text[0], text[1]), Origin(met=text[0]))
    served = open_version(folder, tensorflow.load)
    served.engine.close()
    assert served.manifest.features.id.dtype == "string"
    assert served.manifest.features.tag.default == "tag-é0"
    assert served.seen is not None
    assert served.seen.contains(text[0]).all()
    assert "item-é3" in {one for each in artifact.read_golden(folder).requests for one in each.candidates.ids}
