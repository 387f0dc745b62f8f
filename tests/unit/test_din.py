from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.artifact import Architecture, Feature
from service.training import din as network
from service.training.din import AttentionUnit, Din, Pair, Rows, mean_pool, to_bucket

MakeDin: TypeAlias = Callable[..., Any]
Doubles: TypeAlias = NDArray[np.float64]

ROWS, TIME, DIMENSION = 6, 9, 4
INT64 = st.integers(-(2**63), 2**63 - 1)
SOFTMAX = pytest.mark.parametrize("softmax", [pytest.param(True, id="softmax"), pytest.param(False, id="plain-scores")])


def as_doubles(variable: Any) -> Doubles:
    """A variable's values in the precision of the references below."""
    return np.asarray(variable.numpy(), np.float64)


def reference_activation(name: str, layer: Any, x: Doubles) -> Doubles:
    """What stands between layers, by its formula."""
    if name in ("relu", "sigmoid"):
        return np.maximum(x, 0) if name == "relu" else 1 / (1 + np.exp(-x))
    alpha, p = as_doubles(layer.activation.alpha), np.where(x > 0, 1.0, 0.0)
    if name == "dice":
        mean, variance = as_doubles(layer.activation.mean), as_doubles(layer.activation.variance)
        p = 1 / (1 + np.exp(-(x - mean) / np.sqrt(variance + 1e-8)))
    return np.asarray(p * x + (1 - p) * alpha * x)


def reference_mlp(mlp: Any, x: Doubles, activation: str = "relu") -> Doubles:
    """f(... f(x W1 + b1) ...) W + b, the last layer of one unit: (..., inputs) to (...)."""
    for layer in mlp.layers[:-1]:
        x = x @ as_doubles(layer.kernel) + as_doubles(layer.bias)
        x = reference_activation(activation, layer, x if layer.norm is None else reference_norm(layer.norm, x))
    last = mlp.layers[-1]
    return np.asarray((x @ as_doubles(last.kernel) + as_doubles(last.bias))[..., 0])


def reference_norm(norm: Any, x: Doubles) -> Doubles:
    """Batch normalisation by the averages kept in training."""
    x = (x - as_doubles(norm.mean)) / np.sqrt(as_doubles(norm.variance) + 1e-3)
    return np.asarray(x * as_doubles(norm.gamma) + as_doubles(norm.beta))


def reference_attention(
    unit: Any, q: Doubles, k: Doubles, length: int, *, softmax: bool, activation: str = "relu"
) -> tuple[Doubles, Doubles]:
    """Formula 3 of the paper for one target q (D,) and keys k (T, D), entry by entry: weights (T,), sum (D,)."""
    weights = np.zeros(len(k))
    for t in range(length):
        weights[t] = reference_mlp(unit.mlp, np.concatenate([q, k[t], q - k[t], q * k[t]]), activation)
    if softmax and length:
        e = np.exp(weights[:length])
        weights[:length] = e / e.sum()
    return weights, sum((weights[t] * k[t] for t in range(length)), np.zeros(len(q)))


def reference_network(din: Any, row: dict[str, tuple[Any, Any]]) -> float:
    """Log-odds of one row: of each pair, in order, the history and the target."""
    parts = []
    for name, (sequence, target) in row.items():
        q, k = as_doubles(din.target_tables[name])[target], as_doubles(din.tables[name])[sequence]
        if din.architecture.pooling == "mean":
            pooled = k.mean(0) if len(k) else np.zeros(len(q))
        else:
            options = {"softmax": din.architecture.softmax, "activation": din.architecture.attention_activation}
            pooled = reference_attention(din.units[name], q, k, len(k), **options)[1]
        parts += [pooled, q, pooled * q] if din.architecture.product else [pooled, q]
    x = reference_norm(din.norm, np.concatenate(parts))
    logit = float(reference_mlp(din.head, x, din.architecture.head_activation))
    first = next(iter(row.values()))
    return logit + (float(din.bias_id[first[1]]) if din.architecture.item_bias else 0)


def cut_row(pairs: dict[str, Pair], n: int) -> dict[str, tuple[Any, Any]]:
    """One row as the reference takes it, without padding."""
    return {name: (pair.sequence[n, : pair.length[n]], pair.target[n]) for name, pair in pairs.items()}


def make_unit(*, softmax: bool = True) -> AttentionUnit:
    """An attention unit with biases."""
    unit = AttentionUnit(DIMENSION, (5, 3), tf.random.Generator.from_seed(3, alg="philox"), "unit", softmax=softmax)
    for layer in unit.mlp.layers:
        layer.bias.assign(np.random.default_rng(4).normal(0, 0.3, layer.bias.shape))
    return unit


def draw_attention(seed: int = 5) -> tuple[Any, Any, Any]:
    """Queries (N, D), keys (N, T, D) and lengths (N,) from none to all of T."""
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(ROWS, DIMENSION)), rng.normal(size=(ROWS, TIME, DIMENSION))
    return np.float32(q), np.float32(k), np.array([0, 1, 2, 5, TIME - 1, TIME], np.int32)


@pytest.mark.parametrize(
    ("values", "buckets", "expected"),
    [
        pytest.param([1919, 2020, 2121, 3232, 1818], 12, [6, 9, 0, 4, 9], id="seed-notebook"),
        pytest.param([0, 1, -1, 10, -10], 1000, [735, 849, 430, 862, 69], id="small-and-negative"),
        pytest.param(
            [2**63 - 1, -(2**63), 10**18, -(10**18)], 1 << 16, [37295, 14304, 63303, 53719], id="nineteen-digits"
        ),
        pytest.param(["", "abc", "Émilie", "a longer name, with spaces"], 256, [79, 105, 55, 202], id="text"),
    ],
)
def test_hashing_vectors(values: list[Any], buckets: int, expected: list[int]) -> None:
    """A value falls into the bucket that FarmHash Fingerprint64 of its text gives (pyfarmhash says the same)."""
    dtype = tf.string if isinstance(values[0], str) else tf.int64
    assert to_bucket(tf.constant(values, dtype), buckets).numpy().tolist() == expected


@given(INT64)
def test_integer_hashes_as_its_text(value: int) -> None:
    """An integer and its decimal text fall into one bucket, so a model may change its id type."""
    bucket = to_bucket(tf.constant([value], tf.int64), 1 << 16)
    assert bucket.numpy() == to_bucket(tf.constant([str(value)]), 1 << 16).numpy()


@SOFTMAX
def test_attention_is_the_formula(softmax: bool) -> None:
    """Weights and pooled histories are those of the paper's formula, computed entry by entry in double precision."""
    unit, (q, k, length) = make_unit(softmax=softmax), draw_attention()
    weights, pooled = unit.weights(q, k, length).numpy(), unit(q, k, length).numpy()
    for n in range(ROWS):
        expected = reference_attention(unit, q[n].astype(float), k[n].astype(float), length[n], softmax=softmax)
        np.testing.assert_allclose(weights[n], expected[0], atol=1e-6, rtol=0)
        np.testing.assert_allclose(pooled[n], expected[1], atol=1e-6, rtol=0)


@SOFTMAX
def test_attention_ignores_padding(softmax: bool) -> None:
    """What stands behind a history's length changes neither its weights nor its sum, however large."""
    unit, (q, k, length) = make_unit(softmax=softmax), draw_attention()
    padded = np.where(np.arange(TIME)[:, None] < length[:, None, None], k, np.float32(1e6))
    np.testing.assert_array_equal(unit.weights(q, padded, length), unit.weights(q, k, length))
    np.testing.assert_allclose(unit(q, padded, length), unit(q, k, length), atol=1e-6, rtol=0)


@SOFTMAX
@pytest.mark.parametrize("time", [pytest.param(0, id="no-columns"), pytest.param(3, id="padding-only")])
def test_empty_history_has_no_interest(softmax: bool, time: int) -> None:
    """An empty history is a zero vector, never NaN."""
    unit, (q, k, _) = make_unit(softmax=softmax), draw_attention()
    assert unit(q, k[:, :time], np.zeros(ROWS, np.int32)).numpy().tolist() == np.zeros((ROWS, DIMENSION)).tolist()


def test_softmax_survives_large_scores() -> None:
    """Scores beyond what exp can hold still give weights that sum to 1."""
    score = tf.constant([[1e4, 1e4, -1e4, 0.0]])
    weights = network.normalise(score, tf.constant([[True, True, True, False]]), softmax=True)
    assert weights.numpy().tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_mean_pooling_by_hand() -> None:
    """Mean pooling divides by the history's own length, and an empty history is zero."""
    k = tf.constant([[[1.0, 2.0], [3.0, 6.0], [9.0, 9.0]]] * 3)
    assert mean_pool(k, tf.constant([2, 0, 1])).numpy().tolist() == [[2.0, 4.0], [0.0, 0.0], [1.0, 2.0]]


def draw_rows(seed: int, *, time: int = 7, tags: int = 5) -> Rows:
    """Rows of hashed values, the first without any history."""
    rng = np.random.default_rng(seed)
    return Rows(
        rng.integers(0, 512, (ROWS, time)),
        rng.integers(0, 64, (ROWS, tags)),
        np.array([0, *rng.integers(0, time + 1, ROWS - 1)], np.int32),
        np.array([0, *rng.integers(0, tags + 1, ROWS - 1)], np.int32),
        rng.integers(0, 512, ROWS),
        rng.integers(0, 64, ROWS),
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"softmax": False}, id="plain-scores"),
        pytest.param({"shared_tables": True}, id="shared-tables"),
        pytest.param({"pooling": "mean"}, id="mean-pooling"),
        pytest.param({"dimension": 3, "attention_hidden": (5, 2), "head_hidden": (6, 4)}, id="other-sizes"),
        pytest.param({"attention_hidden": (9, 7, 5), "head_hidden": (6, 5, 4)}, id="three-hidden-layers"),
        pytest.param({"attention_hidden": (9,), "head_hidden": ()}, id="one-and-no-hidden-layer"),
        pytest.param({"attention_activation": "sigmoid", "head_activation": "prelu"}, id="sigmoid-and-prelu"),
        pytest.param({"attention_activation": "prelu", "head_activation": "dice"}, id="prelu-and-dice"),
        pytest.param({"attention_activation": "dice", "head_activation": "sigmoid"}, id="dice-and-sigmoid"),
        pytest.param({"product": True}, id="product"),
        pytest.param({"item_bias": True}, id="item-bias"),
        pytest.param({"layer_norm": True, "head_activation": "dice"}, id="normalised-layers"),
        pytest.param({"dropout": 0.5, "product": True, "item_bias": True, "pooling": "mean"}, id="dropout"),
    ],
)
def test_network_is_its_reference(make_din: MakeDin, options: dict[str, Any]) -> None:
    """Log-odds are those of the network written down row by row in double precision."""
    din, rows = make_din(**options), draw_rows(6)
    logits = din.logits(rows).numpy()
    for n in range(ROWS):
        expected = reference_network(din, cut_row(rows.pairs, n))
        assert logits[n] == pytest.approx(expected, abs=5e-6)  # log-odds are of the order of 1


@pytest.mark.parametrize("names", [("item",), ("item", "tag", "shop")], ids=["one", "three"])
def test_any_number_of_pairs(names: tuple[str, ...]) -> None:
    """A network may have any pairs by name, each of its own size; the bias is the first one's."""
    rng, rows = np.random.default_rng(3), {name: 20 + i for i, name in enumerate(names)}
    features = {
        name: Feature(dtype="int64", buckets=100, dimension=3 + i, max_history=9) for i, name in enumerate(names)
    }
    din = Din(features, Architecture(product=True, item_bias=True), 1, rows)
    for each in din.variables:
        each.assign(each + abs(rng.normal(0, 0.2, each.shape)))
    assert [tuple(din.tables[name].shape) for name in names] == [(20 + i, 3 + i) for i in range(len(names))]
    pairs = {
        name: Pair(
            rng.integers(0, count, (ROWS, TIME)),
            rng.integers(0, TIME + 1, ROWS).astype(np.int32),
            rng.integers(0, count, ROWS),
        )
        for name, count in rows.items()
    }
    expected = [reference_network(din, cut_row(pairs, n)) for n in range(ROWS)]
    np.testing.assert_allclose(din.logits(pairs), expected, atol=5e-6)


@pytest.mark.parametrize("training", [pytest.param(True, id="training"), pytest.param(False, id="serving")])
@pytest.mark.parametrize("activation", ["relu", "dice"])
def test_attention_without_its_wide_input(training: bool, activation: Any) -> None:
    """Weights and gradients are those of the MLP over [q, k, q - k, q * k], which is never built."""
    unit = AttentionUnit(
        DIMENSION, (5, 3), tf.random.Generator.from_seed(3, alg="philox"), "unit", activation=activation
    )
    q, k, length = (tf.constant(each) for each in draw_attention())
    mask = tf.sequence_mask(length, TIME)
    answers, gradients = [], []
    for wide in (True, False):
        with tf.GradientTape() as tape:
            tape.watch([q, k])
            if wide:
                queries = tf.broadcast_to(q[:, None], k.shape)
                x = tf.concat([queries, k, queries - k, queries * k], -1)
                weights = network.normalise(unit.mlp(x, training=training, mask=mask), mask, softmax=True)
            else:
                weights = unit.weights(q, k, length, training=training)
            loss = tf.reduce_sum(tf.square(weights) * tf.range(TIME, dtype=tf.float32))
        answers.append(weights)
        gradients.append(tape.gradient(loss, [q, k, *unit.trainable_variables]))
        if training:
            for each in unit.variables:
                if each.name.startswith(("mean", "variance")):
                    each.assign(tf.ones_like(each) if each.name.startswith("variance") else tf.zeros_like(each))
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    for each, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(each, other, atol=2e-6)


def test_tables_of_rows(make_din: MakeDin) -> None:
    """A network in training has as many rows as it is told, and one that is told nothing a row for each bucket."""
    compact, full = make_din(rows={"id": 30, "tag": 9}, item_bias=True), make_din(item_bias=True)
    assert [compact.tables[name].shape[0] for name in ("id", "tag")] == [30, 9]
    assert [compact.target_tables[name].shape[0] for name in ("id", "tag")] == [30, 9]
    assert [full.tables[name].shape[0] for name in ("id", "tag")] == [512, 64]
    assert (compact.bias_id.shape, full.bias_id.shape) == ((30,), (512,))


@pytest.mark.parametrize("mapped", [("id",), ("tag",), ("id", "tag")], ids="-".join)
@pytest.mark.parametrize("shared", [pytest.param(True, id="shared-tables"), pytest.param(False, id="separate-tables")])
def test_map_gives_buckets_their_rows(make_din: MakeDin, mapped: tuple[str, ...], shared: bool) -> None:
    """With a map a pair is given by bucket; log-odds and biases are those of the rows that its buckets have."""
    count, rng, rows = {"id": 30, "tag": 9}, np.random.default_rng(3), draw_rows(6)
    maps = {"id": rng.integers(0, 30, 512).astype(np.int32), "tag": rng.integers(0, 9, 64).astype(np.int32)}
    options = {"rows": count, "item_bias": True, "product": True, "shared_tables": shared}
    din = make_din(maps={name: maps[name] for name in mapped}, **options)
    by_row = {
        name: pair._replace(sequence=maps[name][pair.sequence], target=maps[name][pair.target])
        for name, pair in rows.pairs.items()
    }
    given = {name: rows.pairs[name] if name in mapped else by_row[name] for name in by_row}
    for n, logit in enumerate(din.logits(given).numpy()):
        assert logit == pytest.approx(reference_network(din, cut_row(by_row, n)), abs=5e-6)
    assert [tuple(din.tables[name].shape) for name in count] == [(30, 8), (9, 8)]
    assert not any(each.dtype == tf.int32 for each in din.trainable_variables)


def test_rows_and_their_pairs() -> None:
    """Rows are their pairs and back."""
    rows = draw_rows(1)
    assert all(a is b for a, b in zip(Rows.of(rows.pairs), rows, strict=True))


@pytest.mark.parametrize("layer_norm", [pytest.param(True, id="normalised"), pytest.param(False, id="plain")])
def test_checkpoint_restores_everything(make_din: MakeDin, tmp_path: Any, layer_norm: bool) -> None:
    """A network restored from a checkpoint goes on training as the one that was saved, dropout included."""
    options = {"dropout": 0.3, "product": True, "item_bias": True, "head_activation": "dice", "layer_norm": layer_norm}
    saved, other = make_din(**options), make_din(seed=2, **options)
    rows = draw_rows(2)
    saved.logits(rows, training=True)
    path = tf.train.Checkpoint(din=saved).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(din=other).read(path).assert_consumed()
    for training in (True, True, False):
        np.testing.assert_array_equal(other.logits(rows, training=training), saved.logits(rows, training=training))


@pytest.mark.parametrize("pooling", [pytest.param("attention", id="attention"), pytest.param("mean", id="mean")])
def test_zero_is_a_real_id(make_din: MakeDin, pooling: str) -> None:
    """A history of the value 0 is a history, not padding."""
    din, rows = make_din(pooling=pooling), draw_rows(7)
    zero = rows._replace(seq_id=np.zeros_like(rows.seq_id), seq_id_length=np.full(ROWS, 1, np.int32))
    nothing = zero._replace(seq_id_length=np.zeros(ROWS, np.int32))
    assert (abs(din.logits(zero) - din.logits(nothing)).numpy() > 1e-4).all()


def test_shared_tables_are_one(make_din: MakeDin) -> None:
    """Targets and histories look up one table where the architecture says so, and two where it does not."""
    shared, separate = make_din(shared_tables=True), make_din()
    assert [shared.target_tables[name] is shared.tables[name] for name in ("id", "tag")] == [True, True]
    assert len(separate.trainable_variables) - len(shared.trainable_variables) == 2


def test_mean_pooling_has_no_attention(make_din: MakeDin) -> None:
    """A network that pools by the mean carries no attention weights about."""
    assert not any("attention" in each.name for each in make_din(pooling="mean").variables)
    assert make_din(pooling="mean").units == {}


def test_seed_decides_the_weights(make_din: MakeDin) -> None:
    """Networks of one seed start equal, of two seeds not."""
    features, architecture = make_din().features, make_din().architecture
    first, again, other = (Din(features, architecture, seed) for seed in (1, 1, 2))
    assert all((a.numpy() == b.numpy()).all() for a, b in zip(first.variables, again.variables, strict=True))
    assert (first.tables["id"].numpy() != other.tables["id"].numpy()).any()
