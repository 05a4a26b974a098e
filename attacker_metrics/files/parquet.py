"""A Parquet file of any maker -> a table that is what it says."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from attacker_metrics.files.regular import LocationError, open_regular


class ParquetError(ValueError):
    """A file that no table can be read from; the message names it and says why."""


def read_parquet(path: Path) -> pa.Table:
    """Read a whole file, and check it: a file may lie about its texts, offsets and sizes, which Arrow believes.

    Raises:
        ParquetError: if it is damaged, no Parquet file, or no regular file.
        OSError: if it cannot be opened.
    """
    try:
        with open_regular(path) as file:
            try:
                table = pq.ParquetFile(file).read()
            except OSError as error:  # what pyarrow raises of a damaged head
                raise ParquetError(_cannot(path, error)) from error
        table.validate(full=True)
    except (pa.ArrowException, LocationError, UnicodeDecodeError) as error:
        raise ParquetError(_cannot(path, error)) from error
    return table


def _cannot(path: Path, error: Exception) -> str:
    return f"{path} cannot be read as Parquet: {' '.join(str(error).split())}"
