"""What each run is worth to whoever uses the pictures: from a file, or the mean of a column of the runs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attacker_metrics.comparison.runs import ComparisonError, Run
from attacker_metrics.files.regular import LocationError, open_regular
from attacker_metrics.statistics import Estimate, mean_interval


def utility_from_file(path: Path, runs: Sequence[Run]) -> dict[str, Estimate]:
    """Read a CSV file with the columns ``run``, ``utility`` and, if known, ``lower`` and ``upper``.

    Args:
        path: the file; lines of other runs are passed over.
        runs: the runs that need a utility.

    Returns:
        Name of a run -> utility with its interval, NaN where the file has none.

    Raises:
        ComparisonError: for a missing column or run, a run given twice, or numbers that are none or out of order.
    """
    rows = _rows(path)
    present = dict.fromkeys(row["run"] or "" for _, row in rows)
    missing = [run.name for run in runs if run.name not in present]
    if missing:
        raise ComparisonError(f"{path} has no line for {', '.join(missing)}; it has {', '.join(present) or 'none'}.")
    wanted = {run.name for run in runs}
    found: dict[str, Estimate] = {}
    for where, row in rows:
        name = row["run"]
        if name not in wanted:
            continue
        value, low, high = (_number(row.get(column), where, column) for column in ("utility", "lower", "upper"))
        if math.isnan(value):
            raise ComparisonError(f"{where}: utility is empty; give a number.")
        if name in found:
            raise ComparisonError(f"{where}: run {name} is there twice; keep one line.")
        if low > value or high < value:
            raise ComparisonError(f"{where}: lower <= utility <= upper does not hold: {low:g}, {value:g}, {high:g}.")
        found[name] = Estimate(value, low, high)
    return {run.name: found[run.name] for run in runs}


def utility_from_column(column: str, runs: Sequence[Run]) -> dict[str, Estimate]:
    """The mean of a numeric column of each run's ``scores.parquet``, with its bootstrap interval.

    Raises:
        ComparisonError: for a run without the column, or without a number in it.
    """
    found = {}
    for run in runs:
        if column not in run.columns:
            raise ComparisonError(f"{run.name} has no column {column!r}; it has {', '.join(run.columns)}.")
        values = run.columns[column]
        known = np.isfinite(values)
        if not known.any():
            raise ComparisonError(f"column {column!r} of {run.name} holds no number.")
        groups = None if run.groups is None else np.asarray(run.groups)[known]
        found[run.name] = mean_interval(values[known], groups, bounds=(-np.inf, np.inf))
    return found


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Where each line is, for messages, and its cells by column."""
    try:
        with io.TextIOWrapper(open_regular(path), newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            if not {"run", "utility"} <= set(columns):
                raise ComparisonError(f"{path} needs the columns run and utility, got {', '.join(columns) or 'none'}.")
            return [(f"{path}, line {rows.line_num}", row) for row in rows]
    except (UnicodeDecodeError, csv.Error, LocationError) as error:
        raise ComparisonError(f"{path} is no CSV file in UTF-8: {str(error).rstrip('.')}; save it as one.") from error


def _number(text: str | None, where: str, name: str) -> float:
    if not text or not text.strip():
        return math.nan
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if not math.isfinite(number):
        raise ComparisonError(f"{where}: {name} is {text!r}, not a number.")
    return number
