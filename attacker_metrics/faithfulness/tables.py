"""CSV and Parquet files -> columns of text, checked for what every table here must be."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from attacker_metrics.files.parquet import ParquetError, read_parquet
from attacker_metrics.files.regular import LocationError, open_regular
from attacker_metrics.files.spreadsheet import unescaped

Column = list[str]


class TableError(ValueError):
    """A table that cannot be used; the message names the file, the row and the fix."""


def read_table(path: Path) -> dict[str, Column]:
    """Read a table as text, cells stripped, empty for missing ones; callers know what a column means.

    Raises:
        TableError: if the file is no CSV or Parquet file, a row has another number of cells than the header, there is no
            row, or a column occurs twice.
        OSError: if it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        header, rows = _read_csv(path)
    elif suffix == ".parquet":
        header, rows = _read_parquet(path)
    else:
        raise TableError(f"{path}: tables are .csv or .parquet files.")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise TableError(f"{path}: column {shown(twice)} occurs more than once.")
    if not rows:
        raise TableError(f"{path}: the table has no row.")
    return {name: [row[k].strip() for row in rows] for k, name in enumerate(header)}


def shown(names: Sequence[str], limit: int = 5) -> str:
    """A few names for a message, and how many more there are."""
    more = len(names) - limit
    return ", ".join(map(repr, names[:limit])) + (f" and {more} more" if more > 0 else "")


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except (csv.Error, UnicodeDecodeError, LocationError) as error:
        raise TableError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    rows = [row for row in rows if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise TableError(f"{path}, row {number}: {len(row)} cells where the header has {len(header)}.")
    return [unescaped(name).strip() for name in header], [[unescaped(cell) for cell in row] for row in rows]


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        table = read_parquet(path, as_text=True)
    except ParquetError as error:
        raise TableError(str(error)) from error
    columns = [
        ["" if cell is None or cell != cell else str(cell) for cell in column.to_pylist()] for column in table.columns
    ]
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]
