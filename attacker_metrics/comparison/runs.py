"""Folders that ``attacker-metrics evaluate`` wrote -> scores of the same pairs in the same order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attacker_metrics._options import Affects, affected_by
from attacker_metrics.evaluation.options import EvaluateOptions, Found
from attacker_metrics.files.parquet import read_parquet
from attacker_metrics.files.run_files import SCORES, SUMMARY

_KINDS = {**affected_by(EvaluateOptions), **affected_by(Found)}
"""Setting -> what it affects; a setting that this release does not know is named where it differs."""
_MUST_AGREE = frozenset(name for name, kind in _KINDS.items() if kind is Affects.MEANING)
_MAY_DIFFER = frozenset(name for name, kind in _KINDS.items() if not kind.is_named_by_compare)

STRONGEST = "strongest"
_NULL = "null_digest"


class ComparisonError(ValueError):
    """Runs that cannot be compared: the message names what is wrong and what to do."""


@dataclass(frozen=True)
class Run:
    """The scores of one run.

    Args:
        name: what it is called: its folder's name.
        path: its folder.
        summary: its ``summary.json``.
        ids: (n,) name of every pair.
        columns: numeric column -> (n,) float64, NaN where there is none.
        groups: (n,) group of every pair, or None.
    """

    name: str
    path: Path
    summary: dict[str, Any]
    ids: list[str]
    columns: dict[str, NDArray[np.float64]]
    groups: list[str] | None

    @property
    def components(self) -> list[str]:
        """The columns that are scores, in the order of the summary."""
        names = [name for name in self.summary["components"] if name in self.columns]
        return [*names, STRONGEST] if STRONGEST in self.columns and STRONGEST not in names else names


def load_runs(paths: Sequence[Path]) -> list[Run]:
    """Read two or more runs; a run is called after its folder, or by its whole path where two have one name.

    Raises:
        ComparisonError: for less than two folders, one given twice, or one that holds no run.
    """
    if len(paths) < 2:
        raise ComparisonError(f"at least two runs are needed, got {len(paths)}.")
    resolved = [path.resolve() for path in paths]
    twice = [str(path) for path, count in Counter(resolved).items() if count > 1]
    if twice:
        raise ComparisonError(f"{twice[0]} is given twice; compare different runs.")
    names = Counter(path.name for path in resolved)
    return [
        _load(given, path.name if names[path.name] == 1 else str(given)) for given, path in zip(paths, resolved, strict=True)
    ]


def aligned(runs: Sequence[Run], *, common: bool = False) -> tuple[list[Run], list[str]]:
    """Bring the runs onto the same pairs, in the order of the first.

    Args:
        runs: what to compare; the groups of any of them count for all. Their columns ``strongest`` are dropped if they were
            measured against other unrelated originals: percentiles among 50 end at 0.98, among 1,000 at 0.999.
        common: keep the pairs that all have, instead of asking for the same ones.

    Returns:
        The runs, and the ids that were left out.

    Raises:
        ComparisonError: for pairs that not all runs have (unless ``common``), none in common, or groups that contradict.
    """
    shared = set(runs[0].ids).intersection(*(run.ids for run in runs[1:]))
    left_out = [name for name in dict.fromkeys(name for run in runs for name in run.ids) if name not in shared]
    if left_out and not common:
        lacking = "; ".join(
            f"{run.name} lacks {len(missing)} ({_some(missing)})" for run in runs if (missing := _without(left_out, run.ids))
        )
        raise ComparisonError(
            f"the runs hold different pairs, {len(shared)} in common: {lacking}. Evaluate the same pairs, or pass --common"
            " to compare those that all runs have."
        )
    if not shared:
        raise ComparisonError("the runs have no pair in common; pairs are matched by the column id of scores.parquet.")
    order = [name for name in runs[0].ids if name in shared]
    placed = [_in_order(run, order) for run in runs]
    if len({run.summary["settings"].get(_NULL) for run in runs}) > 1:
        placed = [_without_column(run, STRONGEST) for run in placed]
    groups = next((run.groups for run in placed if run.groups is not None), None)
    for run in placed:
        if groups is not None and run.groups is not None and run.groups != groups:
            odd = [name for name, mine, first in zip(order, run.groups, groups, strict=True) if mine != first]
            raise ComparisonError(f"{run.name} puts {len(odd)} pairs into other groups ({_some(odd)}); use one grouping.")
    return [replace(run, groups=groups) for run in placed], left_out


def check_settings(runs: Sequence[Run]) -> list[str]:
    """Refuse runs whose scores measure different things; return a note on every other setting that differs.

    Raises:
        ComparisonError: if a setting that decides what a score measures, or the specification's version, differs.
    """
    facts = [_facts(run) for run in runs]
    notes = []
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values = [fact.get(name) for fact in facts]
        if all(value == values[0] for value in values):
            continue
        shown = ", ".join(f"{value} in {run.name}" for run, value in zip(runs, values, strict=True))
        if name in _MUST_AGREE or name == "spec_version":
            raise ComparisonError(f"{name} differs: {shown}. These scores measure different things; evaluate alike.")
        notes.append(
            f"{name} differs: {shown}."
            if name != _NULL
            else f"{STRONGEST} is left out: the runs were measured against other unrelated originals. Evaluate the same"
            " pairs and attackers with the same --null to compare it."
        )
    return notes


def _facts(run: Run) -> dict[str, Any]:
    facts = {name: value for name, value in run.summary.items() if name.endswith("_version") or name in _MUST_AGREE}
    settings = {name: value for name, value in run.summary["settings"].items() if name not in _MAY_DIFFER}
    return {**facts, **settings, "components": run.components}


def _load(path: Path, name: str) -> Run:
    for file in (SUMMARY, SCORES):
        if not (path / file).is_file():
            raise ComparisonError(f"{path} holds no {file}; pass folders that attacker-metrics evaluate wrote.")
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        table = read_parquet(path / SCORES)
    except (ValueError, RecursionError) as error:
        raise ComparisonError(f"{path} cannot be read: {error}; evaluate again.") from error
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if "id" not in table.column_names or twice or not _is_summary(summary):
        raise ComparisonError(
            f"{path} is no run: column id, or components and settings of {SUMMARY}, are missing or of another kind"
            f"{f', or column {twice[0]!r} is there twice' if twice else ''}; evaluate again."
        )
    ids = [str(name) for name in table["id"].to_pylist()]
    twice = [pair for pair, count in Counter(ids).items() if count > 1]
    if twice:
        raise ComparisonError(f"{path}: {len(twice)} ids are there more than once ({_some(twice)}); pairs need names.")
    columns = {
        column: table[column].cast(pa.float64(), safe=False).to_numpy()  # a long integer, a seed say, is rounded
        for column in table.column_names
        if pa.types.is_floating(table.schema.field(column).type) or pa.types.is_integer(table.schema.field(column).type)
    }
    groups = None
    if "group" in table.column_names:
        groups = [str(group) for group in table["group"].to_pylist() if group is not None]
        if groups and len(groups) < len(ids):
            raise ComparisonError(f"{path}: {len(ids) - len(groups)} of {len(ids)} pairs have no group; name all or none.")
    return Run(name, path, summary, ids, columns, groups or None)


def _is_summary(found: Any) -> bool:
    """Whether what a JSON file holds has the parts of a summary that are read here, of the right kinds."""
    if not isinstance(found, dict):
        return False
    components, settings = found.get("components"), found.get("settings")
    if not isinstance(components, dict) or not isinstance(settings, dict):
        return False
    extra, eight_bit = settings.get("extra") or [], found.get("noisy_8bit", 0)
    return (
        isinstance(extra, list)
        and all(isinstance(name, str) for name in extra)
        and type(eight_bit) is int
        and type(settings.get(_NULL)) in (str, type(None))
    )


def _in_order(run: Run, order: list[str]) -> Run:
    place = {name: index for index, name in enumerate(run.ids)}
    rows = np.array([place[name] for name in order])
    groups = None if run.groups is None else [run.groups[row] for row in rows]
    return replace(run, ids=order, columns={name: column[rows] for name, column in run.columns.items()}, groups=groups)


def _without_column(run: Run, name: str) -> Run:
    return replace(run, columns={column: values for column, values in run.columns.items() if column != name})


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
