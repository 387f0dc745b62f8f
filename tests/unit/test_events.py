import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DataError
from service.training import Samples, events

MOVIES = "movieId,title,genres\n10,A,Drama|Action\n20,B,(no genres listed)\n30,C,Comedy\n40,D,Action\n"
RATINGS = "userId,movieId,rating,timestamp\n"
MEETING = st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 6), st.booleans())  # user, item, time, liked


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


def _events(meetings: list[tuple[int, int, int, bool]], *, impressions: bool = False) -> events.Events:
    """Events whose item i has the name 100 + i and the tag i mod 3; items are numbered by first appearance."""
    user, item, time, liked = (np.array(column) for column in zip(*meetings, strict=True))
    numbers, items = events.number(pl.Series(item + 100, dtype=pl.Int64))
    return events.Events(user, numbers, item % 3, time, liked.astype(bool), items, np.array([5, 6, 7]), impressions)


def _history(samples: Samples, row: int) -> list[int]:
    ids: list[int] = samples.event_id[samples.id_start[row] : samples.id_stop[row]].tolist()
    return ids


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


def test_build_by_hand() -> None:
    """Positives come by time, each with its negative, behind what was liked in earlier seconds only."""
    meetings = [(0, 3, 9, True), (0, 1, 2, True), (0, 2, 2, True), (0, 4, 1, False), (0, 0, 1, True), (1, 5, 1, False)]
    samples, unit = events.build(_events(meetings), seed=1, max_history=2)
    assert samples.target_id[::2].tolist() == [100, 101, 102, 103]
    assert samples.target_id[1::2].tolist() == [105] * 4  # the only item that user 0 never met
    assert samples.target_tag.tolist() == [5, 7, 6, 7, 7, 7, 5, 7]
    assert [_history(samples, row) for row in range(0, 8, 2)] == [[], [100], [100], [101, 102]]
    assert samples.label.tolist() == [1, 0] * 4
    assert unit.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_build_from_impressions() -> None:
    """Impressions are their own negatives, behind what was liked and not behind what was shown."""
    meetings = [(0, 1, 1, True), (0, 2, 2, False), (0, 3, 3, True)]
    samples, unit = events.build(_events(meetings, impressions=True), seed=1, max_history=5)
    assert samples.target_id.tolist() == [101, 102, 103]
    assert samples.label.tolist() == [1, 0, 1]
    assert [_history(samples, row) for row in range(3)] == [[], [101], [101]]
    assert unit.tolist() == [0, 1, 2]


def test_build_skips_who_met_everything() -> None:
    """A user who met every item has no negative, hence no sample."""
    samples, _ = events.build(_events([(0, 1, 1, True), (0, 2, 2, True), (1, 1, 1, True)]), seed=1, max_history=5)
    assert samples.user.tolist() == [1, 1]
    assert samples.target_id.tolist() == [101, 102]


def test_build_is_deterministic() -> None:
    """The seed decides the negatives, and nothing else."""
    meetings = [(user, (user * 7 + item) % 40, item, True) for user in range(20) for item in range(15)]
    same, again, other = (events.build(_events(meetings), seed, 5)[0] for seed in (1, 1, 2))
    assert same.target_id.tolist() == again.target_id.tolist()
    assert same.target_id.tolist() != other.target_id.tolist()
    assert same.target_id[::2].tolist() == other.target_id[::2].tolist()


def test_negatives_are_uniform() -> None:
    """Each item that the user never met is drawn about as often as the others."""
    meetings = [(0, item, item, True) for item in (1, 4, 5)] + [(1, item, 0, False) for item in range(8)]
    read = _events(meetings)
    drawn = events._negatives(events._met(read), len(read.items), np.zeros(5000, np.int64), seed=3)
    names, counts = np.unique(read.items[drawn], return_counts=True)
    assert names.tolist() == [100, 102, 103, 106, 107]
    assert counts.min() > 900
    assert counts.max() < 1100


@given(st.lists(MEETING, min_size=1, max_size=40), st.integers(0, 3), st.booleans())
def test_build_never_leaks(meetings: list[tuple[int, int, int, bool]], seed: int, impressions: bool) -> None:
    """A history is exactly the newest of what was liked before its sample, and a drawn negative was never met."""
    read = _events(meetings, impressions=impressions)
    samples, unit = events.build(read, seed, max_history=3)
    by_user = {
        user: sorted((m for m in meetings if m[0] == user), key=lambda m: m[2]) for user in {m[0] for m in meetings}
    }
    catalogue = len({m[1] for m in meetings})
    expected = [
        m
        for user in sorted(by_user)
        for m in by_user[user]
        if impressions or (m[3] and len({other[1] for other in by_user[user]}) < catalogue)
    ]
    rows = range(0, len(samples), 1 if impressions else 2)
    assert [(samples.user[row], samples.target_id[row] - 100) for row in rows] == [m[:2] for m in expected]
    for row, (user, _, time, _) in zip(rows, expected, strict=True):
        assert _history(samples, row) == [100 + m[1] for m in by_user[user] if m[3] and m[2] < time][-3:]
        if not impressions:
            assert samples.target_id[row + 1] - 100 not in {m[1] for m in by_user[user]}
            assert unit[row] == unit[row + 1]
            assert _history(samples, row + 1) == _history(samples, row)
