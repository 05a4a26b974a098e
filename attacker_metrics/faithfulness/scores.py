"""The score table: one number per metric and reconstruction, paired with annotations by id, each with its direction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from attacker_metrics.faithfulness.annotations import Annotations, Floats
from attacker_metrics.faithfulness.spellings import is_missing
from attacker_metrics.faithfulness.tables import TableError, read_table, shown
from attacker_metrics.metrics.leakage_direction import METRIC_FACTS, Direction, leakage_direction

ID_COLUMNS = ("reconstruction", "id")
ALIGNMENT_COLUMNS = ("flipped", "shift_y", "shift_x")
"""What :func:`attacker_metrics.faithfulness.align` did to the original before it was scored; not scores."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of reconstructions.

    Args:
        ids: ``(N,)`` names of the reconstructions, unique.
        columns: metric -> ``(N,)`` scores; NaN where a metric has none, infinity is a value.
        directions: metric -> ``"higher"`` or ``"lower"`` = more leakage; only for metrics that declare none of their own in
            :data:`attacker_metrics.metrics.METRIC_FACTS`.
        aligned: ``(N,)`` whether the original was flipped or shifted to fit before scoring, if alignment was asked for.

    Raises:
        ValueError: if an id occurs twice, a column has another length, or a metric's direction is declared nowhere or given
            as the opposite of what it declares.

    Example:
        >>> scores = Scores(["a", "b"], {"psnr": [21.0, 9.5], "mine": [0.2, 0.9]}, {"mine": "lower"})
        >>> scores.leaking("mine")  # higher = leaks more, for every metric
        array([-0.2, -0.9])
    """

    ids: Sequence[str]
    columns: Mapping[str, Sequence[float] | Floats]
    directions: Mapping[str, Direction] | None = None
    aligned: npt.NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("a score table needs at least one metric's column.")
        first: dict[str, int] = {}
        for row, name in enumerate(self.ids, start=1):
            if name in first:
                raise ValueError(f"id {name!r} is in row {first[name]} and in row {row}; ids must be unique.")
            first[name] = row
        columns = {name: _floats(name, column) for name, column in self.columns.items()}
        for name, column in columns.items():
            if column.shape != (len(self.ids),):
                raise ValueError(f"column {name!r} has shape {column.shape}, there are {len(self.ids)} ids.")
        given = dict(self.directions or {})
        unused = [name for name in given if name not in columns]
        if unused:
            raise ValueError(f"a direction is given for {shown(unused)}, but there are only {', '.join(columns)}.")
        for name, direction in given.items():
            if direction not in ("higher", "lower"):
                raise ValueError(f"the direction of {name!r} is {direction!r}; it is 'higher' or 'lower' (= more leakage).")
            if name in METRIC_FACTS and direction != leakage_direction(name):
                raise ValueError(
                    f"{name!r} declares that {leakage_direction(name)!r} means more leakage, not {direction!r}; if the"
                    " column holds something else, give it another name."
                )
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "directions", {name: given.get(name) or leakage_direction(name) for name in columns})

    def leaking(self, name: str) -> Floats:
        """A metric's scores ``(N,)``, turned so that higher = more leakage."""
        sign = 1.0 if dict(self.directions or {})[name] == "higher" else -1.0
        return sign * np.asarray(self.columns[name])


@dataclass(frozen=True, eq=False)
class Paired:
    """Scores and annotations of the same reconstructions, row by row.

    Args:
        scores: the scores, in the order of ``rows``.
        rows: ``(N,)`` rows of the annotation table.
        unmatched_scores: ids that have scores and no annotation.
        unmatched_annotations: reconstructions that are annotated and have no score.
        incomplete: reconstructions left out because a score is NaN or nobody judged them.
    """

    scores: Scores
    rows: npt.NDArray[np.intp]
    unmatched_scores: tuple[str, ...]
    unmatched_annotations: tuple[str, ...]
    incomplete: tuple[str, ...]


def pair(scores: Scores, annotations: Annotations, *, allow_unmatched: bool = False) -> Paired:
    """Match scores and annotations by the reconstruction's id, never by the order of the rows.

    Args:
        scores: whose ids are the annotations' ``reconstruction``, with or without the file's suffix.
        annotations: the annotations.
        allow_unmatched: leave rows without a partner out, and list them, instead of raising.

    Raises:
        ValueError: if a row has no partner (unless allowed), an id without suffix fits two reconstructions, or nothing is
            left.
    """
    names = np.asarray(annotations.reconstruction).tolist()
    row_of = {name: row for row, name in enumerate(names)}
    without_suffix: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        without_suffix.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(row)
    found: list[tuple[int, int]] = []
    unmatched = []
    for index, name in enumerate(scores.ids):
        rows = [row_of[name]] if name in row_of else without_suffix.get(name, [])
        if len(rows) > 1:
            raise ValueError(f"id {name!r} fits {shown([names[row] for row in rows])}; write the suffix too.")
        if rows:
            found.append((index, rows[0]))
        else:
            unmatched.append(name)
    scored = Counter(row for _, row in found)
    twice = [names[row] for row, count in scored.items() if count > 1]
    if twice:
        raise ValueError(f"several scores belong to {shown(twice)}.")
    without_score = [name for row, name in enumerate(names) if row not in scored]
    if (unmatched or without_score) and not allow_unmatched:
        raise ValueError(
            f"{len(unmatched)} scores have no annotation ({shown(unmatched) or 'none'}) and {len(without_score)} annotated"
            f" reconstructions have no score ({shown(without_score) or 'none'}); ids must be the column 'reconstruction' of"
            " the annotations. To leave them out: --allow-unmatched (in Python: allow_unmatched=True)."
        )
    usable = ~np.isnan(np.stack(list(scores.columns.values()))).any(axis=0)
    judged = ~np.isnan(annotations.recognized("mean"))
    complete = [(index, row) for index, row in found if usable[index] and judged[row]]
    if not complete:
        raise ValueError("no reconstruction has both a score of every metric and an annotation.")
    kept = np.asarray([index for index, _ in complete])
    return Paired(
        scores=Scores(
            [scores.ids[index] for index in kept],
            {name: np.asarray(column)[kept] for name, column in scores.columns.items()},
            scores.directions,
            None if scores.aligned is None else scores.aligned[kept],
        ),
        rows=np.asarray([row for _, row in complete], dtype=np.intp),
        unmatched_scores=tuple(unmatched),
        unmatched_annotations=tuple(without_score),
        incomplete=tuple(names[row] for index, row in found if not (usable[index] and judged[row])),
    )


def read_scores(
    path: Path, directions: Mapping[str, Direction] | None = None, metrics: Sequence[str] | None = None
) -> Scores:
    """Read a score table, CSV with a header line or Parquet: a column ``reconstruction`` or ``id``, and one per metric.

    The ``scores.parquet`` of ``attacker-metrics evaluate`` is one. Empty cells, and ``NA``, ``NaN``, ``None`` or ``null``,
    are missing scores. Columns ``flipped``, ``shift_y``, ``shift_x`` say how the original was aligned.

    Args:
        path: the file.
        directions: metric -> ``"higher"`` or ``"lower"`` = more leakage, for columns that declare none of their own.
        metrics: which columns to read; by default every one.

    Raises:
        TableError: naming the file, the row, the column and what to write there.
        OSError: if the file cannot be read.
    """
    table = read_table(path)
    ids = [name for name in ID_COLUMNS if name in table]
    if len(ids) != 1:
        raise TableError(f"{path}: a score table has one column 'reconstruction' (or 'id'); found {shown(list(table))}.")
    numbers = {
        name: _numbers(path, name, cells) for name, cells in table.items() if name not in ids and _asked(name, metrics)
    }
    missing = [name for name in metrics or () if name not in numbers]
    if missing:
        raise TableError(f"{path}: no column {shown(missing)}; there are {shown(list(table), limit=30)}.")
    aligned = [_numbers(path, name, table[name]) != 0 for name in ALIGNMENT_COLUMNS if name in table]
    try:
        return Scores(table[ids[0]], numbers, directions, np.logical_or.reduce(aligned) if aligned else None)
    except ValueError as error:
        raise TableError(f"{path}: {error}") from error


def _floats(name: str, column: Sequence[float] | Floats) -> Floats:
    try:
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):  # pandas' missing values, or text
        cells = column.tolist() if hasattr(column, "tolist") else list(column)
    wrong = [cell for cell in cells if not is_missing(str(cell)) and not isinstance(cell, (int, float))]
    if wrong:
        raise ValueError(f"column {name!r} holds {wrong[0]!r}, not a number; NaN is a missing score.")
    return np.asarray([np.nan if is_missing(str(cell)) else float(cell) for cell in cells])


def _asked(name: str, metrics: Sequence[str] | None) -> bool:
    return name not in ALIGNMENT_COLUMNS and (metrics is None or name in metrics)


def _numbers(path: Path, name: str, cells: Sequence[str]) -> Any:
    row, cell = 0, ""
    values = np.full(len(cells), np.nan)
    try:
        for row, cell in enumerate(cells):
            if not is_missing(cell):
                values[row] = _number(cell)
    except ValueError:
        raise TableError(
            f"{path}, row {row + 1}: {name} is {cell!r}, not a number; write nothing where there is no score, choose columns"
            " by --metric, or leave this one out."
        ) from None
    return values


def _number(cell: str) -> float:
    if "_" in cell:  # Python's way to group digits, nobody else's
        raise ValueError
    return float({"true": "1", "false": "0"}.get(cell.lower(), cell))
