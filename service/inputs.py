"""Files that people make: whether one has changed, and the records of a CSV file, with what is wrong named by line."""

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from service.errors import DataError

_LINE_BYTES = 16 << 20  # more is no line that anybody wrote


def stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's content, permissions or place; None: it cannot be seen."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def header(path: Path) -> list[str]:
    """Column names of a CSV file, `.gz` or not.

    Raises:
        DataError: missing, unreadable, empty, or with two columns of one name.
    """
    names = next((record for _, record in records(path)), None)
    if names is None:
        raise DataError(f"{path.name}: is empty")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path.name}: line 1, column {twice}: appears twice in the header")
    return names


def require(path: Path, present: Sequence[str], needed: Sequence[str]) -> None:
    """Raise DataError naming what of the `needed` columns is not `present`."""
    missing = [name for name in needed if name not in present]
    if missing:
        word = "column" if len(missing) == 1 else "columns"
        raise DataError(f"{path.name}: has no {word} {', '.join(missing)}; its columns are {', '.join(present)}")


def records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Records of a CSV file, `.gz` or not, header included and blank lines not, each with the number of its first line.

    Raises:
        DataError: unreadable, or no CSV, no UTF-8, no whole gzip file or too long a line, naming it.
    """
    reader = csv.reader(_lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise DataError(f"{path.name}: line {reader.line_num + 1}: is not UTF-8") from error
        except csv.Error as error:
            raise DataError(f"{path.name}: line {line}: is not valid CSV: {error}") from error
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{path.name}: line {line}: is not a whole gzip file: {error}") from error
        except OSError as error:
            raise DataError(f"{path.name}: cannot be read: {error.strerror}") from error
        if record:
            yield line, record


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    """Decode line by line, so that a bad byte is found on its own line and not a buffer away."""
    with _open(path) as file:
        number = 0
        while line := file.readline(_LINE_BYTES):
            number += 1
            if len(line) == _LINE_BYTES and not line.endswith(b"\n"):
                raise DataError(f"{path.name}: line {number}: is longer than {_LINE_BYTES} bytes")
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
