import numpy as np
import pytest
import tensorflow as tf

from service.artifact import NORM_EPSILON, Architecture, Feature, Features
from service.training.baselines import PRIOR_ROWS
from service.training.din import Din, Rows
from service.training.start import PART, SCALE, SHRINK, bias, embed, make_start, start_head

PRELU = 1.25  # what PReLU, as it starts, makes of 1 less what it makes of -1


def clicks(seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Sixty users click items of one half, 1 to 10 or 11 to 20; item 0 stands for rare ones."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(60), 8)
    item = np.where(user % 2, rng.integers(11, 21, len(user)), rng.integers(1, 11, len(user)))
    return user, np.where(rng.random(len(user)) < 0.1, 0, item).astype(np.int32)


def test_items_of_the_same_users_are_near() -> None:
    """Items that the same users clicked have a larger product than others, each with each."""
    found = embed(*clicks(), items=21, dimension=4)
    assert found is not None
    product = found[1:] @ found[1:].T
    same = np.kron(np.eye(2), np.ones((10, 10))) > 0
    assert product[same & ~np.eye(20, dtype=bool)].min() > product[~same].max()


def test_factors_are_those_of_the_matrix() -> None:
    """All factors together give the positive part of co-occurrence over popularity, up to one scale."""
    user, item = clicks()
    found = embed(user, item, items=21, dimension=19)
    assert found is not None
    matrix = np.zeros((60, 20))
    matrix[user[item > 0], item[item > 0] - 1] = 1
    together, count = matrix.T @ matrix, matrix.sum(0)
    np.fill_diagonal(together, 0)
    value, vector = np.linalg.eigh(together / np.sqrt(np.outer(count + SHRINK, count + SHRINK)))
    factors = vector[:, 1:] * np.sqrt(np.maximum(value[1:], 0))  # the smallest of the 20 is left out, and negative
    np.testing.assert_allclose(found[1:] @ found[1:].T, factors @ factors.T * SCALE**2 / np.mean(factors**2), atol=1e-5)


def test_repeats_and_rare_items_add_nothing() -> None:
    """A user who clicks an item again, and clicks on item 0, change no embedding; that of item 0 is the mean."""
    user, item = clicks()
    found, again = embed(user, item, 21, 4), embed(np.tile(user, 2), np.tile(item, 2), 21, 4)
    kept = item > 0
    without = embed(user[kept], item[kept], 21, 4)
    assert found is not None
    assert again is not None
    assert without is not None
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(found, without)
    np.testing.assert_allclose(found[0], found[1:].mean(0), rtol=1e-5)


def test_scale_and_size() -> None:
    """Embeddings have the spread that training starts from; dimensions that there are too few items for are 0."""
    found = embed(*clicks(), items=21, dimension=32)
    assert found is not None
    assert found.shape == (21, 32)
    assert found.dtype == np.float32
    assert np.mean(found[1:, :19] ** 2) == pytest.approx(SCALE**2, rel=1e-3)
    assert not found[:, 19:].any()


def test_bias_by_hand() -> None:
    """An item clicked as often as all has a bias of 0; others that of their rate, drawn to the mean, never infinite."""
    item, label = np.repeat([0, 1, 2], [4, 4, 2]).astype(np.int32), np.array([1, 1, 0, 0, 1, 1, 1, 1, 0, 0])
    found = bias(item, label, 4)
    mean = 0.6
    rates = [(2 + PRIOR_ROWS * mean) / (4 + PRIOR_ROWS), (4 + PRIOR_ROWS * mean) / (4 + PRIOR_ROWS)]
    rates += [PRIOR_ROWS * mean / (2 + PRIOR_ROWS), mean]
    expected = [np.log(rate / (1 - rate)) - np.log(mean / (1 - mean)) for rate in rates]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert np.isfinite(bias(item, np.ones(10), 3)).all()


def test_only_clicks_place_items() -> None:
    """Rows that were not clicked move the biases and leave the embeddings."""
    user, item = clicks()
    shown = np.repeat(np.array([3], np.int32), 50)
    start = make_start(np.append(user, np.arange(50)), np.append(item, shown), np.repeat([1, 0], [480, 50]), 21, 4)
    np.testing.assert_array_equal(start.embeddings, embed(user, item, 21, 4))
    assert start.bias.argmin() == 3


def test_too_few_clicks() -> None:
    """Without clicks, or with two items, there is nothing to factorise."""
    nothing = np.array([], np.int64)
    assert embed(nothing, nothing.astype(np.int32), 9, 4) is None
    assert embed(np.array([0, 0]), np.array([0, 0], np.int32), 9, 4) is None
    assert embed(np.array([0, 0]), np.array([1, 1], np.int32), 2, 4) is None


HEADED = Architecture(
    attention_hidden=(4,), head_hidden=(6, 5), head_activation="prelu", product=True, item_bias=True, softmax=True
)


def headed(hidden: tuple[int, ...] = (6, 5)) -> tuple[Din, Rows]:
    """A network whose head is normalised, and three rows of its tables."""
    kind = {"dtype": "int64", "buckets": 16, "dimension": 4, "max_history": 8}
    features = Features(id=Feature.model_validate(kind), tag=Feature.model_validate(kind))
    din = Din(features, HEADED.model_copy(update={"head_hidden": hidden}), 1, input_norm=False, layer_norm=True)
    din.bias_id.assign(tf.random.stateless_normal(din.bias_id.shape, [1, 2]))
    sequence, length = tf.constant([[1, 2], [3, 0], [4, 5]]), tf.constant([2, 1, 2])
    return din, Rows(sequence, sequence, length, length, tf.constant([6, 7, 8]), tf.constant([1, 1, 2]))


def test_head_that_starts_at_zero_leaves_the_bias() -> None:
    """A network says its item biases at first, and no more; the last layer can learn all the same."""
    din, rows = headed()
    start_head(din, product=False)
    np.testing.assert_array_equal(din.logits(rows).numpy(), din.bias_id.numpy()[6:9])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(din.logits(rows, training=True) * [1.0, -2.0, 3.0])
    assert np.abs(tape.gradient(total, din.head.layers[-1].kernel).numpy()).max() > 0


@pytest.mark.parametrize("hidden", [(2,), (6, 5), (3, 2, 4)])
def test_head_that_starts_with_the_product(hidden: tuple[int, ...]) -> None:
    """In training a head says a part of the standardised sum of pooled history times target, through all its layers."""
    din, rows = headed(hidden)
    start_head(din, product=True)
    pooled, q, product = din.pool("id", rows.pairs["id"], training=False)
    np.testing.assert_allclose(product, pooled * q)
    total = product.numpy().sum(1)
    standard = (total - total.mean()) / np.sqrt(total.var() + NORM_EPSILON)
    for _ in hidden[1:]:
        standard = PRELU * standard
        standard = (standard - standard.mean()) / np.sqrt(standard.var() + NORM_EPSILON)
    said = din.logits(rows, training=True).numpy() - din.bias_id.numpy()[6:9]
    np.testing.assert_allclose(said, PART * PRELU * standard, rtol=1e-3)
