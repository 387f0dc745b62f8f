import gzip
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import DataError
from service.training import files, sizes, thrift

LIMIT = 100_000


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may take 100 kB."""
    monkeypatch.setattr(sizes, "MOST_BYTES", LIMIT)


def _varint(number: int) -> bytes:
    low = number & 127
    return bytes([low]) if number < 128 else bytes([low | 128]) + _varint(number >> 7)


def test_limit_is_half_the_memory() -> None:
    """On a small machine half of the memory is the limit, on a large one 8 GiB are."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert sizes.most_bytes() == min(8 << 30, memory // 2)


def test_ten_gigabytes_of_csv_are_refused(tmp_path: Path) -> None:
    """A CSV file of 10 GB is refused unread, and so is one with a line that never ends."""
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(10 << 30)  # takes no room on disk
    with pytest.raises(
        DataError, match=r"a.csv: takes 10.7 GB or more to read whole, and .* folder of part-\*.parquet"
    ):
        files.read_csv(tmp_path / "a.csv", {"user": pl.Int64})
    with (tmp_path / "a.csv").open("wb") as file:
        file.truncate(64 << 20)
    with pytest.raises(DataError, match=r"a.csv: line 1: is longer than 16777216 bytes"):
        files.read_csv(tmp_path / "a.csv", {"user": pl.Int64})


@pytest.mark.usefixtures("small_limit")
def test_gzip_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    """A gzip file is judged by what all of its members unpack to."""
    path = tmp_path / "a.csv.gz"
    text = b"user\n" + b"1\n" * 30_000
    path.write_bytes(gzip.compress(text))
    assert len(files.read_csv(path, {"user": pl.Int64})) == 30_000
    path.write_bytes(gzip.compress(text) + gzip.compress(b"1\n" * 30_000))
    with pytest.raises(DataError, match=r"a.csv.gz: takes 0.0 GB or more"):
        files.read_csv(path, {"user": pl.Int64})


@pytest.mark.usefixtures("small_limit")
def test_damaged_gzip_is_left_to_its_reader(tmp_path: Path) -> None:
    """While the size of a damaged file is looked for, the damage is no error; when it is read, it is."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"user\n" + b"1\n" * 9000)[:-12])
    sizes.check_csv(path)
    with pytest.raises(DataError, match=r"is not a whole gzip file"):
        files.read_csv(path, {"user": pl.Int64})


def test_parquet_that_declares_ten_gigabytes_is_refused(tmp_path: Path) -> None:
    """A small Parquet file is refused, unread, if its metadata say that its column has ten thousand million values."""
    path, rows = tmp_path / "a.parquet", 1 << 27
    pl.DataFrame({"a": pl.repeat(True, rows, dtype=pl.Boolean, eager=True)}).write_parquet(path, row_group_size=rows)
    old, new = _varint(2 * rows), _varint(2 * 10**10)  # Thrift doubles what is not negative
    assert len(old) == len(new)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(DataError, match=r"a.parquet: takes 80.0 GB or more to read whole"):
        files.read_parquet(path, ["a"])


@pytest.mark.usefixtures("small_limit")
def test_only_wanted_columns_count(tmp_path: Path) -> None:
    """What is not read takes no memory; lists count by their values, however well they are packed."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1] * 1000, "b": [[7] * 100] * 1000}).write_parquet(path)
    assert path.stat().st_size < LIMIT / 10
    assert len(files.read_parquet(path, ["a"])) == 1000
    with pytest.raises(DataError, match=r"a.parquet: takes 0.0 GB or more to read whole"):
        files.read_parquet(path, ["b"])
    pl.DataFrame({"a": ["x" * 200] * 1000, "b": 1}).write_parquet(path, compression="zstd", use_pyarrow=False)
    assert len(files.read_parquet(path, ["b"])) == 1000


@pytest.mark.parametrize(
    "kind", [pl.Boolean, pl.Int8, pl.Float64, pl.String, pl.Categorical, pl.Date, pl.List(pl.String), pl.Binary]
)
@pytest.mark.parametrize("compression", ["zstd", "uncompressed", "snappy", "gzip"])
def test_honest_parquet_is_read(tmp_path: Path, kind: pl.DataType, compression: str) -> None:
    """Files of all types and compressions pass, and their columns come in the file's order."""
    values = pl.Series("b", [None] * 5, dtype=kind)
    frame = pl.DataFrame({"a": range(5), "c": [[[1]]] * 5, "d": [{"x": 1, "y": {"z": 2}}] * 5}).insert_column(1, values)
    path = tmp_path / "a.parquet"
    frame.write_parquet(path, compression=compression, statistics="full", row_group_size=2)  # type: ignore[arg-type]
    assert sizes.parquet_columns(path) == ["a", "b", "c", "d"]
    assert files.read_parquet(path, ["c", "a"]).rows() == [([[1]], row) for row in range(5)]


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    """Whichever byte is changed and wherever the file ends, it is refused in our words or read, nothing else.

    In a process of its own, because polars ends the process where it believes a length that no memory has.
    """
    code = """
import sys
from pathlib import Path
import polars as pl
from service.errors import DataError
from service.training import files

path = Path(sys.argv[1])
pl.DataFrame({"user": [1, 2, 3], "item": ["a", "b", "c"]}).write_parquet(path)
whole = path.read_bytes()
damaged = [whole[:at] for at in range(0, len(whole), 23)]
damaged += [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in range(0, len(whole), 2)]
refused = 0
for content in damaged:
    path.write_bytes(content)
    try:
        files.read_parquet(path, ["user", "item"])
    except DataError as error:
        refused += str(error).startswith("a.parquet: ")
print(refused / len(damaged))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) > 0.3


def test_parquet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    """Two columns of one name are named."""
    path = tmp_path / "a.parquet"
    pl.DataFrame({"user": [1], "usfr": [2]}).write_parquet(path)
    path.write_bytes(path.read_bytes().replace(b"usfr", b"user"))
    with pytest.raises(DataError, match=r"a.parquet: column user: appears twice"):
        sizes.parquet_columns(path)


def test_pipe_is_refused(tmp_path: Path) -> None:
    """Nobody waits for what a pipe may bring."""
    os.mkfifo(tmp_path / "a.csv")
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a.csv: is not a regular file"):
        files.read_csv(tmp_path / "a.csv", {"user": pl.Int64})
    with pytest.raises(DataError, match=r"a.parquet: is not a regular file"):
        files.read_parquet(tmp_path / "a.parquet", ["user"])


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        pytest.param(bytes([0x15, 0x02, 0x00]), {1: 1}, id="integer"),
        pytest.param(bytes([0x16, 0x01, 0x11, 0x12, 0x00]), {1: -1, 2: True, 3: False}, id="bools"),
        pytest.param(bytes([0x05, 0x28, 0x03, 0x00]), {20: -2}, id="long-number"),
        pytest.param(bytes([0x18, 0x02]) + b"ab" + bytes([0x00]), {1: b"ab"}, id="text"),
        pytest.param(bytes([0x29, 0x25, 0x02, 0x04, 0x00]), {2: [1, 2]}, id="list"),
        pytest.param(bytes([0x19, 0xF3, 0x10]) + bytes(range(16)) + bytes([0]), {1: list(range(16))}, id="long-list"),
        pytest.param(bytes([0x1B, 0x01, 0x85]) + b"\x01k\x02" + bytes([0x00]), {1: [(b"k", 1)]}, id="map"),
        pytest.param(bytes([0x1B, 0x00, 0x00]), {1: []}, id="empty-map"),
        pytest.param(bytes([0x1C, 0x15, 0x02, 0x00, 0x17]) + bytes(8) + b"\0", {1: {1: 1}, 2: bytes(8)}, id="struct"),
    ],
)
def test_thrift_by_hand(content: bytes, fields: thrift.Fields) -> None:
    """Each type of the protocol is read as its specification writes it, from any place."""
    assert thrift.read_struct(b"??" + content + b"?", 2) == (fields, len(content))


@given(st.binary(max_size=60))
def test_thrift_ends(content: bytes) -> None:
    """Any bytes are a struct, or one of three errors."""
    try:
        fields, length = thrift.read_struct(content)
    except (IndexError, ValueError, RecursionError):
        return
    assert isinstance(fields, dict)
    assert 0 < length <= len(content)
