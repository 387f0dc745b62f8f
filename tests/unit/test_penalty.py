from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf

from service.training.blend import make_blend
from service.training.din import Rows
from service.training.penalty import penalty
from service.training.vocabulary import Vocabulary

MakeDin: TypeAlias = Callable[..., Any]

ROWS = {"id": 9, "tag": 5}
VOCABULARIES = {
    name: Vocabulary(np.arange(rows, dtype=np.int32), np.arange(rows) * 3 + 1, np.arange(rows) * 7)
    for name, rows in ROWS.items()
}
BATCH = Rows(
    seq_id=np.array([[3, 3, 4, 8], [4, 5, 8, 8], [8, 8, 8, 8]], np.int32),  # 8 is padding
    seq_tag=np.array([[0, 2, 2], [2, 4, 4], [4, 4, 4]], np.int32),  # 4 is padding
    seq_id_length=np.array([3, 2, 0], np.int32),
    seq_tag_length=np.array([3, 1, 0], np.int32),
    target_id=np.array([1, 3, 1], np.int32),
    target_tag=np.array([2, 3, 2], np.int32),
)
MET = {"id": ({3, 4, 5}, {1, 3}), "tag": ({0, 2}, {2, 3})}  # in histories and as targets


def reference(din: Any, strength: float) -> float:
    """The paper's sum, value by value."""
    total = 0.0
    for name, (history, target) in MET.items():
        vocabulary, table, targets = VOCABULARIES[name], din.tables[name].numpy(), din.target_tables[name].numpy()
        if din.architecture.shared_tables:
            total += sum((table[j] ** 2).sum() / max(vocabulary.count[j], 1) for j in history | target)
        else:
            total += sum((table[j] ** 2).sum() / max(vocabulary.entries[j], 1) for j in history)
            total += sum((targets[j] ** 2).sum() / max(vocabulary.targets[j], 1) for j in target)
        if din.architecture.item_bias and name == "id":
            total += sum(din.bias_id.numpy()[j] ** 2 / vocabulary.targets[j] for j in target)
    return strength / 2 * total


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="separate-tables"),
        pytest.param({"shared_tables": True}, id="shared-tables"),
        pytest.param({"item_bias": True}, id="item-bias"),
    ],
)
def test_penalty_is_the_papers(make_din: MakeDin, options: dict[str, Any]) -> None:
    """Each value in the batch adds strength / (2 n) of its squares, however often it is there; padding adds nothing."""
    din = make_din(rows=ROWS, dimension=4, **options)
    found = penalty(din, Rows(*map(tf.constant, BATCH)), VOCABULARIES, 0.3)
    assert float(found) == pytest.approx(reference(din, 0.3), rel=1e-5)


def test_shared_parts_are_not_penalised(make_din: MakeDin) -> None:
    """Of blended embeddings their own parts count, once each and as often as training meets whatever has them."""
    own = np.array([0, 1, 0, 2, 1, 3, 0, 0, 0], np.int32)
    blend = make_blend(own, np.linspace(0, 1, 9), 2)
    blended = Vocabulary(np.arange(9, dtype=np.int32), np.array([5, 6, 7, 8]), np.array([1, 2, 3, 4]), blend)
    din = make_din(rows={"id": 4, "tag": 5}, blends={"id": blend}, dimension=4, shared_tables=True, item_bias=True)
    vocabularies = {"id": blended, "tag": VOCABULARIES["tag"]}
    table, bias = din.tables["id"].numpy(), din.bias_id.numpy()
    expected = sum((table[j] ** 2).sum() / blended.count[j] for j in (1, 2, 3))  # rows 1, 3, 4 and 5
    expected += sum(bias[j] ** 2 / blended.targets[j] for j in (1, 2))
    expected += sum((din.tables["tag"].numpy()[j] ** 2).sum() / VOCABULARIES["tag"].count[j] for j in (0, 2, 3))
    found = penalty(din, Rows(*map(tf.constant, BATCH)), vocabularies, 0.3)
    assert float(found) == pytest.approx(0.15 * expected, rel=1e-5)


def test_penalty_pulls_what_is_met(make_din: MakeDin) -> None:
    """The gradient is strength / n times the embedding of what the batch meets, and 0 of anything else."""
    din = make_din(rows=ROWS, dimension=4, shared_tables=True)
    with tf.GradientTape() as tape:
        total = penalty(din, Rows(*map(tf.constant, BATCH)), VOCABULARIES, 0.3)
    gradient = tf.convert_to_tensor(tape.gradient(total, din.tables["id"])).numpy()
    expected = 0.3 * din.tables["id"].numpy() / np.maximum(VOCABULARIES["id"].count, 1)[:, None]
    expected[sorted({0, 2, 6, 7, 8})] = 0
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_penalty_of_pairs_by_name(make_din: MakeDin) -> None:
    """Pairs by name are penalised as rows are, and a strength of 0 is no penalty."""
    din, rows = make_din(rows=ROWS, dimension=4), Rows(*map(tf.constant, BATCH))
    assert float(penalty(din, rows.pairs, VOCABULARIES, 0.3)) == float(penalty(din, rows, VOCABULARIES, 0.3))
    assert float(penalty(din, rows, VOCABULARIES, 0)) == 0
