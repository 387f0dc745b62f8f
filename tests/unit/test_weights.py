from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifact import Architecture
from service.engine.native.weights import Weights, arrays_of
from tests.unit.reference import (
    Network,
    draw_arrays,
    draw_request,
    forward,
    forward_folded,
    networks,
    requests,
)

EDGES = Network(
    Architecture(attention_hidden=(1,), head_hidden=(), softmax=False, head_activation="dice"),
    {"id": (1, 1)},
    {
        "table_id": np.array([[2.0]]),
        "target_table_id": np.array([[3.0]]),
        "attention_id.0.kernel": np.array([[0.5], [1.0], [-1.0], [0.25]]),
        "attention_id.0.bias": np.array([0.5]),
        "attention_id.1.kernel": np.array([[2.0]]),
        "attention_id.1.bias": np.array([-1.0]),
        "norm.gamma": np.array([2.0, 1.0]),
        "norm.beta": np.array([0.0, 1.0]),
        "norm.mean": np.array([1.0, 0.0]),
        "norm.variance": np.array([3.999, 0.999]),
        "head.0.kernel": np.array([[0.5], [-1.0]]),
        "head.0.bias": np.array([0.25]),
    },
)


def make_network(seed: int = 1, **options: Any) -> Network:
    """A small network of two pairs."""
    architecture = Architecture(**{"attention_hidden": (6, 5), "head_hidden": (7,), **options})
    tables = {"id": (20, 4), "tag": (9, 3)}
    return Network(architecture, tables, draw_arrays(np.random.default_rng(seed), tables, architecture))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_folding_changes_nothing(data: st.DataObject) -> None:
    """Folded in double precision, any network answers any request as the textbook does, to nine digits."""
    network = data.draw(networks())
    request = data.draw(requests(network))
    expected, attentions = forward(network, request)
    found, folded_attentions = forward_folded(network.fold(np.float64), request)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    for each, other in zip(folded_attentions, attentions, strict=True):
        scale = abs(other).max(initial=0)  # a score that happens to be 0 has no digits of its own
        np.testing.assert_allclose(each, other, rtol=1e-9, atol=1e-9 * scale)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_single_precision_suffices(data: st.DataObject) -> None:
    """Folded in double precision and then narrowed, attention that adds up to 1 gives probabilities within 1e-5."""
    network = data.draw(networks().filter(lambda each: each.architecture.softmax))
    request = data.draw(requests(network))
    found = forward_folded(network.fold(), request)[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, forward(network, request)[0], rtol=0, atol=1e-5)


def test_folding_by_hand() -> None:
    """The smallest network, worked out: q is 3, k is 2, and no layer but one of attention."""
    unit = EDGES.fold().pairs[0].unit
    assert unit is not None
    assert [float(each.item()) for each in (unit.query, unit.key, unit.product)] == [-0.5, 2.0, 0.25]
    # relu(2 * (2 + 3 / 4) - 3 / 2 + 1 / 2) = 4.5, so the weight is 8 and the history 16
    request = draw_request(np.random.default_rng(1), EDGES, [1], 1)
    probability, (attention,) = forward_folded(EDGES.fold(np.float64), request)
    assert attention.tolist() == [[8.0]]
    # normalised, 16 is 15 and 3 is 4; half of the one less the other, and a quarter, is 3.75
    assert probability.tolist() == pytest.approx([1 / (1 + np.exp(-3.75))], rel=1e-12)


def test_weights_are_laid_out_for_c() -> None:
    """Whatever was folded is contiguous and of single precision."""
    weights = make_network(attention_activation="dice", head_activation="prelu").fold()
    for each in arrays_of(weights):
        assert each.dtype == np.float32
        assert each.flags.c_contiguous


def test_head_reads_pairs_in_order() -> None:
    """The head's first layer reads pooled history and target of each pair, as many inputs as they have."""
    weights = make_network().fold()
    assert [pair.table.shape for pair in weights.pairs] == [(20, 4), (9, 3)]
    assert [layer.kernel.shape for layer in weights.head] == [(14, 7), (7, 1)]


def test_product_and_bias_are_kept() -> None:
    """A head with products reads three parts of each pair, and an item's bias is not copied where it is precise."""
    network = make_network(product=True, item_bias=True)
    weights = network.fold(np.float64)
    assert weights.product
    assert [layer.kernel.shape for layer in weights.head] == [(21, 7), (7, 1)]
    assert weights.bias is network.arrays["item_bias"]
    assert make_network().fold().bias is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shared_table_is_one_array(dtype: Any) -> None:
    """A table that targets and histories share is one array, so that it takes its memory once."""
    shared, separate = make_network(shared_tables=True).fold(dtype), make_network().fold(dtype)
    assert all(pair.target_table is pair.table for pair in shared.pairs)
    assert not any(pair.target_table is pair.table for pair in separate.pairs)


def test_table_is_not_copied() -> None:
    """A table that has the precision wanted is used as it is: it may be most of the machine's memory."""
    network = make_network()
    assert network.fold(np.float64).pairs[0].table is network.arrays["table_id"]


@pytest.mark.parametrize(
    ("activation", "sizes"),
    [
        pytest.param("relu", (0, 0, 0), id="relu"),
        pytest.param("sigmoid", (0, 0, 0), id="sigmoid"),
        pytest.param("prelu", (6, 0, 0), id="prelu"),
        pytest.param("dice", (6, 6, 6), id="dice"),
    ],
)
def test_activation_has_its_own_arrays(activation: str, sizes: tuple[int, int, int]) -> None:
    """A layer has alpha, scale and shift where its activation uses them; the last layer is linear and has none."""
    weights: Weights = make_network(attention_activation=activation).fold()
    unit = weights.pairs[0].unit
    assert unit is not None
    assert (unit.first.activation, unit.rest[0].activation, unit.rest[-1].activation) == (*[activation] * 2, "linear")
    assert (unit.first.alpha.size, unit.first.scale.size, unit.first.shift.size) == sizes
    assert (unit.rest[-1].alpha.size, unit.rest[-1].scale.size, unit.rest[-1].kernel.shape) == (0, 0, (5, 1))


def test_mean_pooling_has_no_unit() -> None:
    """A network that pools by the mean has no attention unit."""
    assert [pair.unit for pair in make_network(pooling="mean").fold().pairs] == [None, None]
