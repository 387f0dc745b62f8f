"""The weights of a version as arrays, folded as `service.training.folded` folds them: what the C code computes with.

Dimension letters: D embedding dimension, H1 units of the attention's first layer, F inputs of the head.
"""

from dataclasses import dataclass

from service.batch import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Neurons:
    """What a layer does to its sums: y = f(x + bias). Arrays are (units,), or (0,) where the activation has no use."""

    bias: Floats
    activation: str  # "linear", "relu", "sigmoid", "prelu" or "dice"
    alpha: Floats  # prelu: f(x) = x where x > 0, else alpha * x; dice: f(x) = p * x + (1 - p) * alpha * x
    scale: Floats  # dice: p = sigmoid(scale * x + shift)
    shift: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Layer(Neurons):
    """y = f(x @ kernel + bias)."""

    kernel: Floats  # (inputs, units)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """An attention unit; its first layer is first(key @ (key_kernel + diag(query) product) + query @ query_kernel)."""

    query: Floats  # (D, H1)
    key: Floats  # (D, H1)
    product: Floats  # (D, H1)
    first: Neurons  # (H1,)
    rest: tuple[Layer, ...]  # the last one is linear, of one unit
    softmax: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One kind of value, ids or tags: what embeds it, and what weighs its history against a target."""

    table: Floats  # (buckets, D), of the history
    target_table: Floats  # (buckets, D); the same object where the tables are shared
    unit: Unit | None  # None: the mean of the history


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A whole network: sigmoid(head([pooled, target] of each pair, concatenated in order)), (F,) to ()."""

    pairs: tuple[Pair, ...]  # of ids, of tags
    head: tuple[Layer, ...]  # batch normalisation is in the first; the last one is linear, of one unit
