"""Events (who met which item, when, and liked it or not) as read from files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from service import inputs
from service.batch import Ids
from service.errors import DataError
from service.training import files, sizes

LIKED_RATING = 4.0
INTERACTION = ("user", "item", "tag", "timestamp")


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """M events in file order. Users, items and tags are numbered from 0; `items` and `tags` say which they are."""

    user: NDArray[np.int64]  # (M,)
    item: NDArray[np.int64]  # (M,), by first appearance
    tag: NDArray[np.int64]  # (M,)
    time: NDArray[Any]  # (M,) int64 or float64; only its order matters
    liked: NDArray[np.bool_]  # (M,)
    items: Ids  # (V,)
    tags: Ids  # (W,)
    impressions: bool  # what was not liked was shown and refused: the negatives are there, none is drawn


def movielens(folder: Path) -> Events:
    """Read the ratings and movies of a MovieLens folder; an event's tag is the movie's first genre.

    Genres are numbered from 1 in alphabetical order of all names, "(no genres listed)" among them.

    Raises:
        DataError: naming file, line and column.
    """
    ratings_path = _either(folder, "ratings.csv")
    ratings = files.read_csv(
        ratings_path, {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
    )
    movies_path = _either(folder, "movies.csv")
    movies, genres = _genres(movies_path)
    tag = ratings.join(movies, on="movieId", how="left", maintain_order="left")["tag"]
    files.check(
        ratings_path, "movieId", tag.is_not_null(), f"is not in {movies_path.name}: no genre", ratings["movieId"]
    )
    item, items = number(ratings["movieId"])
    return Events(
        user=number(ratings["userId"])[0],
        item=item,
        tag=tag.to_numpy(),
        time=ratings["timestamp"].to_numpy(),
        liked=(ratings["rating"] >= LIKED_RATING).to_numpy(),
        items=items,
        tags=np.arange(1, genres + 1),
        impressions=False,
    )


def movies(folder: Path) -> pl.DataFrame:
    """Columns id, tag and title of each movie of a MovieLens folder, with the tags that `movielens` gives them.

    Raises:
        DataError: naming file, line and column.
    """
    path = _either(folder, "movies.csv")
    titles = files.read_csv(path, {"movieId": pl.Int64, "title": pl.String})
    tagged = titles.join(_genres(path)[0], on="movieId", maintain_order="left")
    return tagged.select(id="movieId", tag=pl.col("tag") + 1, title="title")


def interactions(path: Path) -> Events:
    """Read a CSV or Parquet file with columns user, item, tag, timestamp and optionally label.

    Without `label` every row is something liked. With it, 1 is liked and 0 is shown and not liked: each row becomes a
    sample of its own and no negative is drawn, because what was really refused teaches more than a random item.

    Raises:
        DataError: naming file, line (Parquet: row) and column.
    """
    parquet = path.suffix == ".parquet"
    present = sizes.parquet_columns(path) if parquet else inputs.header(path)
    labelled = "label" in present
    if parquet:
        frame = files.read_parquet(path, [*INTERACTION, "label"] if labelled else INTERACTION)
        frame = frame.with_columns(text_or_integers(path, frame[name]) for name in ("user", "item", "tag"))
    else:
        label: dict[str, files.Kind] = {"label": pl.Float64} if labelled else {}
        frame = files.read_csv(path, dict.fromkeys(INTERACTION, pl.String) | label)
        frame = frame.with_columns(files.as_integers(frame[name]) for name in ("user", "item", "tag"))
    (item, items), (tag, tags) = number(frame["item"]), number(frame["tag"])
    liked = labels(path, frame["label"]) > 0 if labelled else np.ones(len(frame), bool)
    return Events(number(frame["user"])[0], item, tag, _times(path, frame["timestamp"]), liked, items, tags, labelled)


def number(column: pl.Series) -> tuple[NDArray[np.int64], Ids]:
    """Number the values of a column from 0 in order of appearance: numbers (N,), and the values (V,) they stand for."""
    distinct = column.unique(maintain_order=True)
    positions = pl.Series(np.arange(len(distinct)))
    numbers = column.replace_strict(distinct, positions, return_dtype=pl.Int64).to_numpy()
    if column.dtype == pl.Int64:
        return numbers, distinct.to_numpy()
    return numbers, np.array(distinct.cast(pl.Binary).to_list(), object)


def text_or_integers(path: Path, column: pl.Series) -> pl.Series:
    """A Parquet column of any integer type as int64, of any text type as strings.

    Raises:
        DataError: it is neither, or an integer does not fit in 64 bits.
    """
    kind = identity(path, column.name, column.dtype)
    values = column.cast(kind, strict=False)
    files.check(path, column.name, values.is_not_null(), "does not fit in 64 bits", column)
    return values


def identity(path: Path, name: str, dtype: pl.DataType) -> type[pl.Int64] | type[pl.String]:
    """As what a column of ids is read, of its type in a Parquet file.

    Raises:
        DataError: it holds neither integers nor text.
    """
    if dtype.is_integer():
        return pl.Int64
    if isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return pl.String
    raise DataError(f"{path.name}: column {name}: is {dtype}, not integers or strings")


def labels(path: Path, column: pl.Series) -> NDArray[np.float32]:
    """A column of labels as 0 and 1, (N,).

    Raises:
        DataError: it holds anything else.
    """
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        raise DataError(f"{path.name}: column {column.name}: is {column.dtype}, not 0 and 1")
    files.check(path, column.name, column.cast(pl.Float64).is_in([0.0, 1.0]), "is neither 0 nor 1", column)
    return column.cast(pl.Float32).to_numpy()


def _either(folder: Path, name: str) -> Path:
    found = next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)
    if found is None:
        raise DataError(f"{folder.name}: has neither {name} nor {name}.gz, so it is no MovieLens folder")
    return found


def _genres(path: Path) -> tuple[pl.DataFrame, int]:
    """Columns movieId and tag (first genre, numbered from 0 alphabetically), and the number of genres there are."""
    movies = files.read_csv(path, {"movieId": pl.Int64, "genres": pl.String})
    files.check(path, "movieId", movies["movieId"].is_first_distinct(), "appears twice", movies["movieId"])
    names = movies["genres"].str.split("|")
    ordered = names.explode().unique().sort()
    tag = names.list.first().replace_strict(ordered, pl.Series(np.arange(len(ordered))), return_dtype=pl.Int64)
    return movies.select("movieId", tag.alias("tag")), len(ordered)


def _times(path: Path, column: pl.Series) -> NDArray[Any]:
    if column.dtype.is_temporal():
        return column.to_physical().to_numpy()
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        raise DataError(f"{path.name}: column {column.name}: is {column.dtype}, not a number or a time")
    whole = column.cast(pl.Int64, strict=False)
    if (column.dtype.is_integer() or column.dtype == pl.String) and not whole.null_count():
        return whole.to_numpy()  # nanoseconds since 1970 would lose their last digits as float64
    times = column.cast(pl.Float64, strict=False)
    files.check(path, column.name, times.is_finite(), "is not a finite number", column)
    return times.to_numpy()
