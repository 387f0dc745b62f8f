"""Every way in which training data are malformed, for each kind of them."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pytest

from service.errors import DataError
from service.training import Split, data, sizes

Columns: TypeAlias = dict[str, list[Any]]
Writer: TypeAlias = Callable[[Path, Columns], Path]

USERS, EACH = 4, 10


def _log(**change: Any) -> Columns:
    """Ten impressions of each of four users, some clicked, each at a time of its own."""
    columns: Columns = {
        "user": [user for user in range(USERS) for _ in range(EACH)],
        "item": [10 * user + at for user in range(USERS) for at in range(EACH)],
        "tag": [at % 3 for _ in range(USERS) for at in range(EACH)],
        "timestamp": [at for _ in range(USERS) for at in range(EACH)],
        "label": [(user + at) % 2 for user in range(USERS) for at in range(EACH)],
    }
    return columns | change


def _csv(path: Path, columns: Columns) -> Path:
    pl.DataFrame(columns, strict=False).write_csv(path / "log.csv")
    return path / "log.csv"


def _csv_gz(path: Path, columns: Columns) -> Path:
    packed = path / "log.csv.gz"
    packed.write_bytes(gzip.compress(_csv(path, columns).read_bytes()))
    return packed


def _parquet(path: Path, columns: Columns) -> Path:
    pl.DataFrame(columns, strict=False).write_parquet(path / "log.parquet")
    return path / "log.parquet"


def _movielens(path: Path, columns: Columns) -> Path:
    """The same as ratings of 3 and 4; faults are those of ratings.csv."""
    names = {"user": "userId", "item": "movieId", "label": "rating", "timestamp": "timestamp"}
    frame = pl.DataFrame({names[name]: values for name, values in columns.items() if name in names}, strict=False)
    if "rating" in frame.columns and frame["rating"].dtype.is_integer():
        frame = frame.with_columns(pl.col("rating") + 3)
    frame.write_csv(path / "ratings.csv")
    films = pl.DataFrame({"movieId": range(50), "title": "T", "genres": "G"})
    films.write_csv(path / "movies.csv")
    return path


def _ready(path: Path, columns: Columns) -> Path:
    frame = pl.DataFrame(columns, strict=False)
    split = ["test" if at >= EACH - 2 else "train" for _ in range(USERS) for at in range(EACH)]
    frame = frame.rename({"item": "id"}, strict=False).with_columns(
        split=pl.Series(split[: len(frame)]),
        history_ids=pl.Series([list(range(at % EACH)) for at in range(len(frame))], dtype=pl.List(pl.Int64)),
        history_tags=pl.Series([[1] * (at % EACH) for at in range(len(frame))], dtype=pl.List(pl.Int64)),
    )
    frame.write_parquet(path / "log.parquet")
    return path / "log.parquet"


def _parts(path: Path, columns: Columns) -> Path:
    frame = pl.read_parquet(_ready(path, columns))
    (path / "log.parquet").unlink()
    place = pl.int_range(len(frame)) % EACH
    split = pl.when(place >= EACH - 2).then(pl.lit("test")).when(place >= EACH - 4).then(pl.lit("validation"))
    frame.with_columns(split=split.otherwise(pl.lit("train"))).write_parquet(path / "part-0.parquet")
    return path


FILES: dict[Writer, str] = {
    _csv: "log.csv",
    _csv_gz: "log.csv.gz",
    _parquet: "log.parquet",
    _movielens: "ratings.csv",
    _ready: "log.parquet",
    _parts: "part-0.parquet",
}
every_kind = pytest.mark.parametrize("write", [pytest.param(write, id=write.__name__[1:]) for write in FILES])
of_text = pytest.mark.parametrize("write", [_csv, _csv_gz, _movielens])
of_events = pytest.mark.parametrize("write", [_csv, _csv_gz, _parquet, _movielens])


def _load(path: Path) -> Split:
    return data.load(path, 1, 50, "ratings" if path.is_dir() and (path / "ratings.csv").exists() else "next-item")


def _refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        _load(path)
    return str(error.value)


def _change(path: Path, before: str, after: str) -> None:
    """Change the text of a CSV file, packed or not, of a MovieLens folder of its ratings."""
    path = path / "ratings.csv" if path.is_dir() else path
    packed = path.suffix == ".gz"
    content = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    assert before.encode() in content
    content = content.replace(before.encode(), after.encode(), 1)
    path.write_bytes(gzip.compress(content) if packed else content)


@every_kind
def test_good_input_is_loaded(write: Writer, tmp_path: Path) -> None:
    """What the other tests spoil is fine."""
    split = _load(write(tmp_path, _log()))
    assert min(len(split.train), len(split.validation), len(split.test)) >= 4


@every_kind
@pytest.mark.parametrize("column", ["user", "item", "timestamp"])
def test_missing_column_is_named(write: Writer, column: str, tmp_path: Path) -> None:
    """A column that is not there is named, with the file and what it has."""
    columns = _log()
    del columns[column]
    if column == "timestamp" and write in {_ready, _parts}:
        assert len(_load(write(tmp_path, columns)).test)  # ready-made samples are in order as they are
        return
    message = _refused(write(tmp_path, columns))
    assert message.startswith(f"{FILES[write]}: has no column ")
    assert "its columns are" in message


@every_kind
def test_bad_label_is_named(write: Writer, tmp_path: Path) -> None:
    """A label, or rating, that is none is named by file, line or row, and column."""
    label = _log()["label"]
    bad: list[Any] = [*label[:5], "x" if write in {_csv, _csv_gz, _movielens} else 7, *label[6:]]
    message = _refused(write(tmp_path, _log(label=bad)))
    place = "line 7" if write in {_csv, _csv_gz, _movielens} else "row 6"
    column = "rating" if write is _movielens else "label"
    assert message.startswith(f"{FILES[write]}: {place}, column {column}: ")


@of_events
@pytest.mark.parametrize("bad", ["soon", "٣", "1e999", "nan"])
def test_bad_time_is_named(write: Writer, bad: str, tmp_path: Path) -> None:
    """A time that is no number is named: neither words, infinities nor the digits of other scripts are any."""
    times = [str(each) for each in _log()["timestamp"]]
    message = _refused(write(tmp_path, _log(timestamp=[*times[:5], bad, *times[6:]])))
    place = "row 6" if write is _parquet else "line 7"
    assert message.startswith(f"{FILES[write]}: {place}, column timestamp: {bad!r} ")


@of_text
def test_duplicate_header_is_named(write: Writer, tmp_path: Path) -> None:
    """A column name that appears twice is named."""
    path = write(tmp_path, _log())
    twice = "userId" if write is _movielens else "user"
    _change(path, "timestamp", twice)
    assert _refused(path) == f"{FILES[write]}: line 1, column {twice}: appears twice in the header"


@pytest.mark.parametrize("write", [_parquet, _ready, _parts])
def test_duplicate_parquet_column_is_named(write: Writer, tmp_path: Path) -> None:
    """No usual tool writes such a file, and it is refused all the same."""
    path = write(tmp_path, _log(labex=[1] * (USERS * EACH)))
    file = path / "part-0.parquet" if path.is_dir() else path
    file.write_bytes(file.read_bytes().replace(b"labex", b"label"))
    assert _refused(path) == f"{FILES[write]}: column label: appears twice"


@every_kind
def test_empty_file_is_named(write: Writer, tmp_path: Path) -> None:
    """Neither no byte nor no row is training data."""
    path = write(tmp_path, {name: values[:0] for name, values in _log().items()})
    assert _refused(path) == f"{FILES[write]}: has no rows"
    (path / FILES[write] if path.is_dir() else path).write_bytes(b"")
    message = _refused(path)
    assert message == f"{FILES[write]}: is empty"


def test_empty_folder_is_named(tmp_path: Path) -> None:
    """A folder in which there is nothing is told what was looked for."""
    assert "has neither ratings.csv nor ratings.csv.gz" in _refused(tmp_path)


@every_kind
def test_one_user(write: Writer, tmp_path: Path) -> None:
    """One user's impressions or samples are parted by time; by user they cannot be."""
    path = write(tmp_path, {name: values[:EACH] for name, values in _log().items()})
    if write is _movielens:
        message = f"MovieLens {path.name}, ratings >= 4, split by user: has 1 users; splitting by user takes three or"
        assert message in _refused(path)
    elif write in {_csv, _csv_gz, _parquet, _ready}:
        assert "every validation row has label 1; both 0 and 1 are needed" in _refused(path)  # one row is 10 %
    else:
        assert set(_load(path).test.user.tolist()) == {0}


@every_kind
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_named(write: Writer, label: int, tmp_path: Path) -> None:
    """Labels that are all the same teach nothing."""
    message = _refused(write(tmp_path, _log(label=[label] * (USERS * EACH))))
    assert message.endswith(f"every test row has label {label}; both 0 and 1 are needed")


@of_events
def test_order_of_rows_does_not_matter(write: Writer, tmp_path: Path) -> None:
    """Events are put in order by their times, however the file has them; numbers of users follow the file."""
    (tmp_path / "sorted").mkdir()
    (tmp_path / "mixed").mkdir()
    frame = pl.DataFrame(_log())
    mixed = frame.sample(fraction=1, shuffle=True, seed=5).to_dict(as_series=False)
    for mode in ("next-item", "ratings"):
        one, other = (
            data.load(write(tmp_path / name, columns), 1, 50, mode)
            for name, columns in (("sorted", _log()), ("mixed", mixed))
        )
        if mode == "next-item":
            rows = [
                sorted(
                    (int(target), tuple(part.event_id[start:stop].tolist()))
                    for target, start, stop, label in zip(
                        part.target_id, part.id_start, part.id_stop, part.label, strict=True
                    )
                    if label
                )
                for part in (one.test, other.test)
            ]
            assert rows[0] == rows[1]
        assert len(one.train) == len(other.train)


@pytest.mark.parametrize("write", [_csv, _csv_gz, _parquet])
def test_unicode_ids_are_kept(write: Writer, tmp_path: Path) -> None:
    """Ids of any script are their UTF-8 bytes, as they are: neither case nor composition is changed."""
    items = ["Ünï", "🎬", "日本", "\u00e9", "e\u0301", "É", "a b", "\u200b", "ß", "SS"] * USERS
    path = write(tmp_path, _log(item=items, user=["Ж"] * EACH + ["ж"] * EACH + ["💡"] * EACH + ["0"] * EACH))
    split = _load(path)
    assert set(split.train.target_id) | set(split.test.target_id) <= {each.encode() for each in items}
    assert len(set(split.train.event_id)) == len(set(items))
    assert len(set(split.test.user.tolist())) == USERS


@every_kind
def test_what_declares_too_much_is_named(write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is too large to be read whole is refused before it is read."""
    path = write(tmp_path, _log())
    monkeypatch.setattr(sizes, "MOST_BYTES", 100)
    message = _refused(path)
    assert message.startswith(("movies.csv", FILES[write]))
    assert "or more to read whole" in message
