"""Which pairs are for fitting only, and the two sides of that split as sources of pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attacker_metrics._names import DEFAULT_FIT_SHARE
from attacker_metrics.files.images import one_spelling
from attacker_metrics.pairs.sources import FailedPair, LoadedPair, PairSource, Unused
from attacker_metrics.reading.learned import in_fit_split

COLUMN = "split"
FIT, SCORE = "fit", "score"
"""What the column may hold."""
DEFAULT_SHARE = DEFAULT_FIT_SHARE
_ROWS = 4096
_NAMED = 5
_APART = ("group", "clean")
"""Columns of which no value may be on both sides."""


class SplitError(ValueError):
    """Pairs that cannot be split; the message names rows and what to do."""


def fit_rows(source: PairSource, total: int, share: float | None) -> tuple[NDArray[np.bool_], str]:
    """Decide for every pair whether it is for fitting.

    The column ``split`` decides if there is one; otherwise a hash of the pair's group, or of its clean file, or of its id,
    whichever is known first, so that all pictures of a person are on one side, in every run.

    Args:
        source: all pairs.
        total: how many there are.
        share: how many of all go to the fit split, in (0, 1), or None for the column ``split`` or else a half.

    Returns:
        ``(total,)``: True for the fit split; and what decided, in words. Eight bytes per pair and column are held meanwhile.

    Raises:
        SplitError: if a cell of ``split`` is something else, ``split`` and a share are given, a group or clean file is on
            both sides, or one side is empty.
    """
    fit = np.zeros(total, bool)
    hashes: dict[str, NDArray[np.int64]] = {}
    wrong: list[str] = []
    rule = ""
    for start, table in _tables(source, total):
        names = table.column_names
        if COLUMN in names:
            if share is not None:
                raise SplitError(
                    "the column split says which pairs are for fitting: leave --fit-split out, or rename the column."
                )
            rule, cells = f"column {COLUMN}", _text(table, COLUMN)
            wrong += [f"row {start + i + 1}: {cell!r}" for i, cell in enumerate(cells) if cell not in (FIT, SCORE)]
            if len(wrong) > _NAMED:
                break
            fit[start : start + len(table)] = [cell == FIT for cell in cells]
        else:
            # Group is named for all pairs or for none.
            name = next(
                name for name in ("group", "clean", "id") if name in names and table[name][0].as_py() not in (None, "")
            )
            rule, keys = f"hash of {name}", _text(table, name)
            fit[start : start + len(table)] = [in_fit_split(key, share=share or DEFAULT_SHARE) for key in keys]
        for name in _APART:
            if name in names:
                hashed = np.fromiter(map(hash, _text(table, name)), np.int64, len(table))
                hashes.setdefault(name, np.zeros(total, np.int64))[start : start + len(table)] = hashed
    if wrong:
        named = "; ".join(wrong[:_NAMED]) + ("; ..." if len(wrong) > _NAMED else "")
        raise SplitError(f"the column split must hold {FIT} or {SCORE}, but {named}.")
    for name, hashed in hashes.items():
        _check_apart(source, name, fit, np.intersect1d(hashed[fit], hashed[~fit]))
    if fit.all() or not fit.any():
        side, other = ("fitting", "score") if fit.all() else ("scoring", "fit on")
        raise SplitError(
            f"all {total} pairs are for {side}, none is left to {other}: give pairs of more groups or clean files, another"
            f" --fit-split, or a column {COLUMN} that holds {FIT} or {SCORE}."
        )
    return fit, rule


class Side:
    """Some pairs of a source, as a source of their own.

    Args:
        source: all pairs.
        positions: ascending numbers of the pairs to keep.
    """

    def __init__(self, source: PairSource, positions: NDArray[np.int64]) -> None:
        self._source, self._positions = source, positions
        self.groups = None if source.groups is None else [source.groups[i] for i in positions.tolist()]

    @property
    def unmatched(self) -> Sequence[str]:
        """Files that the source left out."""
        return self._source.unmatched

    @property
    def unused(self) -> Unused:
        """What lies beside the images of the source."""
        return self._source.unused

    def check(self) -> tuple[int, str]:
        """Number of pairs, and nothing to tell them apart by: the whole source's own check has done so."""
        return len(self._positions), ""

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows of the pairs from ``start`` to before ``stop``."""
        positions = self._positions[start:stop]
        if not len(positions):
            return self._source.rows(0, 0)
        # Rows of the other side in between are read and dropped, but not long runs of them.
        cuts = np.flatnonzero(np.diff(positions) > _ROWS) + 1
        pieces = []
        for begin, end in pairwise([0, *cuts.tolist(), len(positions)]):
            near = positions[begin:end]
            table = self._source.rows(int(near[0]), int(near[-1]) + 1)
            pieces.append(table.take(pa.array(near - near[0])))
        return pa.concat_tables(pieces)

    def load(self, index: int, row: dict[str, str]) -> LoadedPair | FailedPair:
        """Read the images of a pair."""
        return dataclasses.replace(self._source.load(int(self._positions[index]), row), index=index)


def sides(source: PairSource, fit: NDArray[np.bool_]) -> tuple[Side, Side]:
    """The pairs to fit on, and those to score.

    Args:
        source: all pairs.
        fit: which are for fitting, as :func:`fit_rows` says.
    """
    return Side(source, np.flatnonzero(fit)), Side(source, np.flatnonzero(~fit))


def _check_apart(source: PairSource, name: str, fit: NDArray[np.bool_], suspects: NDArray[np.int64]) -> None:
    """Hashes say which values may be on both sides: find these, and where."""
    if not len(suspects):
        return
    rows: dict[str, dict[bool, int]] = {}
    for start, table in _tables(source, len(fit)):
        cells = _text(table, name)
        for i in np.flatnonzero(np.isin(np.fromiter(map(hash, cells), np.int64, len(cells)), suspects)).tolist():
            if cells[i]:
                rows.setdefault(cells[i], {}).setdefault(bool(fit[start + i]), start + i + 1)
    both = [
        f"{value!r} (row {found[True]} is for fitting, row {found[False]} is scored)"
        for value, found in rows.items()
        if len(found) == 2
    ]
    if both:
        more = f" and {len(both) - _NAMED} more" if len(both) > _NAMED else ""
        raise SplitError(
            f"an attacker must not be scored on what it was fitted on, but {len(both)} values of {name} are on both sides of"
            f" the split: {', '.join(both[:_NAMED])}{more}. Put all pairs of one {name} on one side."
        )


def _tables(source: PairSource, total: int) -> Iterator[tuple[int, pa.Table]]:
    for start in range(0, total, _ROWS):
        yield start, source.rows(start, min(start + _ROWS, total))


def _text(table: pa.Table, name: str) -> list[str]:
    cells: list[str] = table[name].cast(pa.string()).fill_null("").to_pylist()
    return list(map(one_spelling, cells)) if name == "clean" else cells
