"""How much memory a file asks for, found before it is read: a small file may declare, or unpack to, any amount."""

import gzip
import mmap
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from service.errors import DataError
from service.training.thrift import Fields, read_struct

MOST_BYTES = 8 << 30  # read whole, it takes a few times as much
MOST_INFLATED = 1032  # a byte of deflate never becomes more than so many
VALUE_BYTES = 8  # that a number takes in memory, however well a file packs it
MAGIC = b"PAR1"

Found = TypeVar("Found")

# Field numbers in Parquet's thrift definitions.
_SCHEMA, _ROWS, _GROUPS = 2, 3, 4
_NAME, _CHILDREN = 4, 5
_CHUNKS, _META, _GROUP_ROWS = 1, 3, 3
_PATH, _VALUES, _UNPACKED, _PACKED, _DATA_PAGE, _DICTIONARY_PAGE = 3, 5, 6, 7, 9, 11
_PAGE_UNPACKED, _PAGE_PACKED, _PAGE_V1, _PAGE_DICTIONARY, _PAGE_V2, _PAGE_VALUES = 2, 3, 5, 7, 8, 1


def most_bytes() -> int:
    """What a file may take: half of this machine's memory, and no more than `MOST_BYTES`."""
    return min(MOST_BYTES, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)


def check_csv(path: Path) -> None:
    """Raise DataError if a CSV file, `.gz` or not, is too large to read whole, or no file at all.

    What a gzip file says of its length is wrong beyond 4 GB, so one that could be too large is unpacked to find out,
    64 kB at a time.
    """
    size, most = _size(path), most_bytes()
    if path.suffix == ".gz" and size * MOST_INFLATED > most:
        size = _inflated(path, most)
    _refuse_above(path, size, most)


def check_parquet(path: Path, columns: Sequence[str]) -> None:
    """Raise DataError if the `columns` of a Parquet file declare more than can be read whole."""
    declared = _read(path, lambda content: _declared(content, columns), "cannot be read: its metadata are damaged")
    _refuse_above(path, declared, most_bytes())


def parquet_columns(path: Path) -> list[str]:
    """Column names of a Parquet file.

    Raises:
        DataError: it is not one, or has two columns of one name.
    """
    names = _read(path, lambda content: list(_top_names(_footer(content)[_SCHEMA])), "is not a Parquet file")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path.name}: column {twice}: appears twice")
    return names


def _read(path: Path, read: Callable[[mmap.mmap], Found], problem: str) -> Found:
    """What `read` makes of a file's content; if it is not as it expects, that is the `problem`."""
    if not _size(path):
        raise DataError(f"{path.name}: is empty")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return read(content)
    except (IndexError, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path.name}: {problem}") from error
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read: {error.strerror}") from error


def _size(path: Path) -> int:
    if path.exists() and not path.is_file():  # opening a pipe would wait for somebody to write
        raise DataError(f"{path.name}: is not a regular file")
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read: {error.strerror}") from error


def _inflated(path: Path, most: int) -> int:
    """Bytes that a gzip file unpacks to, counted until they are more than `most`."""
    total = 0
    try:
        with gzip.open(path) as file:
            while total <= most and (block := file.read(1 << 16)):
                total += len(block)
    except (OSError, EOFError, zlib.error):
        pass  # whoever reads it says on which line
    return total


def _refuse_above(path: Path, size: int, most: int) -> None:
    if size > most:
        raise DataError(
            f"{path.name}: takes {size / 1e9:.1f} GB or more to read whole, and {most / 1e9:.1f} GB is the most here;"
            " larger data goes into a folder of part-*.parquet"
        )


def _footer(content: mmap.mmap) -> Fields:
    """A Parquet file ends in its metadata, their length, and PAR1."""
    end = len(content) - 8
    if end < len(MAGIC) or content[-4:] != MAGIC or content[:4] != MAGIC:
        raise ValueError("no magic number")
    start = end - int.from_bytes(content[end : end + 4], "little")
    if start < len(MAGIC):
        raise ValueError("metadata longer than the file")
    return read_struct(content[start:end])[0]


def _top_names(schema: list[Fields]) -> Iterator[str]:
    """Names of the schema's first level; it is a tree written in preorder, each node with its number of children."""
    at = 1
    for _ in range(schema[0].get(_CHILDREN, 0)):
        yield schema[at][_NAME].decode()
        left = 1
        while left:
            left += schema[at].get(_CHILDREN, 0) - 1
            at += 1


def _declared(content: mmap.mmap, columns: Sequence[str]) -> int:
    """Bytes that reading the columns takes, by what the footer says and by what the pages say."""
    wanted = {name.encode() for name in columns}
    footer = _footer(content)
    chunks = [chunk[_META] for group in footer[_GROUPS] for chunk in group[_CHUNKS]]
    sizes = [_chunk_bytes(content, meta) for meta in chunks if meta[_PATH][0] in wanted]
    rows = [_natural(group[_GROUP_ROWS]) for group in footer[_GROUPS]]
    return max(sum(sizes), max(sum(rows), _natural(footer[_ROWS])) * VALUE_BYTES * len(wanted))


def _chunk_bytes(content: mmap.mmap, meta: Fields) -> int:
    at = _natural(min(meta[_DATA_PAGE], meta.get(_DICTIONARY_PAGE) or meta[_DATA_PAGE]))
    end = at + _natural(meta[_PACKED])
    unpacked = values = 0
    while at < end:
        page, length = read_struct(content, at)
        unpacked += _natural(page[_PAGE_UNPACKED])
        values += _natural((page.get(_PAGE_V1) or page.get(_PAGE_V2) or page[_PAGE_DICTIONARY])[_PAGE_VALUES])
        at += length + _natural(page[_PAGE_PACKED])
    return max(_natural(meta[_UNPACKED]), unpacked, max(_natural(meta[_VALUES]), values) * VALUE_BYTES)


def _natural(number: int) -> int:
    """The number itself: below zero, polars would take it for an enormous one, and end the process."""
    if number < 0:
        raise ValueError(f"{number} of something")
    return number
