"""What is checked of a version's checkpoint before any engine serves it: what a graph would hide, or fail at later."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.errors import ArtifactError

SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"  # of every variable's key in a checkpoint


def check_numbers(folder: Path) -> None:
    """A training that has diverged leaves NaN, which graphs hide: relu may well make it zero.

    Raises:
        ArtifactError: a variable of the SavedModel in `folder` holds NaN.
    """
    reader = _open(folder)
    for name, dtype in reader.get_variable_to_dtype_map().items() if reader else ():
        if dtype.is_floating and np.isnan(reader.get_tensor(name)).any():
            raise ArtifactError(f"{folder / 'variables'}: {name.partition('/.')[0]} holds NaN")


def check_maps(folder: Path, variables: Mapping[str, str]) -> None:
    """A row outside its table fails the requests that meet its bucket, of which the golden ones need not be.

    Raises:
        ArtifactError: a map from buckets to rows that the manifest's `variables` name leaves its tables.
    """
    maps = {
        key: variables.get(role.replace("rows_", "table_", 1))
        for role, key in variables.items()
        if role.startswith("rows_")
    }
    reader = _open(folder) if maps else None
    if reader is None:
        return
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    for rows, table in maps.items():
        if rows + SUFFIX not in dtypes or not dtypes[rows + SUFFIX].is_integer or not shapes.get(f"{table}{SUFFIX}"):
            continue  # misnamed, which is the native engine's business
        found = outside(reader.get_tensor(rows + SUFFIX), shapes[f"{table}{SUFFIX}"][0])
        if found is not None:
            raise ArtifactError(f"{folder / 'variables'}: {rows} {found}")


def outside(rows: NDArray[np.int32], most: int) -> str | None:
    """That a map, of any shape, names a row that tables of `most` do not have, as the rest of a sentence."""
    found = rows[(rows < 0) | (rows >= most)]
    return f"holds {found[0]}, which is no row of tables of {most}" if found.size else None


def _open(folder: Path) -> Any:
    """A reader of the checkpoint; None: the graph has no variables."""
    import tensorflow as tf

    try:
        return tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError):
        return None
