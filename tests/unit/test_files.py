import gzip
from pathlib import Path

import polars as pl
import pytest

from service.errors import DataError
from service.inputs import header
from service.training import files

KINDS: dict[str, files.Kind] = {"user": pl.Int64, "rating": pl.Float64, "name": pl.String}
HEADER = "user,rating,name,more\n"


def _read(path: Path, body: str | bytes) -> pl.DataFrame:
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return files.read_csv(path, KINDS)


def test_read_csv_types_columns(tmp_path: Path) -> None:
    """The wanted columns come typed and in the order asked for, wherever they stand in the file."""
    frame = _read(tmp_path / "a.csv", "more,name,rating,user\nx,one,4.5,1\n,two,3,-2\n")
    assert frame.schema == {"user": pl.Int64, "rating": pl.Float64, "name": pl.String}
    assert frame.rows() == [(1, 4.5, "one"), (-2, 3.0, "two")]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("\ufeff" + HEADER + "1,4,a,b\n2,5,c,d\n", id="byte-order-mark"),
        pytest.param((HEADER + "1,4,a,b\n2,5,c,d\n").replace("\n", "\r\n"), id="windows-line-ends"),
        pytest.param(HEADER + "\n1,4,a,b\n\n2,5,c,d\n\n\n", id="blank-lines"),
        pytest.param(HEADER + "1,4,a,b\n2,5,c,d", id="no-last-line-end"),
        pytest.param(HEADER + "1,4,a,\n2,5,c,\n", id="unwanted-column-empty"),
        pytest.param(HEADER + '"1","4","a","b\nc"\n2,5,c,d\n', id="quotes"),
    ],
)
def test_read_csv_accepts_dialects(tmp_path: Path, body: str) -> None:
    """What spreadsheets and editors do to a CSV file does not change what is read."""
    assert _read(tmp_path / "a.csv", body).rows() == [(1, 4.0, "a"), (2, 5.0, "c")]


def test_read_csv_reads_gzip(tmp_path: Path) -> None:
    """A compressed file reads like the plain one."""
    assert _read(tmp_path / "a.csv.gz", gzip.compress((HEADER + "1,4,a,b\n").encode())).rows() == [(1, 4.0, "a")]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param("", "a.csv: is empty", id="empty-file"),
        pytest.param("\n\n", "a.csv: is empty", id="only-blank-lines"),
        pytest.param(HEADER, "a.csv: has no rows", id="header-only"),
        pytest.param("user,rating\n1,2\n", "a.csv: has no column name; its columns are user, rating", id="no-column"),
        pytest.param("user\n1\n", "a.csv: has no columns rating, name; its columns are user", id="no-columns"),
        pytest.param("user,name,user\n1,2,3\n", "a.csv: line 1, column user: appears twice", id="column-twice"),
        pytest.param(HEADER + "1,4,a,b\nabc,4,a,b\n", "a.csv: line 3, column user: 'abc' is not an integer", id="text"),
        pytest.param(HEADER + "1.5,4,a,b\n", "line 2, column user: '1.5' is not an integer", id="fraction"),
        pytest.param(HEADER + f"{2**63},4,a,b\n", "line 2, column user: '9223372036854775808' does not fit", id="big"),
        pytest.param(HEADER + "1,abc,a,b\n", "line 2, column rating: 'abc' is not a number", id="not-a-number"),
        pytest.param(HEADER + "1,nan,a,b\n", "line 2, column rating: 'nan' is not a finite number", id="nan"),
        pytest.param(HEADER + "1,4,a,b\n1,inf,a,b\n", "line 3, column rating: 'inf' is not a finite", id="infinite"),
        pytest.param(HEADER + "1,4,a,b\n\n1,,a,b\n", "a.csv: line 4, column rating: is empty", id="empty-number"),
        pytest.param(HEADER + "1,4,,b\n", "a.csv: line 2, column name: is empty", id="empty-text"),
        pytest.param(HEADER + "1,4,a\n", "a.csv: line 2: has 3 fields, the header has 4", id="field-too-few"),
        pytest.param(HEADER + "1,4,a,b\n1,4,a,b,c\n", "a.csv: line 3: has 5 fields, the header has 4", id="surplus"),
        pytest.param(HEADER + '1,4,"a\nb",c\n2,x,a,b\n', "a.csv: line 4, column rating: 'x'", id="after-line-break"),
        pytest.param(HEADER.encode() + b"1,4,a,b\n2,4,\xff,b\n", "a.csv: line 3: is not UTF-8", id="not-utf-8"),
        pytest.param(HEADER + '1,4,"a,b\n2,4,a,b\n', "a.csv: line 2: is not valid CSV", id="open-quote"),
        pytest.param(HEADER + '1,4,a"b,c\n2,4,a,b\n2,4,a",b\n', "a.csv: is not valid CSV", id="stray-quotes"),
    ],
)
def test_read_csv_names_fault(tmp_path: Path, body: str | bytes, message: str) -> None:
    """The first fault is named by file, line and column."""
    with pytest.raises(DataError) as error:
        _read(tmp_path / "a.csv", body)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        pytest.param(slice(40, None), "a.csv.gz: line 1: is not a whole gzip file", id="no-gzip-header"),
        pytest.param(slice(0, 1000), "is not a whole gzip file", id="truncated"),
    ],
)
def test_read_csv_refuses_broken_gzip(tmp_path: Path, keep: slice, message: str) -> None:
    """A file that was cut short is refused, whatever could be read of it."""
    body = HEADER + "".join(f"{user},{user % 5},{user * 7919},b\n" for user in range(3000))
    with pytest.raises(DataError) as error:
        _read(tmp_path / "a.csv.gz", gzip.compress(body.encode())[keep])
    assert message in str(error.value)


def test_header_of_folder(tmp_path: Path) -> None:
    """What cannot be opened is refused with the system's reason."""
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        header(tmp_path)


def test_read_parquet_names_null(tmp_path: Path) -> None:
    """A null is named by file, row and column."""
    pl.DataFrame({"a": [1, 2], "b": [1, None]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: row 2, column b: is null"):
        files.read_parquet(tmp_path / "a.parquet", ["a", "b"])


def test_read_parquet_needs_columns(tmp_path: Path) -> None:
    """A missing column is named, with those there are."""
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.parquet: has no column b; its columns are a"):
        files.read_parquet(tmp_path / "a.parquet", ["a", "b"])


def test_read_parquet_refuses_other_files(tmp_path: Path) -> None:
    """A file that only has the name of a Parquet file is refused."""
    (tmp_path / "a.parquet").write_text("user,item\n")
    with pytest.raises(DataError, match=r"a.parquet: is not a Parquet file"):
        files.read_parquet(tmp_path / "a.parquet", ["a"])


def test_read_parquet_refuses_damaged_pages(tmp_path: Path) -> None:
    """A Parquet file whose end is whole and whose pages are not is refused."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": list(range(5000))}).write_parquet(path, compression="gzip")
    body = bytearray(path.read_bytes())
    body[4:200] = bytes(196)
    path.write_bytes(body)
    with pytest.raises(DataError, match=r"a.parquet: cannot be read"):
        files.read_parquet(path, ["a"])


@pytest.mark.parametrize(
    ("texts", "integers"),
    [
        pytest.param(["1", "-5", "0"], True, id="plain"),
        pytest.param([str(2**63 - 1), str(-(2**63))], True, id="extremes"),
        pytest.param([str(2**63)], False, id="beyond-int64"),
        pytest.param(["1", "007"], False, id="leading-zero"),
        pytest.param(["+1"], False, id="plus"),
        pytest.param(["1", "x"], False, id="text"),
    ],
)
def test_as_integers_keeps_text(texts: list[str], integers: bool) -> None:
    """Text becomes int64 only where it would be the same text again, because that is what is hashed."""
    column = files.as_integers(pl.Series(texts))
    assert (column.dtype == pl.Int64) == integers
    assert column.cast(pl.String).to_list() == texts
