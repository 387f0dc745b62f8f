"""Input files as typed polars frames; what is wrong with a file is named by file, line and column.

Polars reads at full speed but says little of a fault, and takes a missing field for a null. So whenever it refuses a
file or leaves a null, the file is walked a second time with the standard library to name the first fault.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import polars as pl
from tqdm import tqdm

from service.errors import DataError
from service.inputs import header, records, require
from service.training import sizes

Kind: TypeAlias = type[pl.Int64] | type[pl.Float64] | type[pl.String]

_NUMBER: dict[Kind, re.Pattern[str]] = {pl.Int64: re.compile(r"\s*[+-]?[0-9]+\s*"), pl.Float64: re.compile(r"[^_]+")}
# Decimal text that comes back the same from an int64: "007" and "+7" are names, not numbers, and would hash otherwise.
_CANONICAL = r"^(0|-?[1-9][0-9]{0,18})$"


def read_csv(path: Path, kinds: Mapping[str, Kind]) -> pl.DataFrame:
    """Read the columns named in `kinds`, all of them complete: no nulls, no NaN. Blank lines are skipped.

    Raises:
        DataError: naming the first fault; or it is too large (`sizes`).
    """
    sizes.check_csv(path)
    names = header(path)
    require(path, names, list(kinds))
    # All columns are read, the wanted and the others: with a projection polars does not see surplus fields.
    schema: dict[str, Kind] = {name: kinds.get(name, pl.String) for name in names}
    try:
        frame = pl.read_csv(path, schema=schema)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise _first_fault(path, names, kinds) or DataError(f"{path.name}: is not valid CSV: {reason}") from error
    wanted = frame.select(*kinds)
    # A line that is too short ends in a null, so the last column is looked at even where nobody wants it.
    if _has_gaps(wanted) or frame.to_series(-1).null_count():
        fault = _first_fault(path, names, kinds)
        if fault is not None:
            raise fault
        wanted = wanted.drop_nulls()  # blank lines, nothing else is left
    return _filled(path, wanted)


def read_parquet(path: Path, needed: Sequence[str]) -> pl.DataFrame:
    """Read the `needed` columns, none with a null.

    Raises:
        DataError: naming file, row and column; or it is too large (`sizes`).
    """
    require(path, sizes.parquet_columns(path), needed)
    sizes.check_parquet(path, needed)
    try:
        frame = pl.read_parquet(path, columns=list(needed))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(f"{path.name}: cannot be read: {str(error).splitlines()[0]}") from error
    for column in frame:
        check(path, column.name, column.is_not_null(), "is null")
    return _filled(path, frame)


def check(path: Path, column: str, fine: pl.Series, problem: str, values: pl.Series | None = None) -> None:
    """Raise DataError at the first row read that is not `fine`, quoting its value where `values` is given."""
    bad = (~fine.fill_null(value=False)).arg_true()
    if len(bad):
        row = bad[0]
        place = f"row {row + 1}" if path.suffix == ".parquet" else f"line {_line(path, row)}"
        quoted = "" if values is None else f"{values[row]!r} "
        raise DataError(f"{path.name}: {place}, column {column}: {quoted}{problem}")


def as_integers(column: pl.Series) -> pl.Series:
    """A column of text as int64 if each value is a plain decimal int64, else as it is."""
    if not column.str.contains(_CANONICAL).all():
        return column
    numbers = column.cast(pl.Int64, strict=False)
    return column if numbers.null_count() else numbers


def _filled(path: Path, frame: pl.DataFrame) -> pl.DataFrame:
    if frame.is_empty():
        raise DataError(f"{path.name}: has no rows")
    return frame


def _has_gaps(frame: pl.DataFrame) -> bool:
    return any(
        column.null_count() > 0 or (column.dtype == pl.Float64 and not column.is_finite().all()) for column in frame
    )


def _line(path: Path, row: int) -> int:
    """Line on which data row `row` (from 0) starts."""
    return next(line for number, (line, _) in enumerate(records(path), -1) if number == row)


def _first_fault(path: Path, names: list[str], kinds: Mapping[str, Kind]) -> DataError | None:
    wanted = [(names.index(name), name, kind) for name, kind in kinds.items()]
    lines = records(path)
    next(lines)  # the header
    for line, record in tqdm(lines, desc=f"looking for the fault in {path.name}", unit=" lines", disable=None):
        if len(record) != len(names):
            return DataError(f"{path.name}: line {line}: has {len(record)} fields, the header has {len(names)}")
        for index, name, kind in wanted:
            problem = _problem(record[index], kind)
            if problem:
                return DataError(f"{path.name}: line {line}, column {name}: {problem}")
    return None


def _problem(text: str, kind: Kind) -> str | None:
    """What keeps `text` from being a value of `kind`."""
    if not text:
        return "is empty"
    if kind is pl.String:
        return None
    word = "an integer" if kind is pl.Int64 else "a number"
    if not (text.isascii() and _NUMBER[kind].fullmatch(text)):  # Python takes the digits of every script
        return f"{text!r} is not {word}"
    try:
        value = int(text) if kind is pl.Int64 else float(text)
    except ValueError:
        return f"{text!r} is not {word}"
    if kind is pl.Float64:
        return None if math.isfinite(value) else f"{text!r} is not a finite number"
    return None if -(2**63) <= value < 2**63 else f"{text!r} does not fit in 64 bits"
