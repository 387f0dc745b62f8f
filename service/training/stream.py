"""Training data larger than memory: a folder of `part-*.parquet`, ready-made samples, loaded one part at a time.

Validation and test rows, in whichever parts they stand, are held in memory; train rows are not.
"""

from functools import partial
from pathlib import Path

import polars as pl
from tqdm import tqdm

from service.errors import DataError
from service.training import Samples, Split, files, ready, sizes

PARTS = "part-*.parquet"


def is_stream(path: Path) -> bool:
    """Tell a folder of parts from whatever else may be trained on."""
    return path.is_dir() and any(path.glob(PARTS))


def load(folder: Path, max_history: int) -> Split:
    """A split whose `train` is the train rows of the first part that has any; `shards` are those of all parts.

    Raises:
        DataError: naming the part, row and column, of the first part and of those with rows held out; a fault in
            another part comes up when that part is loaded. Or none of the parts has a row of some split, or those held
            out do not fit.
    """
    training: list[Path] = []
    held: list[pl.DataFrame] = []
    held_bytes = 0
    for path in tqdm(sorted(folder.glob(PARTS)), desc="reading", unit="part", disable=None):
        present = set(files.read_parquet(path, ["split"])["split"].unique())
        if present != {"train"}:  # read whole, which also checks the names
            held.append(_alike(path, ready.read(path, max_history), held).filter(pl.col("split") != "train"))
            held_bytes += int(held[-1].estimated_size())
            if held_bytes > sizes.most_bytes():
                raise DataError(f"{path.name}: validation and test rows, which are held in memory, are too many by now")
        if "train" in present:
            training.append(path)
    first = [_alike(path, _train_rows(path, max_history), held) for path in training[:1]]
    frame = pl.concat([*first, *held])
    missing = [name for name in ready.SPLITS if name not in frame["split"]]
    if missing:
        raise DataError(f"{folder.name}: too few rows: no part has any whose column split is {missing[0]}")
    samples = ready.to_samples(frame)
    train, validation, test = (samples.take((frame["split"] == name).to_numpy()) for name in ready.SPLITS)
    shards = tuple(partial(_load_part, path, max_history, frame.clear()) for path in training)
    return Split(train, validation, test, f"samples {folder.resolve().name}", shards=shards)


def _load_part(path: Path, max_history: int, like: pl.DataFrame) -> Samples:
    return ready.to_samples(_alike(path, _train_rows(path, max_history), [like]))


def _train_rows(path: Path, max_history: int) -> pl.DataFrame:
    return ready.read(path, max_history).filter(pl.col("split") == "train")


def _alike(path: Path, frame: pl.DataFrame, others: list[pl.DataFrame]) -> pl.DataFrame:
    """`frame` itself, if its columns have the types of the others'."""
    for name, dtype in others[0].schema.items() if others else ():
        if frame[name].dtype != dtype:
            raise DataError(f"{path.name}: column {name}: is {frame[name].dtype}, in other parts {dtype}")
    return frame
