from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.training.din import Rows, graph, to_bucket
from service.training.folded import CHUNK_BLOCKS, Blocks, Folded, rungs

MakeDin: TypeAlias = Callable[..., Any]

MAPS = {
    name: (np.arange(buckets) * 7 % rows).astype(np.int32) for name, buckets, rows in (("id", 512, 30), ("tag", 64, 9))
}
BLOCK = 3
LONGEST = 20
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "default": {},
    "plain-scores": {"softmax": False},
    "shared-tables": {"shared_tables": True},
    "mean-pooling": {"pooling": "mean"},
    "other-sizes": {"dimension": 3, "attention_hidden": (5, 2), "head_hidden": (6, 4)},
    "other-depths": {"attention_hidden": (9,), "head_hidden": ()},
    "sigmoid-and-prelu": {"attention_activation": "sigmoid", "head_activation": "prelu"},
    "prelu-and-dice": {"attention_activation": "prelu", "head_activation": "dice", "attention_hidden": (9, 7, 5)},
    "product-and-item-bias": {"product": True, "item_bias": True},
    "maps": {"maps": MAPS, "rows": {"id": 30, "tag": 9}, "item_bias": True},
    "map-of-ids": {"maps": {"id": MAPS["id"]}, "rows": {"id": 30, "tag": 64}, "shared_tables": True},
    "dice-and-sigmoid": {"attention_activation": "dice", "head_activation": "sigmoid", "softmax": False},
}
SHAPES = st.fixed_dictionaries(
    {
        "requests": st.integers(1, 5),
        "time": st.integers(1, 2 * LONGEST),
        "tags": st.integers(1, 2 * LONGEST),
        "blocks": st.integers(1, 3 * CHUNK_BLOCKS),
        "seed": st.integers(0, 2**32),
    }
)
HISTORY, LENGTHS, TARGETS = ((None, None), tf.int64), ((None,), tf.int32), ((None, BLOCK), tf.int64)
SIGNATURE = Blocks._make(
    tf.TensorSpec(*spec) for spec in (HISTORY, HISTORY, LENGTHS, LENGTHS, TARGETS, TARGETS, LENGTHS)
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A network and the two compiled functions of its serving form."""

    din: Any
    score: Callable[[Blocks], Any]
    explain: Callable[[Blocks], Any]

    def textbook(self, blocks: Blocks) -> NDArray[np.float32]:
        """Probabilities (K, B) of the network itself, one row per candidate."""
        of = np.repeat(blocks.block_request, BLOCK)  # (K*B,)
        features = self.din.features
        rows = Rows(
            to_bucket(blocks.seq_id[of], features.id.buckets),
            to_bucket(blocks.seq_tag[of], features.tag.buckets),
            blocks.seq_id_length[of],
            blocks.seq_tag_length[of],
            to_bucket(blocks.target_id.ravel(), features.id.buckets),
            to_bucket(blocks.target_tag.ravel(), features.tag.buckets),
        )
        return np.asarray(tf.sigmoid(self.din.logits(rows))).reshape(-1, BLOCK)


@pytest.fixture(scope="module")
def make_pair(make_din: MakeDin) -> Callable[[str], Pair]:
    """The pair of an architecture by name, compiled once."""
    made: dict[str, Pair] = {}

    def make(name: str) -> Pair:
        if name not in made:
            folded = Folded(make_din(max_history=LONGEST, **ARCHITECTURES[name]))
            score, explain = (graph(each, input_signature=[SIGNATURE]) for each in (folded.score, folded.explain))
            made[name] = Pair(folded.din, score, explain)
        return made[name]

    return make


def draw(requests: int, time: int, tags: int, blocks: int, seed: int) -> Blocks:
    """Random values in padded arrays; the first request has no history, the last of all the longest that fits."""
    rng = np.random.default_rng(seed)
    most, most_tags = min(time, LONGEST), min(tags, LONGEST)
    id_length = rng.integers(0, most + 1, requests).astype(np.int32)
    tag_length = rng.integers(0, most_tags + 1, requests).astype(np.int32)
    id_length[0], tag_length[0], id_length[-1], tag_length[-1] = 0, 0, most, most_tags
    return Blocks(
        rng.integers(0, 10**6, (requests, time)),
        rng.integers(0, 100, (requests, tags)),
        id_length,
        tag_length,
        rng.integers(0, 10**6, (blocks, BLOCK)),
        rng.integers(0, 100, (blocks, BLOCK)),
        np.sort(rng.integers(0, requests, blocks)).astype(np.int32),
    )


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in ARCHITECTURES])
@given(shape=SHAPES)
@example(shape={"requests": 1, "time": 1, "tags": 1, "blocks": 1, "seed": 0})
@example(shape={"requests": 2, "time": LONGEST, "tags": 2 * LONGEST, "blocks": CHUNK_BLOCKS, "seed": 0})
@example(shape={"requests": 5, "time": 2 * LONGEST, "tags": 1, "blocks": 2 * CHUNK_BLOCKS + 1, "seed": 0})
@settings(max_examples=25, deadline=None)
def test_folding_changes_nothing(make_pair: Callable[[str], Pair], name: str, shape: dict[str, int]) -> None:
    """The folded network answers as the textbook one does, whatever the number of requests, blocks and entries."""
    pair, blocks = make_pair(name), draw(**shape)
    np.testing.assert_allclose(pair.score(blocks), pair.textbook(blocks), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in ARCHITECTURES])
@given(shape=SHAPES)
@settings(max_examples=10, deadline=None)
def test_explain_agrees_with_score(make_pair: Callable[[str], Pair], name: str, shape: dict[str, int]) -> None:
    """Explain answers the same probabilities, and pays no attention to padding."""
    pair, blocks = make_pair(name), draw(**shape)
    probability, *attention = pair.explain(blocks)
    np.testing.assert_allclose(probability, pair.score(blocks), atol=1e-6, rtol=0)
    for weights, length in zip(attention, (blocks.seq_id_length, blocks.seq_tag_length), strict=True):
        padding = np.arange(weights.shape[2]) >= length[blocks.block_request][:, None]  # (K, T)
        assert not (weights.numpy() * padding[:, None]).any()


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in ("default", "mean-pooling")])
def test_attention_sums_to_one(make_pair: Callable[[str], Pair], name: str) -> None:
    """A candidate's attention sums to 1 over its history, and to 0 over an empty one."""
    blocks = draw(requests=4, time=9, tags=30, blocks=12, seed=8)
    _, *attention = make_pair(name).explain(blocks)
    for weights, length in zip(attention, (blocks.seq_id_length, blocks.seq_tag_length), strict=True):
        expected = np.repeat(length[blocks.block_request] > 0, BLOCK).reshape(-1, BLOCK)
        np.testing.assert_allclose(weights.numpy().sum(2), expected, atol=1e-6)


@pytest.mark.parametrize(
    "length",
    [pytest.param(rung + more, id=f"rung-{rung}{more:+d}") for rung in rungs(LONGEST) for more in (-1, 0, 1)][:-1],
)
def test_rungs_hold_their_history(make_pair: Callable[[str], Pair], length: int) -> None:
    """A history that just fits a compiled length, or just does not, is read to its end."""
    blocks = draw(requests=2, time=length, tags=1, blocks=4, seed=length)
    pair = make_pair("default")
    np.testing.assert_allclose(pair.score(blocks), pair.textbook(blocks), atol=1e-6, rtol=0)


def test_longer_than_the_longest_is_refused(make_pair: Callable[[str], Pair]) -> None:
    """A history longer than the model reads is an error, not an answer from a part of it."""
    blocks = draw(requests=1, time=LONGEST + 1, tags=1, blocks=1, seed=9)
    with pytest.raises(tf.errors.InvalidArgumentError):
        make_pair("default").score(blocks._replace(seq_id_length=np.array([LONGEST + 1], np.int32)))


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        pytest.param(1, (1,), id="one"),
        pytest.param(8, (8,), id="shortest-worth-it"),
        pytest.param(9, (5, 9), id="just-above"),
        pytest.param(50, (7, 13, 25, 50), id="default"),
    ],
)
def test_rungs_halve(longest: int, expected: tuple[int, ...]) -> None:
    """Compiled lengths halve from the longest down to 8 or less."""
    assert rungs(longest) == expected
