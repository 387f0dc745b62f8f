"""The native engine: a version's weights, computed by C written for this network, without TensorFlow."""

from __future__ import annotations  # the names of _forward, which may not be built

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from service.artifact import Manifest
from service.batch import Floats, Ids, RaggedBatch, Sample
from service.engine.native.stored import Place
from service.engine.native.variables import read_weights
from service.engine.native.weights import Neurons, Unit, Weights
from service.errors import ArtifactError

PROBLEM = None
try:
    from service.engine.native import _forward
except ImportError as error:  # installed where there was no compiler, or for another machine
    missing = error.name == __name__  # Python then speaks of a circular import
    PROBLEM = "it was not built when this was installed" if missing else str(error)

ACTIVATIONS = ("linear", "relu", "sigmoid", "prelu", "dice")  # in the order of forward.c


class NativeEngine:
    """Calls the C code: requests go in as they are, without padding, and there is nothing to compile.

    Args:
        weights: folded.
        level: the instruction set; None takes the widest of this machine.
    """

    name = "native"
    explains = True
    fallback_reason = None

    def __init__(self, weights: Weights, level: str | None = None) -> None:
        pairs = tuple(
            (pair.table, pair.target_table, _unit(pair.unit) if pair.unit else None, pair.rows)
            for pair in weights.pairs
        )
        head = tuple(_layer(layer, layer.kernel) for layer in weights.head)
        self._model = _forward.Model(pairs, head, weights.bias, weights.product, level)

    @property
    def level(self) -> str:
        """The instruction set in use."""
        return self._model.level

    def pack(self, samples: Sequence[Sample]) -> RaggedBatch:
        """Nothing to lay out."""
        return RaggedBatch(tuple(samples))

    def run(self, batch: RaggedBatch) -> Floats:
        """Probabilities (N,) of the batch's candidates, one sample's after the other's."""
        probability = np.empty(sum(batch.rows), np.float32)
        self._model.run(_requests(batch), probability)
        return probability

    def explain(self, batch: RaggedBatch) -> tuple[Floats, Floats, Floats]:
        """Probabilities (N,), attention (N, T) and (N, U), T and U the longest histories of the batch."""
        probability = np.empty(sum(batch.rows), np.float32)
        ids = np.empty((len(probability), max(len(each.seq_id) for each in batch.samples)), np.float32)
        tags = np.empty((len(probability), max(len(each.seq_tag) for each in batch.samples)), np.float32)
        self._model.run(_requests(batch), probability, (ids, tags))
        return probability, ids, tags

    def warm(self) -> None:
        """Nothing compiles on first use."""

    def compilations(self) -> int:
        """None, ever."""
        return 0

    def close(self) -> None:
        """The memory goes when nothing runs on it any more."""


def load(version: Path, manifest: Manifest, places: Sequence[Sequence[Any]] | None = None) -> NativeEngine:
    """Load a version.

    Args:
        version: its folder.
        manifest: its manifest.
        places: where its variables are, as told by a process that has loaded and proven it.

    Raises:
        ArtifactError: the C code is not there, or the version's network is not one that it computes.
    """
    if PROBLEM:
        raise ArtifactError(f"no native engine: {PROBLEM}")
    weights = read_weights(version, manifest, None if places is None else [Place(*each) for each in places])
    try:
        return NativeEngine(weights)
    except (ValueError, MemoryError) as error:
        raise ArtifactError(f"{version}: too large for the native engine: {error}") from error


def _requests(batch: RaggedBatch) -> tuple[tuple[Ids, ...], ...]:
    return tuple([(each.seq_id, each.seq_tag, each.target_id, each.target_tag) for each in batch.samples])


def _unit(unit: Unit) -> _forward.Unit:
    layers = _layer(unit.first, None), *(_layer(layer, layer.kernel) for layer in unit.rest)
    return unit.query, unit.key, unit.product, layers, unit.softmax


def _layer(layer: Neurons, kernel: Floats | None) -> _forward.Layer:
    if kernel is not None and kernel.shape[1] == 1 and layer.activation == "linear":
        kernel = kernel[:, 0]  # the last layer of a network
    return kernel, layer.bias, ACTIVATIONS.index(layer.activation), layer.alpha, layer.scale, layer.shift
