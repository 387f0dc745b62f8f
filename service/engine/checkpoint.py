"""What is checked of a version's checkpoint before any engine serves it: what a graph would hide, or fail at later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before the import: its banner is not for our log

import numpy as np
import tensorflow as tf

from service.errors import ArtifactError

SUFFIX: Final = "/.ATTRIBUTES/VARIABLE_VALUE"  # of every variable's key in a checkpoint
PAIRS: Final = ("id", "tag")


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
    maps = {variables[f"rows_{pair}"]: variables.get(f"table_{pair}") for pair in PAIRS if f"rows_{pair}" in variables}
    reader = _open(folder) if maps else None
    if reader is None:
        return
    shapes = reader.get_variable_to_shape_map()
    for rows, table in maps.items():
        if rows + SUFFIX not in shapes or not shapes.get(f"{table}{SUFFIX}"):
            continue  # misnamed, which is the native engine's business
        found, most = reader.get_tensor(rows + SUFFIX), shapes[f"{table}{SUFFIX}"][0]
        if (outside := found[(found < 0) | (found >= most)]).size:
            raise ArtifactError(
                f"{folder / 'variables'}: {rows} holds {outside[0]}, which is no row of tables of {most}"
            )


def _open(folder: Path) -> Any:
    """A reader of the checkpoint; None: the graph has no variables."""
    try:
        return tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    except (OSError, ValueError, RuntimeError, tf.errors.OpError):
        return None
