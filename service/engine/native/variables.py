"""The variables of a version: what roles they play in the network, and how they are read.

A manifest's `variables` names the checkpoint's key of every role that `shapes` lists.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np

from service.artifact import LEARNED, MANIFEST, Activation, Architecture, Manifest
from service.engine.checkpoint import SUFFIX, outside
from service.engine.native import stored
from service.engine.native.stored import Place
from service.engine.native.weights import Array, Weights, arrays_of, fold
from service.errors import ArtifactError

Shape: TypeAlias = tuple[int, ...]


def shapes(
    tables: Mapping[str, tuple[int, int]], architecture: Architecture, maps: Mapping[str, int] | None = None
) -> dict[str, Shape]:
    """The shape of every variable by role, for pairs by name and the (rows, D) of their tables.

    `table_id` embeds the history and `target_table_id` the target; `rows_id`, int32, is the row that each bucket has in
    both, and where `maps` does not tell how many buckets it has, each bucket has a row. `attention_id.0.kernel` belongs
    to the first layer of the attention unit, `head.0.kernel` to that of the head; the layer after the hidden ones has
    one unit. Layers have `kernel` and `bias`; before a prelu `alpha` too, before a dice `alpha`, `mean` and `variance`.
    The batch normalisation before the head is `norm.gamma`, `norm.beta`, `norm.mean` and `norm.variance`. What
    `item_bias` adds to the log-odds is that of the row of the first pair's target.
    """
    found: dict[str, Shape] = {}
    for name, (rows, dimension) in tables.items():
        found |= {f"table_{name}": (rows, dimension), f"target_table_{name}": (rows, dimension)}
        if architecture.pooling == "attention":
            sizes = (4 * dimension, *architecture.attention_hidden, 1)
            found |= _mlp_shapes(f"attention_{name}", sizes, architecture.attention_activation)
    found |= {f"rows_{name}": (buckets,) for name, buckets in (maps or {}).items()}
    if architecture.item_bias:
        found["item_bias"] = next(iter(tables.values()))[:1]
    inputs = (3 if architecture.product else 2) * sum(dimension for _, dimension in tables.values())
    found |= {f"norm.{part}": (inputs,) for part in ("gamma", "beta", "mean", "variance")}
    return found | _mlp_shapes("head", (inputs, *architecture.head_hidden, 1), architecture.head_activation)


def _mlp_shapes(role: str, sizes: Sequence[int], activation: Activation) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for i, (inputs, units) in enumerate(pairwise(sizes)):
        found |= {f"{role}.{i}.kernel": (inputs, units), f"{role}.{i}.bias": (units,)}
        if i < len(sizes) - 2:
            found |= {f"{role}.{i}.{part}": (units,) for part in LEARNED[activation]}
    return found


def read_weights(version: Path, manifest: Manifest, places: Sequence[Place] | None = None) -> Weights:
    """Read a version's variables and fold them.

    Args:
        version: its folder.
        manifest: its manifest.
        places: where `find_variables` has found them, in a process that has proven them.

    Raises:
        ArtifactError: the manifest does not describe the network, or the variables are not what it describes.
    """
    architecture, variables = manifest.architecture, manifest.variables
    if architecture is None or variables is None:
        missing = "architecture" if architecture is None else "variables"
        raise ArtifactError(f"{version / MANIFEST}: {missing}: not given, so its weights cannot be told apart")
    features = {"id": manifest.features.id, "tag": manifest.features.tag}
    tables = {name: (each.buckets, each.dimension) for name, each in features.items()}
    maps = {name: each.buckets for name, each in features.items() if f"rows_{name}" in variables}
    wanted = shapes(tables, architecture, maps).keys()
    for role in sorted(wanted ^ variables.keys()):
        problem = "missing" if role in wanted else "the architecture has no such variable"
        raise ArtifactError(f"{version / MANIFEST}: variables.{role}: {problem}")
    proven = places is not None
    found = read_variables(version, variables) if places is None else stored.read(version / "variables", places)
    arrays = _by_role(found, variables)
    tables |= {name: (_length(arrays[f"table_{name}"]), features[name].dimension) for name in maps}
    for role, shape in shapes(tables, architecture, maps).items():
        rows = tables[role.removeprefix("rows_")][0] if role.startswith("rows_") else None
        if wrong := _misfit(arrays[role], shape, rows) or (None if proven else _problem(role, arrays[role], rows)):
            raise ArtifactError(f"{version / 'variables'}: {variables[role]} ({role}) {wrong}")
    with np.errstate(all="ignore"):  # what overflows is found in the result
        weights = fold(arrays, architecture)
    if not proven and not all(np.isfinite(each).all() for each in arrays_of(weights)):
        raise ArtifactError(f"{version / 'variables'}: weights too large to be folded in float32")
    return weights


def read_variables(version: Path, variables: Mapping[str, str]) -> list[Array]:
    """The variables that a manifest names, each once, by the order of their keys.

    Raises:
        ArtifactError: they cannot be read.
    """
    import tensorflow as tf

    folder = version / "variables"
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables"))
        shapes_by_name = reader.get_variable_to_shape_map()
        for role, key in variables.items():
            if key + SUFFIX not in shapes_by_name:
                raise ArtifactError(f"{folder}: {key} ({role}) is missing")
        return [np.asarray(reader.get_tensor(key + SUFFIX)) for key in _keys(variables)]
    except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
        raise ArtifactError(f"{folder}: cannot be read: {(str(error).splitlines() or [''])[0]}") from error


def find_variables(version: Path, variables: Mapping[str, str]) -> list[Place] | None:
    """Where in a version's files `read_variables` finds what it does; None if that cannot be told.

    Raises:
        ArtifactError: they cannot be read.
    """
    arrays = read_variables(version, variables)
    return stored.find(version / "variables", [key + SUFFIX for key in _keys(variables)], arrays)


def _keys(variables: Mapping[str, str]) -> list[str]:
    return sorted(set(variables.values()))


def _by_role(arrays: Sequence[Array], variables: Mapping[str, str]) -> dict[str, Array]:
    """One object where two roles are one variable."""
    by_key = dict(zip(_keys(variables), arrays, strict=True))
    return {role: by_key[key] for role, key in variables.items()}


def _length(array: Array) -> int:
    return len(array) if array.ndim else 0


def _misfit(array: Array, shape: Shape, rows: int | None) -> str | None:
    """Why a variable is none of this shape, as the rest of a sentence; a map is one of tables with `rows`."""
    dtype = np.dtype(np.float32 if rows is None else np.int32)
    if array.dtype != dtype:
        return f"is {array.dtype}, not {dtype}"
    if array.shape != shape:
        return f"has the shape {array.shape}, not {shape}"
    return None


def _problem(role: str, array: Array, rows: int | None) -> str | None:
    """What is wrong with a variable's numbers, if anything, as the rest of a sentence."""
    if not np.isfinite(array).all():
        return "holds NaN or infinity"
    if role.endswith("variance") and (array < 0).any():
        return "is negative somewhere"
    return None if rows is None else outside(array, rows)
