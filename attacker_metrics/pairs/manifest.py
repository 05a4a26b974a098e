"""A CSV or Parquet file that lists pairs, read a row group at a time -> pairs of image tensors."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attacker_metrics.files.decoding import DEFAULT, Decoding
from attacker_metrics.files.locations import open_location, reason
from attacker_metrics.files.parquet import ParquetError
from attacker_metrics.files.regular import LocationError
from attacker_metrics.files.urls import is_url
from attacker_metrics.pairs.manifest_rows import COLUMNS, CSVRows, ManifestError, ParquetRows
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, Unused, load_draws, load_pair_or_failure

__all__ = ["ManifestError", "ManifestPairs"]
_SEPARATOR = ";"
_NAMED = 5
"""How many offending rows an error message lists."""


class ManifestPairs:
    """The pairs that a manifest lists: columns ``id``, ``clean`` and ``noisy``, and further ones that go into the scores.

    ``clean`` and ``noisy`` are URLs (``file://``, ``http://``, ``https://``, ``s3://``, ``gs://``, ``memory://``), or paths,
    relative to the manifest. Cells of a CSV file are text, also in further columns; they are separated by commas, or by
    semicolons or tabs if the header is.

    At most one row group (of a CSV file, a block of some thousand rows) is held; :meth:`check` needs eight bytes per row.

    Args:
        location: path or URL of the manifest, ``.csv`` or ``.parquet``.
        side: if given, both images are scaled so that their smaller side has this many pixels.
        reserved: names that a further column must not have.
        draws: above 1, every ``noisy`` cell lists so many files, separated by semicolons.
        decoding: how files are read.

    Raises:
        ManifestError: if the manifest is of another kind, unreadable, or lacks a column.
        ImportError: if fsspec lacks a package for the URL's protocol.
    """

    groups: list[str] | None = None
    unmatched: tuple[str, ...] = ()
    unused: Unused = MappingProxyType({})

    def __init__(
        self,
        location: str,
        *,
        side: int | None = None,
        reserved: tuple[str, ...] = (),
        draws: int = 1,
        decoding: Decoding = DEFAULT,
    ) -> None:
        self.location, self._draws = location, draws
        self._side, self._reading = side, decoding
        suffix = PurePosixPath(urlsplit(location).path if is_url(location) else location).suffix.lower()
        if suffix not in _READERS:
            raise ManifestError(f"{location} must end in {' or '.join(_READERS)}, got {suffix or 'no suffix'!r}.")
        self._folder = location.rsplit("/", 1)[0] if is_url(location) else str(Path(location).absolute().parent)
        self._reader = _READERS[suffix](lambda: open_location(location, decoding.timeout))
        with self._readable("cannot be read"):
            names = self._reader.names()
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise ManifestError(f"{location} lacks the column {', '.join(missing)}; it has {', '.join(names) or 'none'}.")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ManifestError(f"{location} has several columns named {', '.join(doubled)}; rename all but one.")
        taken = [name for name in names if name in reserved]
        if taken:
            raise ManifestError(f"{location}: {', '.join(taken)} is the name of a score; rename the column.")

    @contextlib.contextmanager
    def _readable(self, otherwise: str) -> Iterator[None]:
        """Whatever goes wrong in reading names the manifest."""
        try:
            yield
        except (ImportError, MemoryError):
            raise
        except ManifestError as error:
            raise ManifestError(f"{self.location}: {error}") from error
        except (LocationError, ParquetError) as error:
            raise ManifestError(f"{self.location} {otherwise}: {error}") from error
        except Exception as error:  # of Arrow and of file systems
            raise ManifestError(f"{self.location} {otherwise}: {type(error).__name__}: {reason(error)}") from error

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
        for table in self._tables():
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
        with self._readable("has become unreadable since the run began"):
            table = self._reader.rows(start, stop)
        if len(table) != stop - start:
            raise ManifestError(f"{self.location} has become shorter since the run began.")
        return table.select(sorted(table.column_names, key=lambda name: name != "id"))

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:
        """Read the images of a row."""
        clean = self._locate(row["clean"])
        draws = self._noisy(row["noisy"])
        if self._draws == 1:
            return load_pair_or_failure(clean, draws[0], index=index, side=self._side, decoding=self._reading)
        return load_draws(clean, draws, index=index, side=self._side, decoding=self._reading)

    def files(self) -> Iterator[Path | str]:
        """Every file or URL that is read."""
        for table in self._tables(["clean", "noisy"]):
            for clean, noisy in zip(
                *(self._text(table, name).fill_null("").to_pylist() for name in ("clean", "noisy")), strict=True
            ):
                yield self._locate(clean)
                yield from self._noisy(noisy)

    def _noisy(self, cell: str) -> list[Path | str]:
        """The files of a row's noisy side, one per draw."""
        return [self._locate(name) for name in ([cell] if self._draws == 1 else map(str.strip, cell.split(_SEPARATOR)))]

    def _tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        tables = self._reader.tables(columns)
        while True:
            with self._readable("cannot be read"):
                table = next(tables, None)
            if table is None:
                return
            yield table

    def _text(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        try:
            return table[name].cast(pa.string())
        except pa.ArrowException as error:
            raise ManifestError(
                f"{self.location}: the column {name} holds {table[name].type}, which is neither text nor a number;"
                " leave it out."
            ) from error

    def _locate(self, cell: str) -> Path | str:
        bare = cell.strip()
        if is_url(bare):
            return bare
        if is_url(self._folder) and not bare.startswith("/"):
            return f"{self._folder}/{bare}"
        if bare != cell and os.path.lexists(Path(self._folder, cell)):  # a name may begin or end in spaces
            return Path(self._folder, cell)
        return Path(self._folder, bare)

    def _check_duplicates(self, hashes: NDArray[np.int64]) -> None:
        """Find equal ids by their hashes first: eight bytes per row, not a set of strings."""
        hashes.sort()
        suspects = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if len(suspects) == 0:
            return
        seen: dict[str, list[int]] = defaultdict(list)
        row = 1
        for table in self._tables(["id"]):
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


_READERS: dict[str, type[CSVRows | ParquetRows]] = {".csv": CSVRows, ".parquet": ParquetRows}
