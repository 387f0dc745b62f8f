"""The serving form of a trained network: it takes buckets, and has nothing that only training needs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.artifact import NORM_EPSILON
from service.training.din import Din
from service.training.layers import Dense
from service.training.vocabulary import Vocabulary


def to_served(
    din: Din, vocabularies: Mapping[str, Vocabulary] | None = None, scale: float = 1.0, shift: float = 0.0
) -> Din:
    """Make a plain network whose log-odds are scale * those of `din` in serving + shift; `din` stays as it is.

    Its tables are as compact as those of `din`, with sums where rows share a part.

    Args:
        din: trained, with tables of rows.
        vocabularies: which row each bucket has, by pair; by default tables have a row for every bucket already.
        scale: of the log-odds, from calibration (Platt, 1999).
        shift: the same.
    """
    embeddings = {name: din.embeddings(name) for name in din.tables}
    rows = {name: entries.shape[0] for name, (_, entries) in embeddings.items()}
    maps = {name: each.row for name, each in (vocabularies or {}).items()}
    served = Din(din.features, din.architecture, 0, rows, maps=maps)
    for name, (targets, entries) in embeddings.items():
        served.tables[name].assign(entries)
        if not din.architecture.shared_tables:
            served.target_tables[name].assign(targets)
    if din.architecture.item_bias:
        served.bias_id.assign(_values(din.biases()) * scale)
    for name, unit in served.units.items():
        _copy(din.units[name], unit)
    _copy(din.norm, served.norm)
    for trained, layer in zip(din.head.layers, served.head.layers, strict=True):
        _fold(trained, layer)
    last = served.head.layers[-1]
    last.kernel.assign(_values(last.kernel) * scale)
    last.bias.assign(_values(last.bias) * scale + shift)
    return served


def _fold(trained: Dense, layer: Dense) -> None:
    """Copy a layer; its batch normalisation is x * scale + shift, which its kernel and bias swallow."""
    kernel, bias = _values(trained.kernel), _values(trained.bias)
    if trained.norm is not None:
        norm = trained.norm
        scale = _values(norm.gamma) / np.sqrt(_values(norm.variance) + NORM_EPSILON)  # (units,)
        kernel, bias = kernel * scale, (bias - _values(norm.mean)) * scale + _values(norm.beta)
    layer.kernel.assign(kernel)
    layer.bias.assign(bias)
    if isinstance(trained.activation, tf.Module):
        _copy(trained.activation, layer.activation)


def _copy(source: Any, target: Any) -> None:
    """Copy the variables of one module to another of the same form."""
    for each, other in zip(source.variables, target.variables, strict=True):
        other.assign(each)


def _values(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.numpy(), np.float64)
