"""The rows of a CSV or Parquet file, from anywhere in it, without holding the whole."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from attacker_metrics.files.parquet import OpenParquet
from attacker_metrics.files.spreadsheet import unescaped_column

COLUMNS = ("id", "clean", "noisy")
_HEADER = 2**16
_CONVERT = "rename such files, if it is a file, and save the manifest as UTF-8 (iconv -f latin1 -t utf8)."


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names columns and rows. Rows count from 1, a header aside."""


class ParquetRows:
    """A Parquet file: a row group is held at a time.

    Args:
        opened: opens the file.
    """

    def __init__(self, opened: Callable[[], BinaryIO]) -> None:
        self._open = opened
        self._parquet: OpenParquet | None = None
        self._cached: tuple[int, pa.Table] = (-1, None)

    def names(self) -> list[str]:
        """The columns."""
        return list(self._opened().file.schema_arrow.names)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All rows, some thousand at a time."""
        opened = self._opened()
        for batch in opened.file.iter_batches(batch_size=8192, columns=columns):
            yield _keys_as_text(opened.unfolded(pa.Table.from_batches([batch])))

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` to before ``stop``, as far as there are any."""
        opened, pieces = self._opened(), []
        for group in range(int(np.searchsorted(self._ends, start, side="right")), len(self._ends)):
            begin = int(self._ends[group - 1]) if group else 0
            if begin >= stop:
                break
            if self._cached[0] != group:
                self._cached = (group, _keys_as_text(opened.unfolded(opened.file.read_row_group(group))))
            first = max(start - begin, 0)
            pieces.append(self._cached[1].slice(first, stop - begin - first))
        if pieces:
            return pa.concat_tables(pieces)
        return _keys_as_text(opened.unfolded(opened.file.schema_arrow.empty_table()))

    def _opened(self) -> OpenParquet:
        if self._parquet is None:
            stream = self._open()
            weakref.finalize(self, stream.close)
            parquet = OpenParquet(stream)
            for name, kind in parquet.nested.items():
                raise ManifestError(f"the column {name} holds {kind}, which is neither text nor a number; leave it out.")
            metadata = parquet.file.metadata
            self._ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
            self._parquet = parquet
        return self._parquet


class CSVRows:
    """A CSV file, read from its begin: rows behind those that were asked for last cost a new start.

    Args:
        opened: opens the file.
    """

    def __init__(self, opened: Callable[[], BinaryIO]) -> None:
        self._open = opened
        self._names: list[str] | None = None
        self._delimiter = ","
        self._position, self._held = 0, pa.table({})
        self._rest: Iterator[pa.Table] | None = None

    def names(self) -> list[str]:
        """The columns, without spaces around their names."""
        if self._names is None:
            with self._open() as file:
                begin = file.read(_HEADER)
            if begin.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in begin:
                raise ManifestError("it is no text in UTF-8 (perhaps UTF-16, or no text at all); save it as CSV in UTF-8.")
            header = begin.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n").splitlines()[:1]
            line = header[0] if header else b""
            self._delimiter = next((mark for mark in ",;\t" if mark.encode() in line), ",")
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise ManifestError(f"the header holds {line!r}, which is no UTF-8; {_CONVERT}") from error
            with self._reader(pyarrow.csv.ConvertOptions()) as reader:
                self._stored: list[str] = reader.schema.names
            self._names = [name.strip() for name in self._stored]
        return self._names

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """All rows, a block of some thousand at a time, every cell as text."""
        names, row = self.names(), 1
        # as bytes: of text that is no UTF-8 Arrow would not say where it is
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(self._stored, pa.binary()), strings_can_be_null=False
        )
        with self._reader(convert) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch]).rename_columns(names)
                yield _as_text(table if columns is None else table.select(columns), row)
                row += len(table)

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` to before ``stop``, as far as there are any."""
        if self._rest is None or start < self._position:
            self._rest, self._position, self._held = self.tables(), 0, None
        pieces = []
        while start < stop:
            if self._held is None or start >= self._position + len(self._held):
                if self._held is not None:
                    self._position += len(self._held)
                self._held = next(self._rest, None)
                if self._held is None:
                    self._rest = None
                    break
                continue
            piece = self._held.slice(start - self._position, stop - start)
            pieces.append(piece)
            start += len(piece)
        return pa.concat_tables(pieces) if pieces else pa.table({name: pa.array([], pa.string()) for name in self.names()})

    @contextlib.contextmanager
    def _reader(self, convert: pyarrow.csv.ConvertOptions) -> Iterator[pyarrow.csv.CSVStreamingReader]:
        # Without newlines_in_values Arrow cuts blocks at any line's end, also within quotes.
        parse = pyarrow.csv.ParseOptions(delimiter=self._delimiter, newlines_in_values=True)
        with (
            self._open() as file,
            pyarrow.csv.open_csv(file, parse_options=parse, convert_options=convert) as reader,
        ):
            yield reader


def _as_text(table: pa.Table, first_row: int) -> pa.Table:
    for position, name in enumerate(table.column_names):
        try:
            text = table[name].cast(pa.string())
        except pa.ArrowInvalid as error:
            row, cell = next((i, cell) for i, cell in enumerate(table[name].to_pylist()) if not _is_utf8(cell))
            raise ManifestError(f"row {first_row + row}: {name} holds {cell!r}, which is no UTF-8; {_CONVERT}") from error
        table = table.set_column(position, name, unescaped_column(text))
    return table


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def _keys_as_text(table: pa.Table) -> pa.Table:
    """The table with ``id``, ``clean`` and ``noisy`` as text, whatever they were stored as."""
    for position, name in enumerate(table.column_names):
        if name in COLUMNS and table[name].type != pa.string():
            table = table.set_column(position, name, pc.cast(table[name], pa.string()))
    return table
