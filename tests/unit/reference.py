"""The network of the DIN paper in numpy and double precision, as a textbook writes it: what engines are compared with.

Weights are arrays by role, as `service.engine.native.variables.shapes` lists them, not folded. Dimension letters:
C candidates, T history length (each pair its own), D embedding dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from service.artifact import Architecture
from service.engine.native.variables import shapes
from service.engine.native.weights import Layer, Neurons, Pair, Weights, fold

Doubles: TypeAlias = NDArray[np.float64]
Buckets: TypeAlias = NDArray[np.int64]
Maps: TypeAlias = dict[str, NDArray[np.int32]]  # which row each bucket has (buckets,), by pair
Answer: TypeAlias = tuple[Doubles, tuple[Doubles, ...]]  # probabilities (C,), attention of each pair (C, T)

NAMES = ("id", "tag", "third")
ACTIVATIONS = ("relu", "sigmoid", "prelu", "dice")
LONGEST = 40


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """An architecture with weights. Every weight is exact in float32, so that no engine starts with an error."""

    architecture: Architecture
    tables: dict[str, tuple[int, int]]  # rows and D of each pair by name, in the head's order
    arrays: dict[str, Doubles]  # by role
    maps: Maps = field(default_factory=dict)  # of pairs that have one; in others a bucket is a row

    def fold(self, dtype: DTypeLike = np.float32) -> Weights:
        """The weights as an engine takes them."""
        arrays: dict[str, Any] = {**self.arrays, **{f"rows_{name}": each for name, each in self.maps.items()}}
        return fold(arrays, self.architecture, tuple(self.tables), dtype)

    @property
    def buckets(self) -> dict[str, int]:
        """How many each pair has."""
        return {name: len(self.maps[name]) if name in self.maps else rows for name, (rows, _) in self.tables.items()}

    def row(self, name: str, bucket: Buckets) -> Any:
        """The rows of a pair's tables that buckets have."""
        return self.maps[name][bucket] if name in self.maps else bucket

    def __repr__(self) -> str:
        return f"Network({self.tables}, {self.architecture}, maps of {sorted(self.maps)})"


@dataclass(frozen=True, slots=True, eq=False)
class Hashed:
    """One request of values already hashed: a history and the candidates' values for each pair."""

    histories: tuple[Buckets, ...]  # (T,) each
    targets: tuple[Buckets, ...]  # (C,) each

    def __repr__(self) -> str:
        return f"Hashed({len(self.targets[0])} candidates, histories of {[len(each) for each in self.histories]})"


def forward(network: Network, request: Hashed) -> Answer:
    """Probabilities and attention, layer by layer, with nothing folded."""
    parts, attentions = [], []
    for name, history, target in zip(network.tables, request.histories, request.targets, strict=True):
        q = network.arrays[f"target_table_{name}"][network.row(name, target)]  # (C, D)
        k = network.arrays[f"table_{name}"][network.row(name, history)]  # (T, D)
        weights = _attention(network, f"attention_{name}", q, k)  # (C, T)
        attentions.append(weights)
        parts += _parts(weights @ k, q, product=network.architecture.product)
    x = np.concatenate(parts, 1)  # (C, inputs)
    gamma, beta, mean, variance = (network.arrays[f"norm.{part}"] for part in ("gamma", "beta", "mean", "variance"))
    x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    architecture = network.architecture
    logits = _mlp(network.arrays, "head", x, len(architecture.head_hidden), architecture.head_activation)
    if architecture.item_bias:
        logits = logits + network.arrays["item_bias"][network.row(next(iter(network.tables)), request.targets[0])]
    return sigmoid(logits), tuple(attentions)


def forward_folded(weights: Weights, request: Hashed) -> Answer:
    """The same from folded weights, in whatever precision they have."""
    parts, attentions = [], []
    for pair, history, target in zip(weights.pairs, request.histories, request.targets, strict=True):
        q, k = pair.target_table[_row(pair, target)], pair.table[_row(pair, history)]  # (C, D), (T, D)
        attentions.append(_folded_attention(pair, q, k))
        parts += _parts(attentions[-1] @ k, q, product=weights.product)
    bias = 0 if weights.bias is None else weights.bias[_row(weights.pairs[0], request.targets[0])]
    return sigmoid(_folded_mlp(weights.head, np.concatenate(parts, 1)) + bias), tuple(attentions)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)) of any x without overflow."""
    return np.exp(-np.logaddexp(0, -x))


def _row(pair: Pair, bucket: Buckets) -> Any:
    return bucket if pair.rows is None else pair.rows[bucket]


def _parts(pooled: Any, q: Any, *, product: bool) -> list[Any]:
    """What the head reads of a pair, (C, D) each."""
    return [pooled, q, pooled * q] if product else [pooled, q]


def _attention(network: Network, role: str, q: Doubles, k: Doubles) -> Doubles:
    """Formula 3 of the paper for every candidate: weights (C, T)."""
    architecture, (candidates, time) = network.architecture, (len(q), len(k))
    if architecture.pooling == "mean":
        return np.full((candidates, time), 1 / max(time, 1))
    queries = np.repeat(q[:, None], time, 1)  # (C, T, D)
    keys = np.repeat(k[None], candidates, 0)  # (C, T, D)
    x = np.concatenate([queries, keys, queries - keys, queries * keys], 2)  # (C, T, 4D)
    score = _mlp(network.arrays, role, x, len(architecture.attention_hidden), architecture.attention_activation)
    return _softmax(score) if architecture.softmax else score


def _mlp(arrays: Mapping[str, Doubles], role: str, x: Doubles, hidden: int, activation: str) -> Doubles:
    """(..., inputs) to (...)."""
    for i in range(hidden):
        x = x @ arrays[f"{role}.{i}.kernel"] + arrays[f"{role}.{i}.bias"]
        x = _activate(arrays, f"{role}.{i}", x, activation)
    return np.asarray((x @ arrays[f"{role}.{hidden}.kernel"] + arrays[f"{role}.{hidden}.bias"])[..., 0])


def _activate(arrays: Mapping[str, Doubles], role: str, x: Doubles, activation: str) -> Doubles:
    if activation == "relu":
        return np.maximum(x, 0)
    if activation == "sigmoid":
        return np.asarray(sigmoid(x))
    alpha = arrays[f"{role}.alpha"]
    if activation == "prelu":
        return np.where(x > 0, x, alpha * x)
    p = sigmoid((x - arrays[f"{role}.mean"]) / np.sqrt(arrays[f"{role}.variance"] + 1e-8))
    return np.asarray(p * x + (1 - p) * alpha * x)


def _softmax(score: Doubles) -> Doubles:
    """(C, T) to the same, each row adding up to 1, if there is an entry at all."""
    if not score.size:
        return score
    e = np.exp(score - score.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def _folded_attention(pair: Pair, q: Any, k: Any) -> Any:
    unit = pair.unit
    if unit is None:
        return np.full((len(q), len(k)), 1 / max(len(k), 1), q.dtype)
    kernel = unit.key + q[:, :, None] * unit.product  # (C, D, H1)
    x = _folded_activate(unit.first, k @ kernel + (q @ unit.query)[:, None])  # (C, T, H1)
    score = _folded_mlp(unit.rest, x)
    return _softmax(score) if unit.softmax else score


def _folded_mlp(layers: Sequence[Layer], x: Any) -> Any:
    for layer in layers:
        x = _folded_activate(layer, x @ layer.kernel)
    return x[..., 0]


def _folded_activate(neurons: Neurons, x: Any) -> Any:
    x = x + neurons.bias
    match neurons.activation:
        case "linear":
            return x
        case "relu":
            return np.maximum(x, 0)
        case "sigmoid":
            return sigmoid(x)
        case "prelu":
            return np.where(x > 0, x, neurons.alpha * x)
    p = sigmoid(x * neurons.scale + neurons.shift)
    return p * x + (1 - p) * neurons.alpha * x


def draw_arrays(
    rng: np.random.Generator, tables: Mapping[str, tuple[int, int]], architecture: Architecture
) -> dict[str, Doubles]:
    """Weights that make every part matter: attention uneven, probabilities spread, no unit asleep."""
    arrays = {}
    for role, shape in shapes(tables, architecture).items():
        if role.endswith(("variance", "gamma")):
            drawn = rng.uniform(0.25, 2.0, shape)
        elif role.endswith("kernel"):
            drawn = rng.normal(0, 1.5 / np.sqrt(shape[0]), shape)
        else:  # tables, biases, alpha, beta, mean
            drawn = rng.normal(0, 0.4, shape)
        arrays[role] = drawn.astype(np.float32).astype(np.float64)
    if architecture.shared_tables:
        arrays |= {f"target_table_{name}": arrays[f"table_{name}"] for name in tables}
    return arrays


def draw_maps(rng: np.random.Generator, tables: Mapping[str, tuple[int, int]], buckets: Mapping[str, int]) -> Maps:
    """A random map for each pair that `buckets` names; many buckets may have one row, and a row none."""
    return {name: rng.integers(0, tables[name][0], count).astype(np.int32) for name, count in buckets.items()}


def draw_request(rng: np.random.Generator, network: Network, histories: Sequence[int], candidates: int) -> Hashed:
    """A request with histories of the given lengths."""
    buckets = list(network.buckets.values())
    return Hashed(
        tuple(rng.integers(0, size, length) for size, length in zip(buckets, histories, strict=True)),
        tuple(rng.integers(0, size, candidates) for size in buckets),
    )


def _sizes(least: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, 70), min_size=least, max_size=3).map(tuple)


ARCHITECTURES = st.builds(
    Architecture,
    attention_hidden=_sizes(1),
    attention_activation=st.sampled_from(ACTIVATIONS),
    head_hidden=_sizes(0),
    head_activation=st.sampled_from(ACTIVATIONS),
    softmax=st.booleans(),
    shared_tables=st.booleans(),
    pooling=st.sampled_from(["attention", "attention", "attention", "mean"]),
    product=st.booleans(),
    item_bias=st.booleans(),
)


@st.composite
def networks(draw: st.DrawFn, pairs: st.SearchStrategy[int] | None = None, most_dimension: int = 40) -> Network:
    """Networks of any architecture; by default of 1 to 3 pairs, with a map or without."""
    architecture = draw(ARCHITECTURES)
    count = draw(st.integers(1, len(NAMES)) if pairs is None else pairs)
    sizes = [(draw(st.integers(1, 100)), draw(st.integers(1, most_dimension))) for _ in range(count)]
    tables = dict(zip(NAMES, sizes, strict=False))
    mapped = {name: draw(st.integers(1, 300)) for name in tables if draw(st.booleans())}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Network(architecture, tables, draw_arrays(rng, tables, architecture), draw_maps(rng, tables, mapped))


@st.composite
def requests(draw: st.DrawFn, network: Network, most_candidates: int = 20, longest: int = LONGEST) -> Hashed:
    """Requests to a network: histories of any length from none, each pair its own; at least one candidate."""
    lengths = [draw(st.integers(0, longest)) for _ in network.tables]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return draw_request(rng, network, lengths, draw(st.integers(1, most_candidates)))
