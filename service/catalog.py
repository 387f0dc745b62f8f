"""What is known of each item, its tag and its title: read from a file, looked up by id, searched by title.

Everything is written in Python that lets others have the interpreter: a million items are read beside an event loop.
"""

import heapq
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from service import artifact, inputs
from service.artifact import Manifest
from service.config import Settings
from service.errors import ArtifactError, DataError, SettingsError

Value: TypeAlias = int | str
Row: TypeAlias = tuple[int, Any, Any, Any]  # line or row number, id, tag, title

_BLOCK = 256  # titles searched, or items read, before others get the interpreter
_PAUSE_S = 1e-4
_INTEGER = re.compile(r"-?[0-9]{1,19}")

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """What the catalog says of one item."""

    id: Value
    tag: Value
    title: str | None


class Block(NamedTuple):
    """Some items that follow each other by title: what is searched of them, a line each, and their ids."""

    lines: str
    ids: list[Value]


class Catalog:
    """Items by id and by title.

    Args:
        dtypes: of ids and tags, `int64` or `string` each.
        items: no two with one id.
    """

    def __init__(self, dtypes: tuple[str, str], items: Iterable[Item]) -> None:
        self.dtypes = dtypes
        self._tags: dict[Value, Value] = {}
        self._titles: dict[Value, str] = {}
        labels: list[tuple[str, Value]] = []
        for item in items:
            self._tags[item.id] = item.tag
            if item.title is not None:
                self._titles[item.id] = item.title
            labels.append((_fold(str(item.id) if item.title is None else item.title), item.id))
        self._blocks = [
            Block("\n".join([label for label, _ in block]), [each for _, each in block])
            for block in _split(_sort(labels), _BLOCK)
        ]

    def __len__(self) -> int:
        return len(self._tags)

    def fits(self, manifest: Manifest) -> bool:
        """Whether ids and tags are of the types that a version takes."""
        return self.dtypes == dtypes_of(manifest)

    def find_tags(self, ids: Sequence[Value], default: Value) -> tuple[list[Value], int]:
        """The tag of each id, `default` where it is unknown, and how many are unknown; 500 ids take 15 us."""
        tags = self._tags
        try:
            return list(map(tags.__getitem__, ids)), 0
        except KeyError:
            return list(map(tags.get, ids, repeat(default))), len(ids) - sum(map(tags.__contains__, ids))

    def find(self, ids: Iterable[Value]) -> list[Item]:
        """The known ones of some items, in that order."""
        return [Item(each, self._tags[each], self._titles.get(each)) for each in ids if each in self._tags]

    def search(self, text: str, limit: int) -> list[Item]:
        """The first `limit` items with `text` in their title, or in their id where they have none, whatever the case.

        First the one whose id it is, then those that have it where a word begins, then the others, by title each.
        """
        wanted = re.escape(_fold(text))
        anywhere, begins = re.compile(wanted), re.compile(rf"{wanted}(?<!\w{wanted})")  # so, literals are found fast
        exact = self._named(text.strip())
        found: list[Value] = []
        others: list[Value] = []
        for block in self._blocks:
            looked_for = begins if len(others) >= limit else anywhere
            if not looked_for.search(block.lines):
                continue
            for label, each in zip(block.lines.split("\n"), block.ids, strict=True):
                if begins.search(label):
                    found.append(each)
                elif len(others) < limit and anywhere.search(label):
                    others.append(each)
            if len(found) > limit:  # one of them may be the exact one
                break
        matching = dict.fromkeys([*exact, *found, *others])  # each once
        return self.find(list(matching)[:limit])

    def _named(self, text: str) -> list[Value]:
        """The id that is written so, if there is one."""
        if self.dtypes[0] == "string":
            return [text] if text in self._tags else []
        number = int(text) if _INTEGER.fullmatch(text) else None
        return [number] if number in self._tags else []


class CatalogFile:
    """A file with a catalog, and the last good one that it held.

    Args:
        path: `.csv`, `.csv.gz` or `.parquet`; a symbolic link is followed each time.
    """

    def __init__(self, path: Path) -> None:
        self.current: Catalog | None = None  # replaced as a whole
        self.problem: str | None = "not read yet"
        self._path = path
        self._read_as: object = None  # what the file was, and the types it was read as

    def __len__(self) -> int:
        return 0 if self.current is None else len(self.current)

    def check(self) -> dict[str, bool | str]:
        """An entry for the health routes."""
        return {"ok": self.problem is None, "detail": self.problem or f"items: {len(self)}"}

    def read(self, dtypes: tuple[str, str]) -> None:
        """Read it.

        Raises:
            DataError: it is no catalog of these types; the one before stays.
        """
        self._read_as = inputs.stamp(self._path), dtypes
        try:
            self.current = read_catalog(self._path, dtypes)
        except DataError as error:
            self.problem = str(error)
            raise
        self.problem = None

    def refresh(self, dtypes: tuple[str, str]) -> bool | None:
        """Read it again if it has changed, or was read as other types; whether it is good, None if nothing has changed.

        Takes long where there are many items: for a thread.
        """
        if self._read_as == (inputs.stamp(self._path), dtypes):
            return None
        try:
            self.read(dtypes)
        except DataError as error:
            kept = "" if self.current is None else "; the one before is kept"
            logger.warning("the catalog cannot be used: %s%s", error, kept)
            return False
        return True


def make_catalog(settings: Settings) -> CatalogFile | None:
    """The catalog of the settings, read as the newest version wants it; not yet read where there is no version.

    Raises:
        SettingsError: it is no catalog.
    """
    if settings.catalog is None:
        return None
    file, manifest = CatalogFile(settings.catalog), _newest(settings.model_dir)
    if manifest is not None:
        try:
            file.read(dtypes_of(manifest))
        except DataError as error:
            raise SettingsError(f"DIN_CATALOG = {settings.catalog}: {error}") from error
    return file


def read_catalog(path: Path, dtypes: tuple[str, str]) -> Catalog:
    """Read a catalog with columns id, tag and, if they have titles, title; other columns are nobody's.

    Raises:
        DataError: naming file, line (Parquet: row) and column where there is one.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for somebody to write
        raise DataError(f"{path.name}: is not a regular file")
    if path.suffix == ".parquet":
        place, rows = "row", _parquet_rows(path)
    elif path.name.endswith((".csv", ".csv.gz")):
        place, rows = "line", _csv_rows(path)
    else:
        raise DataError(f"{path.name}: is neither .csv, .csv.gz nor .parquet")
    catalog = Catalog(dtypes, _check(f"{path.name}: {place}", _pausing(rows), dtypes))
    if not len(catalog):
        raise DataError(f"{path.name}: has no rows")
    return catalog


def dtypes_of(manifest: Manifest) -> tuple[str, str]:
    """Of a version's ids and tags."""
    return manifest.features.id.dtype, manifest.features.tag.dtype


def default_tag(manifest: Manifest) -> Value:
    """What a version takes for the tag of an item of which nothing is known."""
    tag = manifest.features.tag
    if tag.dtype == "string":
        return tag.default if isinstance(tag.default, str) else ""
    return tag.default if isinstance(tag.default, int) else 0


def _check(place: str, rows: Iterable[Row], dtypes: tuple[str, str]) -> Iterator[Item]:
    """Make rows into items."""
    known = set()
    for number, *values, title in rows:
        item_id, tag = (
            _value(f"{place} {number}, column {name}", value, dtype)
            for name, value, dtype in zip(("id", "tag"), values, dtypes, strict=True)
        )
        if item_id in known:
            raise DataError(f"{place} {number}, column id: {shortened(item_id)} appears twice")
        known.add(item_id)
        yield Item(item_id, tag, title or None)


def _value(place: str, value: object, dtype: str) -> Value:
    if value is None or value == "":
        raise DataError(f"{place}: is empty")
    if dtype == "string":
        return str(value)
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise DataError(f"{place}: {shortened(value)} is not an integer")
    number = int(cast("Value", value))
    if not -(2**63) <= number < 2**63:
        raise DataError(f"{place}: {shortened(value)} does not fit in 64 bits")
    return number


def _csv_rows(path: Path) -> Iterator[Row]:
    names = inputs.header(path)
    inputs.require(path, names, ("id", "tag"))
    places = [names.index(name) if name in names else None for name in ("id", "tag", "title")]
    records = inputs.records(path)
    next(records, None)  # the header
    for line, record in records:
        if len(record) != len(names):
            raise DataError(f"{path.name}: line {line}: has {len(record)} fields, the header has {len(names)}")
        item_id, tag, title = (None if place is None else record[place] for place in places)
        yield line, item_id, tag, title


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import polars as pl
    except ImportError as error:
        raise DataError(f"{path.name}: reading Parquet takes polars: pip install 'dinserve[catalog]'") from error
    try:
        schema = pl.read_parquet_schema(path)
        inputs.require(path, list(schema), ("id", "tag"))
        frame = pl.read_parquet(path, columns=[name for name in schema if name in {"id", "tag", "title"}])
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(f"{path.name}: is not a Parquet file: {str(error).partition(chr(10))[0]}") from error
    for column in frame:
        texts = isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum)
        if not texts and (column.name == "title" or not column.dtype.is_integer()):
            wanted = "strings" if column.name == "title" else "integers or strings"
            raise DataError(f"{path.name}: column {column.name}: is {column.dtype}, not {wanted}")
    if "title" not in schema:
        frame = frame.with_columns(title=pl.lit(None))
    for number, row in enumerate(frame.select("id", "tag", "title").iter_rows(buffer_size=_BLOCK), 1):
        yield number, *row


def _newest(model_dir: Path) -> Manifest | None:
    """The manifest of the highest version that has one."""
    try:
        folders = artifact.versions(model_dir)
    except ArtifactError:
        return None
    for folder in reversed(folders):
        try:
            return artifact.read_manifest(folder)
        except ArtifactError:
            continue
    return None


def _fold(text: str) -> str:
    """What a title is searched by: one line, no upper case."""
    return " ".join(text.split()).casefold()


def _sort(labels: list[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    """In order; one sort of a million would hold the interpreter for a second."""
    return _pausing(heapq.merge(*(sorted(each) for each in _split(labels, 16 * _BLOCK))))


def _split(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut into lists of `size`, the last one shorter."""
    chunk: list[T] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _pausing(values: Iterable[T]) -> Iterator[T]:
    """The same, with a moment every now and then in which others have the interpreter."""
    for number, value in enumerate(values, 1):
        yield value
        if number % _BLOCK == 0:
            time.sleep(_PAUSE_S)
