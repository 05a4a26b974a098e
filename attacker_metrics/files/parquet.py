"""A Parquet file of any maker -> a table that is what it says, and no larger than such a file can honestly be.

A few kilobytes of Parquet may stand for a billion rows, or for one long text in each of a million rows. So the sizes that
the file tells are looked at before anything is read, and texts are read as dictionaries, whose length is known before they
unfold.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from attacker_metrics.files.parquet_pages import PageError, unfolded_bytes
from attacker_metrics.files.regular import LocationError, open_regular

_SMALL = 1 << 29
_RATIO = 100
"""Compressed text rarely shrinks to less than a tenth."""
_LARGE = 1 << 26
"""From here on the bound is beyond what a few pages can hold, and a walk over them would take long."""
_NUMBER, _TEXT = 8, 48
"""Bytes that a cell takes at least, in Arrow and as a Python object."""
_SHRINK = "no table of this program needs that: write it again, without columns that repeat long texts."


class ParquetError(ValueError):
    """A file that no table can be read from; the message names it and says why."""


class OpenParquet:
    """A Parquet file of bounded size: 512 MiB once it is read, or a hundred times the file if that is more.

    Args:
        stream: the file, open for reading at any position.
        number: bytes that a number will take.

    Raises:
        ParquetError: if the file says of itself that it is larger.
        pa.ArrowException: if it is damaged; also an OSError, if its head is.
    """

    def __init__(self, stream: BinaryIO, number: int = _NUMBER) -> None:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        self._most = max(_SMALL, _RATIO * size)
        plain = pq.ParquetFile(stream)
        _check_size(stream, plain.metadata, size, self._most, number)
        self.nested = {field.name: field.type for field in plain.schema_arrow if pa.types.is_nested(field.type)}
        columns = [plain.schema.column(place) for place in range(len(plain.schema))]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        self.file = pq.ParquetFile(stream, metadata=plain.metadata, read_dictionary=texts)

    def unfolded(self, table: pa.Table) -> pa.Table:
        """A piece as :attr:`file` reads it -> checked, as a file may lie, and with texts in the place of dictionaries.

        Raises:
            ParquetError: if the texts are beyond the bound.
            pa.ArrowException: for text that is no UTF-8, offsets that lead out of a column and the like.
        """
        table.validate(full=True)
        texts = {place: column for place, column in enumerate(table.columns) if _is_dictionary_of_texts(column.type)}
        size = sum(_size_of_texts(chunk) for column in texts.values() for chunk in column.chunks)
        if size > self._most:
            raise ParquetError(f"its texts would unfold to {size:,} bytes, the limit is {self._most:,}; {_SHRINK}")
        for place, column in texts.items():
            table = table.set_column(place, table.column_names[place], column.cast(column.type.value_type))
        return table


def read_parquet(path: Path, *, as_text: bool = False) -> pa.Table:
    """Read a file's columns, but for nested ones, and check them: a file may lie about its texts, offsets and sizes.

    Args:
        path: of the file.
        as_text: whether its numbers will be held as texts, which take more room.

    Raises:
        ParquetError: if it is damaged, no Parquet file, no regular file, or a small file that would become a giant table.
        OSError: if it cannot be opened.
    """
    try:
        with open_regular(path) as file:
            try:
                opened = OpenParquet(file, _TEXT if as_text else _NUMBER)
                flat = [name for name in dict.fromkeys(opened.file.schema_arrow.names) if name not in opened.nested]
                table = opened.file.read(columns=flat if opened.nested else None)
            except OSError as error:  # what pyarrow raises of a damaged head
                raise ParquetError(_cannot(path, error)) from error
        return opened.unfolded(table)
    except (pa.ArrowException, LocationError, UnicodeDecodeError, ParquetError) as error:
        raise ParquetError(_cannot(path, error)) from error


def _check_size(stream: BinaryIO, metadata: pq.FileMetaData, size: int, most: int, number: int) -> None:
    told = 0
    leaves = [metadata.schema.column(place) for place in range(len(metadata.schema))]
    cells = [_TEXT if leaf.physical_type == "BYTE_ARRAY" else max(number, leaf.length) for leaf in leaves]
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for cell, column in zip(cells, map(group.column, range(group.num_columns)), strict=False):
            told += cell * max(column.num_values, group.num_rows)
            told += max(column.total_uncompressed_size, _size_of_pages(stream, column) if size < _LARGE else 0)
    if told > most:
        raise ParquetError(
            f"its {size:,} bytes would unfold to {told:,} ({metadata.num_rows:,} rows), the limit is {most:,}; {_SHRINK}"
        )


def _size_of_pages(stream: BinaryIO, column: pq.ColumnChunkMetaData) -> int:
    first = column.dictionary_page_offset if column.has_dictionary_page else None
    start = min(place for place in (first, column.data_page_offset) if place is not None)
    try:
        return unfolded_bytes(stream, start, start + column.total_compressed_size)
    except PageError as error:
        raise ParquetError(str(error)) from error


def _is_dictionary_of_texts(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    return bool(pa.types.is_dictionary(kind)) and any(test(kind.value_type) for test in texts)


def _size_of_texts(chunk: pa.DictionaryArray) -> int:
    """Bytes of all texts of a column's piece, each as often as it is there."""
    times = np.bincount(chunk.indices.drop_null().to_numpy(), minlength=len(chunk.dictionary))
    lengths = pc.binary_length(chunk.dictionary).fill_null(0).to_numpy(zero_copy_only=False)
    return int(times @ lengths.astype(np.int64))


def _cannot(path: Path, error: Exception) -> str:
    return f"{path} cannot be read as Parquet: {' '.join(str(error).split())}"
