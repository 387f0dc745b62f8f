"""Training data: recognise what a path holds, make samples of it and split them; lay samples out in mini-batches.

Dimension letters: N samples, n samples of one mini-batch, T and U longest history (ids, tags) in it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from tqdm import tqdm

from service.batch import Ids
from service.errors import DataError
from service.training import Samples, Split, events, files
from service.training.runs import runs

TEST_PERCENT = 20
VALIDATION_PERCENT = 10  # of the training rows
READY_MADE = ("user", "history_ids", "history_tags", "id", "tag", "label", "split")


class MiniBatch(NamedTuple):
    """Samples side by side; histories are padded with zero (or empty bytes) to the longest of them, at least 1."""

    seq_id: Ids  # (n, T)
    seq_tag: Ids  # (n, U)
    seq_id_length: NDArray[np.int32]  # (n,)
    seq_tag_length: NDArray[np.int32]  # (n,)
    target_id: Ids  # (n,)
    target_tag: Ids  # (n,)
    label: NDArray[np.float32]  # (n,)


def load(path: Path, seed: int, max_history: int = 50) -> Split:
    """Read training data and split it by time within each user: last 20 % test, then last 10 % validation.

    `path` is a MovieLens folder (`events.movielens`), an interactions file, `.csv`, `.csv.gz` or `.parquet`
    (`events.interactions`), or a Parquet file of ready-made samples, which keep their order per user and their own
    split. Users are numbered from 0 in order of appearance. The same `seed` draws the same negatives (`events.build`).

    Raises:
        DataError: naming the file, line and column where there is one; or too little is left to split.
    """
    with tqdm(total=3, desc="reading", unit="step", disable=None) as steps:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")
        if path.suffix == ".parquet" and "history_ids" in files.parquet_columns(path):
            samples, unit, test = _ready_made(path, max_history)
            source = f"samples {path.name}"
        else:
            read, source = _events(path)
            _advance(steps, "building samples")
            samples, unit = events.build(read, seed, max_history)
            if not len(samples):
                raise DataError(f"{source}: no sample: nobody liked an item while leaving another one unseen")
            test = last_rows(samples.user, unit, TEST_PERCENT)
        _advance(steps, "splitting")
        split = _split(samples, unit, test, source)
        steps.update()
    return split


def last_rows(user: NDArray[np.int64], unit: NDArray[np.int64], percent: int) -> NDArray[np.bool_]:
    """Mark, (N,), the last `percent` of each user's rows, rounded up to whole units.

    Rows come by user and, inside, by unit. A user's first unit is never marked: nobody is held out whole.
    """
    first, stop = runs(user)
    rows = stop - first
    cut = stop + (-rows * percent) // 100  # whole numbers: 0.1 * 30 is above 3
    unit_first, unit_stop = runs(user, unit)
    return (unit_stop > cut) & (unit_first > first)


def gather(samples: Samples, index: NDArray[Any]) -> MiniBatch:
    """Lay out the samples at `index` (n,) as one mini-batch. Event and target arrays may be of any dtype."""
    part = samples.take(index)
    seq_id, id_length = _pad(part.event_id, part.id_start, part.id_stop)
    seq_tag, tag_length = _pad(part.event_tag, part.tag_start, part.tag_stop)
    return MiniBatch(seq_id, seq_tag, id_length, tag_length, part.target_id, part.target_tag, part.label)


def _pad(flat: Ids, start: NDArray[np.int64], stop: NDArray[np.int64]) -> tuple[Ids, NDArray[np.int32]]:
    """Slices of `flat` as rows (n, T), and how long each really is (n,)."""
    length = stop - start
    column = np.arange(max(1, length.max(initial=0)))
    real = column < length[:, None]  # (n, T)
    padded = np.full(real.shape, b"" if flat.dtype == object else 0, flat.dtype)
    padded[real] = flat[(start[:, None] + column)[real]]
    return padded, length.astype(np.int32)


def _advance(steps: "tqdm[Any]", name: str) -> None:
    steps.update()
    steps.set_description(name)


def _events(path: Path) -> tuple[events.Events, str]:
    """The events that `path` holds, and what the manifest says of them."""
    if path.is_dir():
        return events.movielens(path), f"MovieLens {path.resolve().name}, ratings >= {events.LIKED_RATING:g}"
    if path.name.endswith((".csv", ".csv.gz", ".parquet")):
        return events.interactions(path), f"interactions {path.name}"
    raise DataError(f"{path.name}: is neither a MovieLens folder nor a .csv, .csv.gz or .parquet file")


def _ready_made(path: Path, max_history: int) -> tuple[Samples, NDArray[np.int64], NDArray[np.bool_]]:
    """Samples by user as the file has them, their units (a user's neighbours with one history), and which are test."""
    frame = files.read_parquet(path, READY_MADE)
    files.check(path, "split", frame["split"].cast(pl.String).is_in(["train", "test"]), "is unknown", frame["split"])
    label = events.labels(path, frame["label"])
    target_id, event_id, id_start, id_stop = _history(path, frame["id"], frame["history_ids"], max_history)
    target_tag, event_tag, tag_start, tag_stop = _history(path, frame["tag"], frame["history_tags"], max_history)
    user = events.number(events.text_or_integers(path, frame["user"]))[0]
    samples = Samples(event_id, event_tag, id_start, id_stop, tag_start, tag_stop, target_id, target_tag, label, user)
    order = np.argsort(user, kind="stable")
    history = frame["history_ids"].gather(order)
    unit = np.cumsum(history.ne_missing(history.shift()).to_numpy())
    return samples.take(order), unit, (frame["split"] == "test").to_numpy()[order]


def _history(
    path: Path, target: pl.Series, history: pl.Series, max_history: int
) -> tuple[Ids, Ids, NDArray[np.int64], NDArray[np.int64]]:
    """Targets (N,), histories in one array (E,), and where the newest `max_history` of each start and stop (N,)."""
    if not isinstance(history.dtype, pl.List | pl.Array):
        raise DataError(f"{path.name}: column {history.name}: is {history.dtype}, not a list")
    history = history.cast(pl.List(history.dtype.inner))
    files.check(path, history.name, ~history.list.eval(pl.element().is_null()).list.any(), "has a null in the list")
    newest = history.list.tail(max_history)
    flat = newest.filter(newest.list.len() > 0).explode()
    targets = events.text_or_integers(path, target)
    values = events.text_or_integers(path, flat) if len(flat) else flat.cast(targets.dtype)
    if values.dtype != targets.dtype:
        raise DataError(
            f"{path.name}: column {history.name}: holds {values.dtype}, column {target.name} {targets.dtype}"
        )
    stop = np.cumsum(newest.list.len().to_numpy(), dtype=np.int64)
    return _values(targets), _values(values), np.concatenate([[0], stop[:-1]]), stop


def _values(column: pl.Series) -> Ids:
    numbers, distinct = events.number(column)
    return distinct[numbers]  # equal strings are one bytes object


def _split(samples: Samples, unit: NDArray[np.int64], test: NDArray[np.bool_], source: str) -> Split:
    known = samples.take(~test)
    validation = last_rows(known.user, unit[~test], VALIDATION_PERCENT)
    split = Split(known.take(~validation), known.take(validation), samples.take(test), source)
    for name in ("test", "train", "validation"):  # the order held out, so that the first lack is named
        part: Samples = getattr(split, name)
        if not len(part):
            raise DataError(f"{source}: too few rows: no user has enough of them to leave any for {name}")
        if part.label.min() == part.label.max():
            raise DataError(f"{source}: every {name} row has label {part.label[0]:g}; both 0 and 1 are needed")
    return split
