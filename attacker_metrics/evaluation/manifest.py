"""A CSV or Parquet file that lists pairs, read a row group at a time -> pairs of image tensors."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from attacker_metrics.evaluation.images import is_url
from attacker_metrics.evaluation.pairs import FailedPair, LoadedPair, load_draws, load_pair_or_failure

COLUMNS = ("id", "clean", "noisy")
_SEPARATOR = ";"
_NAMED = 5
"""How many offending rows an error message lists."""


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names columns and rows. Rows count from 1, a header aside."""


class ManifestPairs:
    """The pairs that a manifest lists: columns ``id``, ``clean`` and ``noisy``, and further ones that go into the scores.

    ``clean`` and ``noisy`` are URLs that fsspec knows (``s3://``, ``gs://``, ``http://``, ``memory://``), or paths, relative
    to the manifest. Cells of a CSV file are text, also in further columns.

    At most one row group (of a CSV file, a block of some thousand rows) is held; :meth:`check` needs eight bytes per row.

    Args:
        location: path or URL of the manifest, ``.csv`` or ``.parquet``.
        side: if given, both images are scaled so that their smaller side has this many pixels.
        reserved: names that a further column must not have.
        draws: above 1, every ``noisy`` cell lists so many files, separated by semicolons.

    Raises:
        ManifestError: if the manifest is of another kind, unreadable, or lacks a column.
        ImportError: if fsspec lacks a package for the URL's protocol.
    """

    groups: list[str] | None = None
    unmatched: tuple[str, ...] = ()

    def __init__(self, location: str, *, side: int | None = None, reserved: tuple[str, ...] = (), draws: int = 1) -> None:
        self.location, self._draws = location, draws
        self._side = side
        self._system, path = url_to_fs(location)
        self._path = path
        suffix = PurePosixPath(path.split("?")[0]).suffix.lower()
        if suffix not in _READERS:
            raise ManifestError(f"{location} must end in {' or '.join(_READERS)}, got {suffix or 'no suffix'!r}.")
        self._folder = location.rsplit("/", 1)[0] if is_url(location) else str(Path(location).absolute().parent)
        self._reader = _READERS[suffix](self._system, path)
        try:
            names = self._reader.names()
        except (pa.ArrowException, OSError) as error:
            raise ManifestError(f"{location} cannot be read: {type(error).__name__}: {error}") from error
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise ManifestError(f"{location} lacks the column {', '.join(missing)}; it has {', '.join(names) or 'none'}.")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ManifestError(f"{location} has several columns named {', '.join(doubled)}; rename all but one.")
        taken = [name for name in names if name in reserved]
        if taken:
            raise ManifestError(f"{location}: {', '.join(taken)} is the name of a score; rename the column.")

    def check(self) -> tuple[int, str]:
        """Read the manifest once.

        Returns:
            The number of pairs, and a digest of the content.

        Raises:
            ManifestError: if a cell is empty, an id occurs twice, only some pairs have a group, or there is no row.
        """
        digest, hashes, row = hashlib.blake2b(digest_size=16), [], 1
        without_group: list[int] = []
        empty: list[tuple[int, str]] = []
        try:
            for table in self._reader.tables():
                for name in table.column_names:
                    cells = self._text(table, name).fill_null("").to_pylist()
                    digest.update("\0".join([name, *cells]).encode())
                    if name in COLUMNS and len(empty) <= _NAMED:
                        empty += [(row + i, f"{name} is empty") for i, cell in enumerate(cells) if not cell.strip()]
                    if name == "group":
                        without_group += [row + i for i, cell in enumerate(cells) if not cell]
                    if name == "noisy" and self._draws > 1 and len(empty) <= _NAMED:
                        listed = [len(cell.split(_SEPARATOR)) for cell in cells]
                        if (wrong := next((i for i, found in enumerate(listed) if found != self._draws), None)) is not None:
                            raise ManifestError(
                                f"{self.location}: noisy of row {row + wrong} lists {listed[wrong]} files, but there are"
                                f" {self._draws} draws; separate their files by semicolons."
                            )
                    if name == "id":
                        hashes.append(np.fromiter(map(hash, cells), np.int64, len(cells)))
                row += len(table)
        except pa.ArrowException as error:
            raise ManifestError(f"{self.location} cannot be read: {error}") from error
        if empty:
            named = [f"row {row}: {what}" for row, what in sorted(empty)[:_NAMED]] + ["..."] * (len(empty) > _NAMED)
            raise ManifestError(f"{self.location}: {'; '.join(named)}. Fill the cells or remove the rows.")
        if row == 1:
            raise ManifestError(f"{self.location} holds no pairs.")
        if 0 < len(without_group) < row - 1:
            rows = ", ".join(map(str, without_group[:_NAMED])) + (", ..." if len(without_group) > _NAMED else "")
            raise ManifestError(f"{self.location}: group is empty in rows {rows}. Name the group of all pairs or of none.")
        self._check_duplicates(np.concatenate(hashes))
        return row - 1, digest.hexdigest()

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows from ``start`` to before ``stop``; the columns of the manifest, ``id`` first."""
        try:
            table = self._reader.rows(start, stop)
        except pa.ArrowException as error:
            raise ManifestError(f"{self.location} has become unreadable since the run began: {error}") from error
        if len(table) != stop - start:
            raise ManifestError(f"{self.location} has become shorter since the run began.")
        return table.select(sorted(table.column_names, key=lambda name: name != "id"))

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:
        """Read the images of a row."""
        clean = self._locate(row["clean"])
        if self._draws == 1:
            return load_pair_or_failure(clean, self._locate(row["noisy"]), index=index, side=self._side)
        draws = [self._locate(cell.strip()) for cell in row["noisy"].split(_SEPARATOR)]
        return load_draws(clean, draws, index=index, side=self._side)

    def _text(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        try:
            return table[name].cast(pa.string())
        except pa.ArrowException as error:
            raise ManifestError(
                f"{self.location}: the column {name} holds {table[name].type}, which is neither text nor a number;"
                " leave it out."
            ) from error

    def _locate(self, cell: str) -> Path | str:
        if is_url(cell):
            return cell
        if is_url(self._folder) and not cell.startswith("/"):
            return f"{self._folder}/{cell}"
        return Path(self._folder, cell)

    def _check_duplicates(self, hashes: NDArray[np.int64]) -> None:
        """Find equal ids by their hashes first: eight bytes per row, not a set of strings."""
        hashes.sort()
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(suspects) == 0:
            return
        seen: dict[str, list[int]] = defaultdict(list)
        row = 1
        for table in self._reader.tables(["id"]):
            ids = table["id"].cast(pa.string()).to_pylist()
            found = np.isin(np.fromiter(map(hash, ids), np.int64, len(ids)), suspects)
            for i in np.flatnonzero(found):
                seen[ids[i]].append(row + int(i))
            row += len(table)
        twice = {name: rows for name, rows in seen.items() if len(rows) > 1}
        if twice:
            named = "; ".join(f"{name!r} in rows {rows[0]} and {rows[1]}" for name, rows in list(twice.items())[:_NAMED])
            more = f"; {len(twice)} such ids in all" if len(twice) > _NAMED else ""
            raise ManifestError(f"{self.location}: ids must be unique, but {named}{more}.")


class _Parquet:
    def __init__(self, system: fsspec.AbstractFileSystem, path: str) -> None:
        self._system, self._path = system, path
        self._file: pq.ParquetFile | None = None
        self._cached: tuple[int, pa.Table] = (-1, None)

    def names(self) -> list[str]:
        return list(self._opened().schema_arrow.names)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        file = self._opened()
        for batch in file.iter_batches(batch_size=8192, columns=columns):
            yield _with_text(pa.Table.from_batches([batch]))

    def rows(self, start: int, stop: int) -> pa.Table:
        file, pieces = self._opened(), []
        for group in range(int(np.searchsorted(self._ends, start, side="right")), len(self._ends)):
            begin = int(self._ends[group - 1]) if group else 0
            if begin >= stop:
                break
            if self._cached[0] != group:
                self._cached = (group, _with_text(file.read_row_group(group)))
            first = max(start - begin, 0)
            pieces.append(self._cached[1].slice(first, stop - begin - first))
        return pa.concat_tables(pieces) if pieces else _with_text(file.schema_arrow.empty_table())

    def _opened(self) -> pq.ParquetFile:
        if self._file is None:
            self._file = pq.ParquetFile(self._system.open(self._path, "rb"))
            metadata = self._file.metadata
            self._ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
        return self._file


class _CSV:
    """A CSV file is read from its begin: rows behind those that were asked for last cost a new start."""

    def __init__(self, system: fsspec.AbstractFileSystem, path: str) -> None:
        self._system, self._path = system, path
        self._names: list[str] | None = None
        self._position, self._held = 0, pa.table({})
        self._rest: Iterator[pa.Table] | None = None

    def names(self) -> list[str]:
        if self._names is None:
            with self._system.open(self._path, "rb") as file, pyarrow.csv.open_csv(file) as reader:
                self._names = list(reader.schema.names)
        return self._names

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        convert = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(self.names(), pa.string()), strings_can_be_null=False, include_columns=columns
        )
        with self._system.open(self._path, "rb") as file, pyarrow.csv.open_csv(file, convert_options=convert) as reader:
            for batch in reader:
                yield pa.Table.from_batches([batch])

    def rows(self, start: int, stop: int) -> pa.Table:
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


def _with_text(table: pa.Table) -> pa.Table:
    """The table with ``id``, ``clean`` and ``noisy`` as text, whatever they were stored as."""
    for position, name in enumerate(table.column_names):
        if name in COLUMNS and table[name].type != pa.string():
            table = table.set_column(position, name, pc.cast(table[name], pa.string()))
    return table


_READERS: dict[str, type[_CSV | _Parquet]] = {".csv": _CSV, ".parquet": _Parquet}
