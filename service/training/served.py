"""The serving form of a trained network: a table row for every bucket, and nothing that only training needs."""

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

    Args:
        din: trained, with tables of rows.
        vocabularies: which row each bucket has, by pair; by default tables have a row for every bucket already.
        scale: of the log-odds, from calibration (Platt, 1999).
        shift: the same.
    """
    served = Din(din.features, din.architecture, seed=0)
    for name, table in served.tables.items():
        row = vocabularies[name].row if vocabularies else slice(None)
        targets, entries = din.embeddings(name)
        table.assign(_values(entries)[row])
        if not din.architecture.shared_tables:
            served.target_tables[name].assign(_values(targets)[row])
        if din.architecture.item_bias and name == din.item:
            served.bias_id.assign((_values(din.biases()) * scale)[row])
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
