"""The file of the catalog: read at the start, read again when it changes, beside an event loop that goes on."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from reprlib import repr as shortened
from typing import Any, TypeAlias, cast

from service import artifact, inputs
from service.artifact import Manifest
from service.catalog import INTEGER, Catalog, Item, Value, dtypes_of, pausing
from service.config import Settings
from service.errors import ArtifactError, DataError, SettingsError

Row: TypeAlias = tuple[int, Any, Any, Any]  # line or row number, id, tag, title

_ROWS = 256  # of a Parquet file, made into Python's values at once

logger = logging.getLogger(__name__)


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
    catalog = Catalog(dtypes, _check(f"{path.name}: {place}", pausing(rows), dtypes))
    if not len(catalog):
        raise DataError(f"{path.name}: has no rows")
    return catalog


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
    if isinstance(value, str) and not INTEGER.fullmatch(value):
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
    for number, row in enumerate(frame.select("id", "tag", "title").iter_rows(buffer_size=_ROWS), 1):
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
