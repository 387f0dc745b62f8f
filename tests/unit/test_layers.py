from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from service.training.layers import MOMENTUM, BatchNorm, Dense, Dice, Mlp, PRelu, drop

SUMS = [[-2.0, 1.0], [4.0, -1.0]]


def logistic(x: Any) -> Any:
    """1 / (1 + exp(-x)) in double precision."""
    return 1 / (1 + np.exp(-np.float64(x)))


def make_dice() -> Dice:
    """A Dice of two units with a past."""
    dice = Dice(2)
    for variable, values in ((dice.alpha, [0.5, -0.25]), (dice.mean, [1.0, 0.0]), (dice.variance, [4.0, 0.25])):
        variable.assign(values)
    return dice


def test_prelu_by_hand() -> None:
    """PReLU keeps what is positive and multiplies the rest by the unit's own factor, a quarter at the start."""
    prelu = PRelu(2)
    assert prelu(tf.constant(SUMS)).numpy().tolist() == [[-0.5, 1.0], [4.0, -0.25]]
    prelu.alpha.assign([0.5, 2.0])
    assert prelu(tf.constant(SUMS)).numpy().tolist() == [[-1.0, 1.0], [4.0, -2.0]]


def test_dice_serves_moving_averages() -> None:
    """Serving, Dice mixes x and alpha x by the sigmoid of x normalised by the averages kept in training."""
    p = logistic([[-3 / 2, 2.0], [3 / 2, -2.0]])
    expected = p * SUMS + (1 - p) * [0.5, -0.25] * np.array(SUMS)
    np.testing.assert_allclose(make_dice()(tf.constant(SUMS)), expected, atol=1e-6)


def test_dice_starts_without_a_negative_side() -> None:
    """A new Dice is x sigmoid(x): no slope below, mean 0, variance 1."""
    np.testing.assert_allclose(Dice(2)(tf.constant(SUMS)), SUMS * logistic(SUMS), atol=1e-6)


def test_dice_trains_on_the_batch() -> None:
    """Training, Dice normalises by the batch's own moments and moves the averages towards them."""
    dice = make_dice()
    trained = dice(tf.constant(SUMS), training=True)  # means 1, 0; variances 9, 1
    p = logistic([[-1.0, 1.0], [1.0, -1.0]])
    np.testing.assert_allclose(trained, p * SUMS + (1 - p) * [0.5, -0.25] * np.array(SUMS), atol=1e-6)
    np.testing.assert_allclose(dice.mean, [1.0, 0.0], atol=1e-6)
    keep = MOMENTUM
    np.testing.assert_allclose(dice.variance, [4 * keep + 9 * (1 - keep), 0.25 * keep + (1 - keep)], atol=1e-6)


def test_dice_trains_on_real_entries() -> None:
    """What a mask hides does not count among the moments, however large."""
    plain, masked = make_dice(), make_dice()
    padded = tf.constant([[SUMS[0], SUMS[1], [1e6, 1e6]], [[1e6, 1e6]] * 3])  # (N, T, units)
    mask = tf.constant([[True, True, False], [False, False, False]])
    answer = masked(padded, training=True, mask=mask)[0, :2]
    np.testing.assert_allclose(answer, plain(tf.constant(SUMS), training=True), atol=1e-6)
    np.testing.assert_array_equal(masked.mean, plain.mean)
    np.testing.assert_array_equal(masked.variance, plain.variance)


def test_dice_survives_a_batch_without_entries() -> None:
    """A batch whose histories are all empty is normalised by the averages, leaves them alone, and has gradients."""
    dice, x = make_dice(), tf.constant([SUMS])
    with tf.GradientTape() as tape:
        tape.watch(x)
        answer = dice(x, training=True, mask=tf.constant([[False, False]]))
    np.testing.assert_allclose(answer, make_dice()(x), atol=1e-6)
    np.testing.assert_allclose(dice.mean, [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(dice.variance, [4.0, 0.25], atol=1e-6)
    assert np.isfinite(tape.gradient(answer, x)).all()


def test_dice_survives_a_constant() -> None:
    """A unit that gives one value to the whole batch is half of it, not NaN."""
    assert Dice(1)(tf.constant([[3.0], [3.0]]), training=True).numpy().tolist() == [[1.5], [1.5]]


@pytest.mark.parametrize(
    ("activation", "names"),
    [
        pytest.param("relu", ["bias:0", "kernel:0"], id="relu"),
        pytest.param("sigmoid", ["bias:0", "kernel:0"], id="sigmoid"),
        pytest.param("prelu", ["alpha:0", "bias:0", "kernel:0"], id="prelu"),
        pytest.param("dice", ["alpha:0", "bias:0", "kernel:0"], id="dice"),
    ],
)
def test_alpha_is_learned(activation: Any, names: list[str]) -> None:
    """Training moves the factors of PReLU and Dice, and no average."""
    dense = Dense(3, 2, tf.random.Generator.from_seed(1, alg="philox"), "dense", activation)
    assert sorted(each.name.rpartition("/")[2] for each in dense.trainable_variables) == names


@pytest.mark.parametrize("hidden", [(), (2,), (4, 3, 2)], ids=["none", "one", "three"])
def test_mlp_has_any_number_of_layers(hidden: tuple[int, ...]) -> None:
    """An MLP has the hidden layers it is told and a linear one of one unit."""
    mlp = Mlp(5, hidden, tf.random.Generator.from_seed(1, alg="philox"), "mlp")
    assert [tuple(each.kernel.shape) for each in mlp.layers] == list(zip((5, *hidden), (*hidden, 1), strict=True))
    assert mlp(tf.zeros((7, 3, 5))).shape == (7, 3)


def make_rng(seed: int = 1) -> Any:
    """What draws weights and what is dropped."""
    return tf.random.Generator.from_seed(seed, alg="philox")


def test_normalised_layer_by_hand() -> None:
    """Batch normalisation stands between a layer's sums and its activation."""
    dense = Dense(1, 2, make_rng(), "dense", "relu", norm=True)
    dense.kernel.assign([[1.0, 2.0]])
    dense.bias.assign([5.0, 0.0])
    one, two = 1 / np.sqrt(1.001), 2 / np.sqrt(4.001)  # the sums are 6 and 8, 2 and 6: variances 1 and 4
    trained = dense(tf.constant([[1.0], [3.0]]), training=True)
    np.testing.assert_allclose(trained, [[0, 0], [one, two]], atol=1e-6)
    assert dense.norm is not None
    np.testing.assert_allclose(dense.norm.mean, [7 * (1 - MOMENTUM), 4 * (1 - MOMENTUM)], atol=1e-6)


def test_idle_normalisation_changes_nothing() -> None:
    """An idle one maps a batch to itself, in training too, has nothing to learn, and its averages stay."""
    norm, x = BatchNorm(3, "norm", idle=True), np.random.default_rng(1).normal(5, 2, (7, 3)).astype(np.float32)
    for training in (True, False):
        np.testing.assert_allclose(norm(x, training=training), x, rtol=1e-6)
    assert norm.trainable_variables == ()
    assert (norm.mean.numpy() == 0).all()
    assert (norm.variance.numpy() == 1).all()


def test_dropout_by_hand() -> None:
    """What is not dropped is divided by the share that is kept, so that the mean stays."""
    x = tf.constant(np.arange(1, 40_001, dtype=np.float32))
    dropped = drop(x, 0.2, make_rng()).numpy()
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], x.numpy()[kept] / 0.8, rtol=1e-6)
    assert kept.mean() == pytest.approx(0.8, abs=0.01)


def test_dropout_is_of_hidden_layers_in_training() -> None:
    """An MLP drops outputs of its hidden layers in training only, others in every step, the same ones by the seed."""
    first, second = (Mlp(3, (50, 40), make_rng(), "mlp", dropout=0.5) for _ in range(2))
    x = tf.ones((2, 3))
    steps = [first(x, training=True).numpy() for _ in range(2)]
    assert (steps[0] != steps[1]).any()
    np.testing.assert_array_equal(second(x, training=True), steps[0])
    np.testing.assert_array_equal(first(x), Mlp(3, (50, 40), make_rng(), "mlp")(x))
    plain = Mlp(3, (), make_rng(), "mlp", dropout=0.5)
    np.testing.assert_array_equal(plain(x, training=True), plain(x))


def make_norm() -> BatchNorm:
    """A batch normalisation of two columns with a scale, a shift and a past."""
    norm = BatchNorm(2, "norm")
    for variable, values in ((norm.gamma, [2.0, 1.0]), (norm.beta, [0.5, -1.0])):
        variable.assign(values)
    norm.mean.assign([1.0, 3.0])
    norm.variance.assign([0.999, 3.999])
    return norm


def test_batch_norm_serves_moving_averages() -> None:
    """Serving normalises by the averages kept in training: (x - mean) / sqrt(variance + 0.001) * gamma + beta."""
    served = make_norm()(tf.constant([[2.0, 5.0], [1.0, 1.0]]), training=False)
    np.testing.assert_allclose(served, [[2.5, 0.0], [0.5, -2.0]], atol=1e-6)


def test_batch_norm_trains_on_the_batch() -> None:
    """Training normalises by the batch's own moments and moves the averages towards them."""
    norm, keep = make_norm(), MOMENTUM
    trained = norm(tf.constant([[1.0, 2.0], [3.0, 6.0]]), training=True)  # means 2, 4; variances 1, 4
    one, two = 1 / np.sqrt(1.001), 2 / np.sqrt(4.001)
    np.testing.assert_allclose(trained, [[0.5 - 2 * one, -1 - two], [0.5 + 2 * one, -1 + two]], atol=1e-6)
    np.testing.assert_allclose(norm.mean, [keep * 1 + (1 - keep) * 2, keep * 3 + (1 - keep) * 4], atol=1e-6)
    np.testing.assert_allclose(norm.variance, [keep * 0.999 + (1 - keep), keep * 3.999 + (1 - keep) * 4], atol=1e-6)
