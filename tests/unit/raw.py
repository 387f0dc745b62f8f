"""The reference's networks and requests as the C code takes them: tuples of arrays, raw values and not buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from service.artifact import Architecture
from service.batch import Floats, Ids
from service.engine import native
from service.engine.native import _forward
from tests.unit.reference import Answer, Hashed, Network, draw_arrays, draw_maps

# Names of the stub only
Weights: TypeAlias = "tuple[tuple[_forward.Pair, ...], tuple[_forward.Layer, ...], Floats | None, bool]"
Found: TypeAlias = tuple[Floats, tuple[Floats, ...]]  # probability (C,), attention (C, T) of each pair

LEVELS = _forward.levels()
EXTREMES = (-(2**63), 2**63 - 1, 0, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Raw:
    """One request before hashing: int64, or bytes objects."""

    histories: tuple[Ids, ...]  # (T,) each
    targets: tuple[Ids, ...]  # (C,) each

    @property
    def arrays(self) -> tuple[Ids, ...]:
        """As `Model.run` takes it."""
        return self.histories + self.targets

    @property
    def rows(self) -> int:
        """Number of candidates."""
        return len(self.targets[0])

    def hash(self, network: Network) -> Hashed:
        """The buckets that the values fall into."""
        sizes = network.buckets.values()
        return Hashed(
            tuple(map(to_buckets, self.histories, sizes)),
            tuple(map(to_buckets, self.targets, sizes)),
        )

    def take(self, order: Sequence[int]) -> "Raw":
        """The same with candidates in another order."""
        return Raw(self.histories, tuple(each[list(order)] for each in self.targets))

    def __repr__(self) -> str:
        return f"Raw({self.rows} candidates, histories of {[len(each) for each in self.histories]})"


def to_buckets(values: Ids, buckets: int) -> Any:
    """Each value's bucket, by way of its text."""
    texts = (value if isinstance(value, bytes) else str(value).encode() for value in values.tolist())
    return np.array([_forward.fingerprint(text) % buckets for text in texts], np.int64)


def as_tuples(network: Network) -> Weights:
    """The arguments of `Model`: of any number of pairs, where NativeEngine has two."""
    weights = network.fold()
    pairs = tuple(
        (pair.table, pair.target_table, native._unit(pair.unit) if pair.unit else None, pair.rows)
        for pair in weights.pairs
    )
    head = tuple(native._layer(layer, layer.kernel) for layer in weights.head)
    return pairs, head, weights.bias, weights.product


def run(model: _forward.Model, requests: Sequence[Raw], longer: int = 0) -> list[Found]:
    """Answers with attention, in arrays of NaN that are `longer` than the longest history."""
    rows, pairs = [each.rows for each in requests], len(requests[0].histories)
    most = [max(len(each.histories[p]) for each in requests) + longer for p in range(pairs)]
    probability = np.full(sum(rows), np.nan, np.float32)
    attention = tuple(np.full((sum(rows), each), np.nan, np.float32) for each in most)
    model.run(tuple(each.arrays for each in requests), probability, attention)
    ends = np.cumsum(rows)[:-1]
    split = [np.split(each, ends) for each in (probability, *attention)]
    return [(first, tuple(others)) for first, *others in zip(*split, strict=True)]


def run_plainly(model: _forward.Model, requests: Sequence[Raw]) -> Floats:
    """Probabilities of all requests, without attention."""
    probability = np.full(sum(each.rows for each in requests), np.nan, np.float32)
    model.run(tuple(each.arrays for each in requests), probability)
    return probability


def check(found: Found, expected: Answer, network: Network) -> None:
    """Compare an answer with the reference's, probabilities to five digits.

    Where attention is no softmax its weights add up to W instead of 1, and so may W times the error.
    """
    probability, attention = found
    total = max([1.0, *(float(abs(each).sum(1).max(initial=0)) for each in expected[1])])
    np.testing.assert_allclose(probability, expected[0], rtol=0, atol=1e-5 * total)
    for each, other in zip(attention, expected[1], strict=True):
        scale = max(1.0, float(abs(other).max(initial=0)))
        assert not each[:, other.shape[1] :].any()
        np.testing.assert_allclose(each[:, : other.shape[1]], other, rtol=0, atol=1e-5 * scale)
        if network.architecture.softmax and other.size:
            np.testing.assert_allclose(each.sum(1, dtype=np.float64), 1, rtol=0, atol=1e-5)


def make_network(
    seed: int = 1, buckets: int = 50, pairs: int = 2, maps: dict[str, int] | None = None, **options: Any
) -> Network:
    """A network of known sizes, none a multiple of a vector's; `maps` has the buckets of pairs with a random map."""
    architecture = Architecture(**{"attention_hidden": (18, 7), "head_hidden": (19, 5), **options})
    tables = dict([("id", (buckets, 9)), ("tag", (buckets + 3, 6)), ("third", (7, 17))][:pairs])
    rng = np.random.default_rng(seed)
    return Network(architecture, tables, draw_arrays(rng, tables, architecture), draw_maps(rng, tables, maps or {}))


def draw_values(rng: np.random.Generator, count: int, few: bool, text: bool) -> Ids:
    """Values of any size; `few` repeat."""
    if text:
        letters = rng.integers(0, 256, (5 if few else max(count, 1), 300), np.uint8)
        lengths = np.where(rng.random(len(letters)) < 0.5, rng.integers(0, 20, len(letters)), 300)
        texts = [bytes(row[:length]) for row, length in zip(letters, lengths, strict=True)]
        return np.array([texts[i] for i in rng.integers(0, len(texts), count)] + [b""], object)[:-1]
    values = rng.integers(-5, 5, count) if few else rng.integers(-(2**63), 2**63 - 1, count)
    return np.where(rng.random(count) < 0.1, rng.choice(np.array(EXTREMES), count), values)


def draw_raw(
    rng: np.random.Generator, histories: Sequence[int], candidates: int, *, few: bool = False, text: bool = False
) -> Raw:
    """A request with histories of the given lengths."""
    return Raw(
        tuple(draw_values(rng, length, few, text) for length in histories),
        tuple(draw_values(rng, candidates, few, text) for _ in histories),
    )


@st.composite
def raws(draw: st.DrawFn, pairs: int, most_candidates: int = 20, longest: int = 70) -> Raw:
    """Requests of any shape from no history and one candidate on, of numbers or text, different or repeating."""
    lengths = [draw(st.integers(0, longest)) for _ in range(pairs)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    candidates = draw(st.integers(1, most_candidates))
    return draw_raw(rng, lengths, candidates, few=draw(st.booleans()), text=draw(st.booleans()))
