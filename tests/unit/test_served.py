from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

from service import artifact
from service.artifact import Architecture, Feature, Features
from service.engine import native, tensorflow
from service.loading import Loader, open_version
from service.training.blend import make_blend
from service.training.din import Din, Pair, Rows, to_bucket
from service.training.export import Origin, Serving, export
from service.training.served import to_served
from service.training.vocabulary import Vocabulary

MakeDin: TypeAlias = Callable[..., Any]

BUCKETS = {"id": 512, "tag": 64}
N, TIME = 40, 12
OPTIONS = [
    pytest.param({}, id="default"),
    pytest.param({"layer_norm": True, "dropout": 0.3}, id="normalised-and-dropped"),
    pytest.param({"input_norm": False, "layer_norm": True, "product": True}, id="normalised-layers-only"),
    pytest.param({"layer_norm": True, "head_activation": "dice", "shared_tables": True}, id="dice"),
    pytest.param({"layer_norm": True, "head_activation": "prelu", "softmax": False}, id="prelu"),
    pytest.param({"item_bias": True, "product": True, "attention_activation": "dice"}, id="item-bias-and-product"),
    pytest.param({"pooling": "mean", "head_hidden": (), "item_bias": True, "layer_norm": True}, id="mean-no-layers"),
]


def make_vocabularies(seed: int = 1) -> dict[str, Vocabulary]:
    """A third of the buckets has rows."""
    made = {}
    for name, buckets in BUCKETS.items():
        known = np.random.default_rng(seed).random(buckets) < 1 / 3
        row = np.where(known, np.cumsum(known), 0).astype(np.int32)
        made[name] = Vocabulary(row, np.ones(row.max() + 1, np.int64), np.ones(row.max() + 1, np.int64))
    return made


def make_trained(make_din: MakeDin, vocabularies: dict[str, Vocabulary], **options: Any) -> Any:
    """A network as training leaves it."""
    return make_din(rows={name: each.embeddings for name, each in vocabularies.items()}, **options)


def draw_rows(seed: int = 2) -> Rows:
    """Buckets, met and not."""
    rng = np.random.default_rng(seed)
    return Rows(
        rng.integers(0, 512, (N, TIME)),
        rng.integers(0, 64, (N, TIME)),
        rng.integers(0, TIME + 1, N).astype(np.int32),
        rng.integers(0, TIME + 1, N).astype(np.int32),
        rng.integers(0, 512, N),
        rng.integers(0, 64, N),
    )


def to_rows(rows: Rows, vocabularies: dict[str, Vocabulary]) -> Rows:
    """The rows of the tables that those buckets have."""
    ids, tags = vocabularies["id"].row, vocabularies["tag"].row
    return rows._replace(
        seq_id=ids[rows.seq_id],
        seq_tag=tags[rows.seq_tag],
        target_id=ids[rows.target_id],
        target_tag=tags[rows.target_tag],
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("scale", "shift"), [pytest.param(1, 0, id="plain"), pytest.param(0.7, -1.3, id="calibrated")])
def test_serving_form_is_the_same_function(
    make_din: MakeDin, options: dict[str, Any], scale: float, shift: float
) -> None:
    """Log-odds by bucket are those by row, calibrated, within 1e-5; nothing is left that only training needs."""
    vocabularies, rows = make_vocabularies(), draw_rows()
    din = make_trained(make_din, vocabularies, **options)
    before = [each.numpy() for each in din.variables]
    served = to_served(din, vocabularies, scale, shift)
    expected = scale * din.logits(to_rows(rows, vocabularies)).numpy() + shift
    np.testing.assert_allclose(served.logits(rows), expected, atol=1e-5)
    np.testing.assert_array_equal(served.logits(rows, training=False), served.logits(rows))
    for name, each in vocabularies.items():
        assert served.tables[name].shape[0] == served.target_tables[name].shape[0] == each.embeddings
        np.testing.assert_array_equal(served.maps[name], each.row)
    assert all(layer.norm is None for layer in served.head.layers)
    assert served.head.dropout == 0
    assert served.architecture == din.architecture
    assert all((each.numpy() == was).all() for each, was in zip(din.variables, before, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"item_bias": True, "product": True}, id="separate-tables"),
        pytest.param({"item_bias": True, "shared_tables": True, "input_norm": False}, id="shared-tables"),
        pytest.param({"pooling": "mean"}, id="mean"),
    ],
)
def test_blended_embeddings_are_served_as_sums(make_din: MakeDin, options: dict[str, Any]) -> None:
    """What ids share in training is in each row of the served tables, of which there is one for each bucket met."""
    vocabularies, rows = make_vocabularies(), draw_rows()
    count, rng = vocabularies["id"].row.max() + 1, np.random.default_rng(4)
    own = rng.integers(0, 9, count).astype(np.int32)
    blend = make_blend(own, np.append(np.nan, rng.random(count - 1)), 5)
    vocabularies["id"] = Vocabulary(vocabularies["id"].row, np.ones(9, np.int64), np.ones(9, np.int64), blend)
    din = make_trained(make_din, vocabularies, blends={"id": blend}, **options)
    served = to_served(din, vocabularies, 0.7, -1.3)
    expected = 0.7 * din.logits(to_rows(rows, vocabularies)).numpy() - 1.3
    np.testing.assert_allclose(served.logits(rows), expected, atol=1e-5)
    assert not served.blends
    assert served.tables["id"].shape[0] == count
    assert np.ptp(expected) > 0.5


def test_unmet_bucket_has_the_default_row(make_din: MakeDin) -> None:
    """Every bucket that training never met has the embedding and the bias of row 0."""
    vocabularies = make_vocabularies()
    din = make_trained(make_din, vocabularies, item_bias=True)
    served = to_served(din, vocabularies)
    unmet = served.maps["id"].numpy()[vocabularies["id"].row == 0]
    assert len(unmet) > 0
    for table, trained in ((served.tables, din.tables), (served.target_tables, din.target_tables)):
        assert (table["id"].numpy()[unmet] == trained["id"].numpy()[0]).all()
    assert (served.bias_id.numpy()[unmet] == din.bias_id.numpy()[0]).all()


def test_any_number_of_pairs() -> None:
    """A network of other pairs than those on the wire has a serving form too."""
    names = ("item", "tag", "shop")
    features = {name: Feature(dtype="int64", buckets=20, dimension=3, max_history=9) for name in names}
    row = np.arange(20, dtype=np.int32) % 4
    vocabularies = {name: Vocabulary(row, np.ones(4, np.int64), np.ones(4, np.int64)) for name in names}
    rows = {name: each.embeddings for name, each in vocabularies.items()}
    din = Din(features, Architecture(item_bias=True, product=True), 1, rows, layer_norm=True)
    din.bias_id.assign([1.0, 2.0, 3.0, 4.0])
    rng = np.random.default_rng(1)
    pairs = {
        name: Pair(rng.integers(0, 20, (N, TIME)), rng.integers(0, TIME + 1, N), rng.integers(0, 20, N))
        for name in names
    }
    compact = {name: Pair(row[each.sequence], each.length, row[each.target]) for name, each in pairs.items()}
    np.testing.assert_allclose(to_served(din, vocabularies).logits(pairs), din.logits(compact), atol=1e-5)


def test_tables_of_buckets_are_copied(make_din: MakeDin) -> None:
    """Without vocabularies tables have a row for each bucket already, and there is no map."""
    din, rows = make_din(layer_norm=True), draw_rows()
    served = to_served(din)
    np.testing.assert_allclose(served.logits(rows), din.logits(rows), atol=1e-5)
    assert not served.maps


def test_a_million_buckets_take_a_map(make_din: MakeDin, tmp_path: Path) -> None:
    """With 2^20 buckets a version of a hundred items takes 4 MB, and each item that has its own bucket its own row."""
    kind = {"dtype": "int64", "dimension": 32, "max_history": 9}
    features = Features(
        id=Feature.model_validate({"buckets": 1 << 20, **kind}), tag=Feature.model_validate({"buckets": 64, **kind})
    )
    items, tag = np.arange(100), make_vocabularies()["tag"]
    bucket = to_bucket(tf.constant(items), 1 << 20).numpy()
    row = np.zeros(1 << 20, np.int32)
    row[bucket] = 1 + items
    id_ = Vocabulary(row, np.ones(101, np.int64), np.ones(101, np.int64))
    vocabularies = {"id": id_, "tag": tag}
    rows = {name: each.embeddings for name, each in vocabularies.items()}
    served = to_served(Din(features, Architecture(item_bias=True), 1, rows), vocabularies)
    version = export(served, tmp_path, (items, items % 7), Origin())
    assert sum(path.stat().st_size for path in version.rglob("*") if path.is_file()) < 6_000_000
    assert sorted(served.row("id", served.bucket("id", tf.constant(items))).numpy()) == list(range(1, 101))
    loaders: list[Loader] = [tensorflow.load] if native.PROBLEM else [tensorflow.load, native.load]
    for load in loaders:
        open_version(version, load).engine.close()


@pytest.mark.parametrize("options", OPTIONS[1:5])
def test_exported_and_loaded_it_answers_the_same(make_din: MakeDin, tmp_path: Path, options: dict[str, Any]) -> None:
    """A version of the serving form, loaded from disk, answers its golden requests as the network in memory does."""
    vocabularies = make_vocabularies()
    served = to_served(make_trained(make_din, vocabularies, **options), vocabularies, 0.8, 0.2)
    version = export(served, tmp_path, (np.arange(40), np.arange(40) % 7), Origin())
    manifest = artifact.read_manifest(version)
    assert manifest.architecture == served.architecture
    loaded, serving = tf.saved_model.load(str(version)), Serving(served)
    for request in artifact.read_golden(version).requests[:5]:
        sample = artifact.golden_sample(manifest, request)
        answer = loaded.signatures["serving_default"](
            seq_id=tf.repeat(sample.seq_id[None], sample.rows, 0),
            seq_tag=tf.repeat(sample.seq_tag[None], sample.rows, 0),
            seq_id_length=tf.fill([sample.rows], len(sample.seq_id)),
            seq_tag_length=tf.fill([sample.rows], len(sample.seq_tag)),
            target_id=tf.constant(sample.target_id),
            target_tag=tf.constant(sample.target_tag),
        )["probability"]
        np.testing.assert_allclose(answer, serving.predict(sample), atol=1e-6)
        np.testing.assert_allclose(answer, request.probabilities, atol=1e-6)
