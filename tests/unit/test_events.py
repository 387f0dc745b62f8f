import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from service.errors import DataError
from service.training import events

MOVIES = "movieId,title,genres\n10,A,Drama|Action\n20,B,(no genres listed)\n30,C,Comedy\n40,D,Action\n"
RATINGS = "userId,movieId,rating,timestamp\n"


def _movielens(folder: Path, ratings: str, movies: str = MOVIES) -> events.Events:
    (folder / "ratings.csv").write_text(RATINGS + ratings)
    (folder / "movies.csv").write_text(movies)
    return events.movielens(folder)


def _interactions(path: Path, columns: dict[str, Any]) -> events.Events:
    frame = pl.DataFrame(columns, strict=False)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return events.interactions(path)


def test_movielens_numbers_first_genres(tmp_path: Path) -> None:
    """A tag is the first genre, numbered from 1 in alphabetical order of all names that occur."""
    read = _movielens(tmp_path, "7,40,4.0,1\n7,10,3.5,2\n5,20,5.0,3\n7,30,4.5,4\n")
    assert read.items[read.item].tolist() == [40, 10, 20, 30]
    assert read.tags[read.tag].tolist() == [2, 4, 1, 3]  # Action, Drama, (no genres listed), Comedy
    assert read.liked.tolist() == [True, False, True, True]
    assert read.user.tolist() == [0, 0, 1, 0]
    assert not read.impressions


def test_movies_have_the_tags_of_training(tmp_path: Path) -> None:
    """Each movie, rated or not, has its title and the tag that its events have."""
    read = _movielens(tmp_path, "7,40,4.0,1\n7,10,3.5,2\n5,20,5.0,3\n")
    movies = events.movies(tmp_path)
    assert movies.columns == ["id", "tag", "title"]
    assert movies.rows() == [(10, 4, "A"), (20, 1, "B"), (30, 3, "C"), (40, 2, "D")]
    tags = dict(zip(movies["id"], movies["tag"], strict=True))
    assert [tags[each] for each in read.items[read.item].tolist()] == read.tags[read.tag].tolist()


def test_movielens_reads_gzip(tmp_path: Path) -> None:
    """Both files may be compressed."""
    (tmp_path / "ratings.csv.gz").write_bytes(gzip.compress((RATINGS + "1,10,4,1\n").encode()))
    (tmp_path / "movies.csv.gz").write_bytes(gzip.compress(MOVIES.encode()))
    assert events.movielens(tmp_path).items.tolist() == [10]


@pytest.mark.parametrize(
    ("ratings", "movies", "message"),
    [
        pytest.param("1,10,4,1\n\n1,99,4,2\n", MOVIES, "ratings.csv: line 4, column movieId: 99 is not in", id="movie"),
        pytest.param("1,10,4,1\n", MOVIES + "10,E,War\n", "movies.csv: line 6, column movieId: 10 appears", id="twice"),
        pytest.param("1,10,abc,1\n", MOVIES, "ratings.csv: line 2, column rating: 'abc' is not a number", id="rating"),
        pytest.param("1,10,4,1\n", MOVIES + "50,E,\n", "movies.csv: line 6, column genres: is empty", id="no-genre"),
    ],
)
def test_movielens_names_fault(tmp_path: Path, ratings: str, movies: str, message: str) -> None:
    """A fault in either file is named by file, line and column."""
    with pytest.raises(DataError) as error:
        _movielens(tmp_path, ratings, movies)
    assert message in str(error.value)


def test_movielens_needs_files(tmp_path: Path) -> None:
    """A folder without the files is no MovieLens folder."""
    with pytest.raises(DataError, match=r"has neither ratings.csv nor ratings.csv.gz"):
        events.movielens(tmp_path)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_interactions_without_label(tmp_path: Path, name: str) -> None:
    """Every row is something liked; integers stay integers and text becomes bytes, in UTF-8."""
    columns = {"user": ["b", "a"], "item": [2**62 + 1, -5], "tag": ["é", "x"], "timestamp": [2, 1]}
    read = _interactions(tmp_path / name, columns)
    assert read.items.tolist() == [2**62 + 1, -5]
    assert read.items.dtype == np.int64
    assert read.tags.tolist() == ["é".encode(), b"x"]
    assert read.user.tolist() == [0, 1]
    assert read.liked.all()
    assert not read.impressions


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_interactions_with_label(tmp_path: Path, name: str) -> None:
    """Label 0 is an impression that was not liked."""
    columns = {"user": [1, 1], "item": [1, 2], "tag": [1, 1], "timestamp": [1, 2], "label": [0, 1]}
    read = _interactions(tmp_path / name, columns)
    assert read.liked.tolist() == [False, True]
    assert read.impressions


@pytest.mark.parametrize(
    ("name", "times"),
    [
        pytest.param("a.csv", [1, 3, 2], id="csv-integers"),
        pytest.param("a.csv", [0.5, 1e12, 7.25], id="csv-fractions"),
        pytest.param("a.csv", [2**60, 2**60 + 2, 2**60 + 1], id="csv-nanoseconds"),
        pytest.param("a.parquet", [2**60, 2**60 + 2, 2**60 + 1], id="parquet-nanoseconds"),
        pytest.param("a.parquet", [0.5, 0.75, 0.6], id="parquet-fractions"),
        pytest.param("a.parquet", [datetime(2020, 1, day, tzinfo=UTC) for day in (1, 3, 2)], id="parquet-times"),
    ],
)
def test_interactions_order_times(tmp_path: Path, name: str, times: list[Any]) -> None:
    """Times of any numeric or temporal type keep their order to the last digit."""
    read = _interactions(tmp_path / name, {"user": 1, "item": 1, "tag": 1, "timestamp": times})
    assert np.argsort(read.time).tolist() == [0, 2, 1]
    assert len(np.unique(read.time)) == 3


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param("a.csv", {"timestamp": [1, "x"]}, "a.csv: line 3, column timestamp: 'x' is not a", id="csv-time"),
        pytest.param("a.csv", {"timestamp": [1, "inf"]}, "line 3, column timestamp: 'inf' is not a", id="csv-infinite"),
        pytest.param("a.csv", {"label": [1, 2]}, "a.csv: line 3, column label: 2.0 is neither 0 nor 1", id="csv-label"),
        pytest.param("a.csv", {"item": [1, None]}, "a.csv: line 3, column item: is empty", id="csv-empty"),
        pytest.param("a.parquet", {"timestamp": [1.0, float("nan")]}, "a.parquet: row 2, column timestamp", id="nan"),
        pytest.param("a.parquet", {"timestamp": [True, False]}, "column timestamp: is Boolean", id="boolean-time"),
        pytest.param("a.parquet", {"label": ["1", "0"]}, "column label: is String, not 0 and 1", id="text-label"),
        pytest.param("a.parquet", {"label": [0.5, 1.0]}, "row 1, column label: 0.5 is neither 0", id="half-label"),
        pytest.param("a.parquet", {"item": [1.0, 2.0]}, "column item: is Float64, not integers", id="float-item"),
        pytest.param("a.parquet", {"user": [1, None]}, "a.parquet: row 2, column user: is null", id="null"),
        pytest.param(
            "a.parquet",
            {"item": pl.Series([1, 2**63], dtype=pl.UInt64)},
            "row 2, column item: 9223372036854775808 does not fit in 64 bits",
            id="beyond-int64",
        ),
    ],
)
def test_interactions_name_fault(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    """A value that cannot be used is named by file, line or row, and column."""
    columns: dict[str, Any] = {"user": [1, 2], "item": [1, 2], "tag": [1, 2], "timestamp": [1, 2]}
    with pytest.raises(DataError) as error:
        _interactions(tmp_path / name, columns | change)
    assert message in str(error.value)
