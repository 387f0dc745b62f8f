"""Ready-made samples: Parquet files with a row for each sample, its history in it."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service.batch import Ids
from service.errors import DataError
from service.training import Samples, events, files

COLUMNS = (
    "user",
    "history_ids",
    "history_tags",
    "id",
    "tag",
    "label",
    "split",
)  # others, `probability` too, are nobody's
SPLITS = ("train", "validation", "test")


def read(path: Path, max_history: int) -> pl.DataFrame:
    """The columns of a file, checked, in the file's order.

    Ids are int64 or strings, labels float32, histories lists of the targets' type with the newest `max_history`.

    Raises:
        DataError: naming file, row and column.
    """
    frame = files.read_parquet(path, COLUMNS)
    split = frame["split"]
    if not isinstance(split.dtype, pl.String | pl.Categorical | pl.Enum):
        raise DataError(f"{path.name}: column split: is {split.dtype}, not strings")
    split = split.cast(pl.String)
    files.check(path, "split", split.is_in(SPLITS), "is unknown", split)
    user, target_id, target_tag = (events.text_or_integers(path, frame[name]) for name in ("user", "id", "tag"))
    return pl.DataFrame(
        {
            "user": user,
            "history_ids": _history(path, target_id, frame["history_ids"], max_history),
            "history_tags": _history(path, target_tag, frame["history_tags"], max_history),
            "id": target_id,
            "tag": target_tag,
            "label": events.labels(path, frame["label"]),
            "split": split,
        }
    )


def to_samples(frame: pl.DataFrame) -> Samples:
    """What `read` gave as samples, in the same order; users are numbered by appearance."""
    event_id, id_start, id_stop = _flat(frame["history_ids"])
    event_tag, tag_start, tag_stop = _flat(frame["history_tags"])
    return Samples(
        event_id=event_id,
        event_tag=event_tag,
        id_start=id_start,
        id_stop=id_stop,
        tag_start=tag_start,
        tag_stop=tag_stop,
        target_id=_values(frame["id"]),
        target_tag=_values(frame["tag"]),
        label=frame["label"].to_numpy(),
        user=events.number(frame["user"])[0],
    )


def _history(path: Path, target: pl.Series, history: pl.Series, max_history: int) -> pl.Series:
    name = history.name
    if not isinstance(history.dtype, pl.List | pl.Array):
        raise DataError(f"{path.name}: column {name}: is {history.dtype}, not a list")
    inner: Any = history.dtype.inner
    wanted = pl.List(target.dtype)
    history = history.cast(pl.List(inner))
    if not history.list.len().sum():
        return history.cast(pl.List(pl.Null)).cast(wanted)  # an empty list says nothing of its type
    files.check(path, name, _nulls(history) == 0, "has a null in the list")
    kind = events.identity(path, name, inner)
    if kind != target.dtype:
        raise DataError(f"{path.name}: column {name}: holds {kind.__name__}, column {target.name} {target.dtype}")
    values = history.cast(wanted, strict=False)
    files.check(path, name, _nulls(values) == 0, "has a number that does not fit in 64 bits")
    return values.list.tail(max_history)


def _nulls(history: pl.Series) -> pl.Series:
    """How many elements of each list are null."""
    return history.list.len() - history.list.drop_nulls().list.len()


def _flat(history: pl.Series) -> tuple[Ids, NDArray[np.int64], NDArray[np.int64]]:
    """Lists in one array (E,), and where each starts and stops in it, (N,)."""
    length = history.list.len()
    stop = np.cumsum(length.to_numpy(), dtype=np.int64)
    return _values(history.filter(length > 0).explode()), np.concatenate([[0], stop[:-1]]), stop


def _values(column: pl.Series) -> Ids:
    if column.dtype == pl.Int64:
        return column.to_numpy()
    numbers, distinct = events.number(column)
    return distinct[numbers]  # equal strings are one bytes object
