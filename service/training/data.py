"""Training data: recognise what a path holds, make samples of it and split them; lay samples out in mini-batches.

Dimension letters: N samples, n samples of one mini-batch or part, T and U longest history (ids, tags) in it.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.batch import Ids
from service.errors import DataError
from service.training import Samples, Split, events, ready, sizes, stream
from service.training.runs import runs
from service.training.sampling import Built, Sampling, build

TEST_PERCENT = 20
VALIDATION_PERCENT = 10  # of the training rows


class MiniBatch(NamedTuple):
    """Samples side by side; histories are padded with zero (or empty bytes) to the longest of them, at least 1."""

    seq_id: Ids  # (n, T)
    seq_tag: Ids  # (n, U)
    seq_id_length: NDArray[np.int32]  # (n,)
    seq_tag_length: NDArray[np.int32]  # (n,)
    target_id: Ids  # (n,)
    target_tag: Ids  # (n,)
    label: NDArray[np.float32]  # (n,)


def load(path: Path, seed: int, max_history: int = 50, sampling: Sampling = "next-item", negatives: int = 1) -> Split:
    """Read training data and split it into train, validation and test rows.

    `path` is a MovieLens folder (`events.movielens`), an interactions file, `.csv`, `.csv.gz` or `.parquet`
    (`events.interactions`), ready-made samples in a Parquet file (`ready`), or a folder of them (`stream`). Users are
    numbered from 0 in order of appearance. The same `seed` draws the same negatives and users.

    Events become samples as `sampling.build` says. By "next-item" each user's last 20 % are test rows and, of what is
    left, the last 10 % validation rows; by "ratings" 20 % of the users are test users and 10 % of the others validation
    users. Either way nothing of a user is learnt from the time of what that user is tested on, or later. Ready-made
    samples keep their order per user and their own split, and neither `sampling` nor `negatives` changes them.

    Raises:
        DataError: naming the file, line and column where there is one; or too little is left to split.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if not (path.is_dir() or path.is_file()):  # opening a pipe would wait for somebody to write
        raise DataError(f"{path.name}: is not a regular file")
    if stream.is_stream(path):
        return _checked(stream.load(path, max_history))
    with tqdm(total=3, desc="reading", unit="step", disable=None) as steps:
        if path.suffix == ".parquet" and "history_ids" in sizes.parquet_columns(path):
            split = _split_ready(path, max_history, steps)
        else:
            split = _split_events(path, seed, max_history, sampling, negatives, steps)
        steps.update()
    return _checked(split)


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


def _split_ready(path: Path, max_history: int, steps: "tqdm[Any]") -> Split:
    """By the column `split`; without validation rows in it the last train rows are that, by user and history."""
    frame = ready.read(path, max_history)
    _advance(steps, "building samples")
    samples = ready.to_samples(frame)
    order = np.argsort(samples.user, kind="stable")
    samples, frame = samples.take(order), frame[order]
    _advance(steps, "splitting")
    test, validation = ((frame["split"] == name).to_numpy() for name in ("test", "validation"))
    known = ~test & ~validation
    if not validation.any():
        history = frame["history_ids"].filter(known)
        unit = np.cumsum(history.ne_missing(history.shift()).to_numpy())
        validation = _within(known, last_rows(samples.user[known], unit, VALIDATION_PERCENT))
        known &= ~validation
    return Split(samples.take(known), samples.take(validation), samples.take(test), f"samples {path.name}")


def _split_events(
    path: Path, seed: int, max_history: int, sampling: Sampling, negatives: int, steps: "tqdm[Any]"
) -> Split:
    read, source = _events(path)
    _advance(steps, "building samples")
    built = build(read, seed, max_history, sampling, negatives)
    samples = built.samples
    if not len(samples):
        raise DataError(f"{source}: no sample: nobody liked an item while leaving {_others(negatives)} unseen")
    _advance(steps, "splitting")
    if sampling == "ratings":
        source = f"{source}, split by user"
        known, validation, test = _by_user(samples.user, seed, source)
    else:
        known, validation, test = _by_time(built)
    drawn = 0 if built.click_rate is None else negatives
    train, chosen, held = (samples.take(mask) for mask in (known, validation, test))
    return Split(train, chosen, held, source, built.click_rate, drawn)


def _others(number: int) -> str:
    return "another one" if number == 1 else f"{number} others"


def _by_time(built: Built) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Train, validation and test rows (N,). Rows at the very time of a row held out later are in none of them."""
    user, unit, time = built.samples.user, built.unit, built.time
    test = last_rows(user, unit, TEST_PERCENT)
    known = _before(test, user, time)
    validation = _within(known, last_rows(user[known], unit[known], VALIDATION_PERCENT))
    return known & _before(validation, user, time), validation, test


def _before(held: NDArray[np.bool_], user: NDArray[np.int64], time: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark, (N,), what is not of the same user and time as a `held` row, in rows by user and time."""
    moment = runs(user, time)[0]
    touched = np.zeros(len(held), bool)
    touched[moment[held]] = True
    return ~touched[moment]


def _within(chosen: NDArray[np.bool_], marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks (n,) of the `chosen` of N rows as marks (N,) of all of them."""
    every = np.zeros(len(chosen), bool)
    every[chosen] = marked
    return every


def _by_user(
    user: NDArray[np.int64], seed: int, source: str
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Train, validation and test rows (N,); each user's are in one of them, drawn at random, at least one user in each.

    Raises:
        DataError: fewer than three users.
    """
    users = np.random.default_rng(seed).permutation(np.unique(user))
    if len(users) < 3:  # noqa: PLR2004 - one for each part
        raise DataError(f"{source}: has {len(users)} users; splitting by user takes three or more")
    test = max(1, round(len(users) * TEST_PERCENT / 100))
    validation = test + max(1, round((len(users) - test) * VALIDATION_PERCENT / 100))
    parts = users[validation:], users[test:validation], users[:test]
    known, chosen, held = (np.isin(user, part) for part in parts)
    return known, chosen, held


def _checked(split: Split) -> Split:
    for name in ("test", "train", "validation"):  # the order held out, so that the first lack is named
        part: Samples = getattr(split, name)
        if not len(part):
            raise DataError(f"{split.source}: too few rows: no user has enough of them to leave any for {name}")
        if part.label.min() == part.label.max():
            raise DataError(f"{split.source}: every {name} row has label {part.label[0]:g}; both 0 and 1 are needed")
    return split
