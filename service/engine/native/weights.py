"""The weights of a version as arrays, folded as `service.training.folded` folds them: what the C code computes with.

Dimension letters: D embedding dimension, H1 units of the attention's first layer, F inputs of the head.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from service.artifact import DICE_EPSILON, NORM_EPSILON, Architecture
from service.batch import Floats

Array: TypeAlias = NDArray[Any]  # float32 as stored, float64 while folding

PAIRS = ("id", "tag")


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
    """An attention unit; f and bias of its first layer are `first`: f(k @ (key + diag(q) product) + q @ query + bias).

    k is an entry of the history and q the target, (D,) each.
    """

    query: Floats  # (D, H1)
    key: Floats  # (D, H1)
    product: Floats  # (D, H1)
    first: Neurons  # (H1,)
    rest: tuple[Layer, ...]  # the last one is linear, of one unit
    softmax: bool


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One kind of value, ids or tags: what embeds it, and what weighs its history against a target."""

    table: Floats  # (rows, D), of the history
    target_table: Floats  # (rows, D); the same object where the tables are shared
    unit: Unit | None  # None: the mean of the history
    rows: NDArray[np.int32] | None = None  # (buckets,) the row of each; None: that of its number


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A whole network: sigmoid(head([pooled, target] of each pair, concatenated in order) + bias), (F,) to ().

    With `product` the head reads [pooled, target, pooled * target] of each pair.
    """

    pairs: tuple[Pair, ...]  # of ids, of tags
    head: tuple[Layer, ...]  # batch normalisation is in the first; the last one is linear, of one unit
    bias: Floats | None  # (rows,) of the first pair's target; None: 0
    product: bool


def fold(
    arrays: Mapping[str, Array],
    architecture: Architecture,
    pairs: Sequence[str] = PAIRS,
    dtype: DTypeLike = np.float32,
) -> Weights:
    """Fold variables in float64; tables are not copied where they already have `dtype`.

    Args:
        arrays: every variable by role, in the shapes of `service.engine.native.variables.shapes`.
        architecture: what the variables are those of.
        pairs: the names of the pairs, in the order the head reads them.
        dtype: of the result.
    """
    folded = []
    for name in pairs:
        table, target = arrays[f"table_{name}"], arrays[f"target_table_{name}"]
        own = np.ascontiguousarray(table, dtype)
        unit = _fold_unit(arrays, name, architecture) if architecture.pooling == "attention" else None
        other = own if target is table else np.ascontiguousarray(target, dtype)
        rows = arrays.get(f"rows_{name}")
        rows = None if rows is None else np.ascontiguousarray(rows, np.int32)
        folded.append(Pair(own, other, _cast(unit, dtype), rows))
    bias = np.ascontiguousarray(arrays["item_bias"], dtype) if architecture.item_bias else None
    return Weights(tuple(folded), _cast(_fold_head(arrays, architecture), dtype), bias, architecture.product)


def _fold_unit(arrays: Mapping[str, Array], name: str, architecture: Architecture) -> Unit:
    """[q, k, q - k, q * k] @ [Wq; Wk; Wd; Wp] = q @ (Wq + Wd) + k @ (Wk - Wd + diag(q) Wp)."""
    hidden = len(architecture.attention_hidden)
    first, *rest = _layers(arrays, f"attention_{name}", hidden, architecture.attention_activation)
    wq, wk, wd, wp = np.split(first.kernel, 4)  # (D, H1) each
    neurons = Neurons(first.bias, first.activation, first.alpha, first.scale, first.shift)
    return Unit(wq + wd, wk - wd, wp, neurons, tuple(rest), architecture.softmax)


def _fold_head(arrays: Mapping[str, Array], architecture: Architecture) -> tuple[Layer, ...]:
    """Batch normalisation is x * scale + shift, and (x * scale + shift) @ W = x @ (scale W) + shift @ W."""
    first, *rest = _layers(arrays, "head", len(architecture.head_hidden), architecture.head_activation)
    gamma, beta, mean, variance = (_wide(arrays[f"norm.{part}"]) for part in ("gamma", "beta", "mean", "variance"))
    scale = gamma / np.sqrt(variance + NORM_EPSILON)  # (F,)
    shift = beta - mean * scale
    kernel: Array = first.kernel * scale[:, None]
    bias: Array = first.bias + shift @ first.kernel
    return replace(first, kernel=kernel, bias=bias), *rest


def _layers(arrays: Mapping[str, Array], role: str, hidden: int, activation: str) -> list[Layer]:
    return [_layer(arrays, f"{role}.{i}", activation if i < hidden else "linear") for i in range(hidden + 1)]


def _layer(arrays: Mapping[str, Array], role: str, activation: str) -> Layer:
    alpha = scale = shift = _wide(np.empty(0))
    if activation in ("prelu", "dice"):
        alpha = _wide(arrays[f"{role}.alpha"])
    if activation == "dice":  # (x - mean) / sqrt(variance + epsilon) is x * scale + shift
        scale = 1 / np.sqrt(_wide(arrays[f"{role}.variance"]) + DICE_EPSILON)
        shift = -_wide(arrays[f"{role}.mean"]) * scale
    kernel, bias = _wide(arrays[f"{role}.kernel"]), _wide(arrays[f"{role}.bias"])
    return Layer(bias, activation, alpha, scale, shift, kernel)


def _wide(array: Array) -> Array:
    return array.astype(np.float64)


_Value = TypeVar("_Value")


def _cast(value: _Value, dtype: DTypeLike) -> _Value:
    """The same value with every array in it contiguous and of `dtype`."""
    made: Any = value
    if isinstance(value, np.ndarray):
        made = np.ascontiguousarray(value, dtype)
    elif isinstance(value, tuple):
        made = tuple(_cast(each, dtype) for each in value)
    elif is_dataclass(value) and not isinstance(value, type):
        made = replace(value, **{each.name: _cast(getattr(value, each.name), dtype) for each in fields(value)})
    result: _Value = made
    return result


def arrays_of(value: object) -> Iterator[Array]:
    """Every array in weights or a part of them."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from arrays_of(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from arrays_of(getattr(value, field.name))
