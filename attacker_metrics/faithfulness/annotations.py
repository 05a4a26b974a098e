"""The annotation table: who recognised which reconstruction, read, validated and aggregated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from attacker_metrics._warnings import warn
from attacker_metrics.faithfulness.spellings import (
    is_missing,
    is_unclear,
    named,
    one_class,
    spelled_differently,
    yes_or_no,
)
from attacker_metrics.faithfulness.tables import Column, TableError, read_table, shown

Floats = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]
Rule = Literal["majority", "any", "all", "mean"]
RULES: tuple[Rule, ...] = get_args(Rule)

KEYS = ("dataset", "model", "attack", "original", "reconstruction")
CLASS, RECOGNIZABLE, PREFIX = "class", "recognizable", "annotator_"
CANNOT_TELL = "-1"
"""An answer where classes are named, and a no; it is no class."""


@dataclass(frozen=True, eq=False)
class Annotations:
    """One row per reconstruction: where it comes from and which annotators recognised it.

    Args:
        dataset: of the original, ``(N,)`` strings, as the next four.
        model: what was attacked.
        attack: how.
        original: path or id of the original image within its data set.
        reconstruction: path or id of the reconstruction, unique.
        votes: annotator -> ``(N,)``: 1 recognised, 0 not recognised, NaN not asked.
        recognizable: ``(N,)`` the label under which the reconstruction was filed for training: 1, 0, or NaN for none.

    Raises:
        ValueError: if a reconstruction occurs twice, naming both rows, or a column has another length or other values.

    Example:
        >>> table = Annotations(
        ...     dataset=["cifar100"] * 2, model=["a"] * 2, attack=["gradients"] * 2, original=["7", "8"],
        ...     reconstruction=["a/7", "a/8"], votes={"ann": [1, 0], "bob": [1, 1], "cy": [0, 0]},
        ... )
        >>> table.recognized("majority")
        array([1., 0.])
        >>> table.recognized("mean").round(2)
        array([0.67, 0.33])
    """

    dataset: Sequence[str] | Strings
    model: Sequence[str] | Strings
    attack: Sequence[str] | Strings
    original: Sequence[str] | Strings
    reconstruction: Sequence[str] | Strings
    votes: Mapping[str, Sequence[float] | Floats]
    recognizable: Sequence[float] | Floats | None = None

    def __post_init__(self) -> None:
        for name in KEYS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.str_))
        votes = {name: _labels(name, column) for name, column in self.votes.items()}
        object.__setattr__(self, "votes", votes)
        if self.recognizable is not None:
            object.__setattr__(self, "recognizable", _labels(RECOGNIZABLE, self.recognizable))
        columns = {name: getattr(self, name) for name in KEYS} | votes
        columns |= {} if self.recognizable is None else {RECOGNIZABLE: self.recognizable}
        for name, column in columns.items():
            if column.shape != (len(self),):
                raise ValueError(f"column {name!r} has shape {column.shape}, reconstruction has {len(self)} rows.")
        if len(self) == 0:
            raise ValueError("the annotation table has no row.")
        if not votes and self.recognizable is None:
            raise ValueError(f"the table has neither a column {PREFIX}NAME nor {RECOGNIZABLE}: nobody judged anything.")
        first: dict[str, int] = {}
        for row, name in enumerate(np.asarray(self.reconstruction).tolist(), start=1):
            if name in first:
                raise ValueError(f"reconstruction {name!r} is in row {first[name]} and in row {row}; ids must be unique.")
            first[name] = row

    def __len__(self) -> int:
        return len(self.reconstruction)

    @property
    def clusters(self) -> Strings:
        """``(N,)``: which original a row belongs to; reconstructions of one original are not independent."""
        return _joined(self.dataset, self.original)

    @property
    def models(self) -> Strings:
        """``(N,)``: data set, model and attack as one name; rows that agree in the three are one model of the analysis."""
        return _joined(self.dataset, self.model, self.attack)

    @property
    def judges(self) -> dict[str, Floats]:
        """The votes to analyse: those of the annotators, or ``recognizable`` as the only one where there are none."""
        if self.votes:
            return {name: np.asarray(column) for name, column in self.votes.items()}
        return {RECOGNIZABLE: np.asarray(self.recognizable)}

    def recognized(self, rule: Rule = "majority") -> Floats:
        """Whether each reconstruction was recognised, of the answers that there are.

        Args:
            rule: ``"majority"``: more than half said so (a tie is a no); ``"any"``: at least one; ``"all"``: every one;
                ``"mean"``: the share that said so.

        Returns:
            ``(N,)`` in [0, 1]; NaN where nobody answered.

        Raises:
            ValueError: if the rule is unknown.
        """
        if rule not in RULES:
            raise ValueError(f"unknown rule {rule!r}; there are {', '.join(RULES)}.")
        votes = np.stack(list(self.judges.values()))
        asked = (~np.isnan(votes)).sum(axis=0)
        share: Floats = np.divide(np.nansum(votes, axis=0), asked, out=np.full(len(self), np.nan), where=asked > 0)
        if rule == "mean":
            return share
        decided = {"majority": share > 0.5, "any": share > 0, "all": share == 1}[rule]
        return np.where(asked > 0, decided.astype(np.float64), np.nan)


def read_annotations(path: Path) -> Annotations:
    """Read an annotation table, CSV with a header line or Parquet, one row per reconstruction.

    Columns: ``dataset, model, attack, original, reconstruction``; per annotator one column ``annotator_NAME`` with 1 / 0
    (recognised or not; also true / false, yes / no, 1.0 / 0.0) or nothing for not asked; optionally ``recognizable`` in the
    same form. With a column ``class``, which holds the true class, annotators' columns hold the class that each of them
    named instead: recognised is then whoever named the true one, and any other name, also -1 for "cannot tell", is a no.

    A vote is missing where the cell is empty or ``NA``, ``NaN``, ``None``, ``null``, ``N/A`` or ``<NA>``, in any case.
    Whatever might mean that (``-``, ``?``, ``missing``, ``#REF!``) is an error, unless it is some row's class. Classes are
    the same in every Unicode form and as 7 and 7.0. Spellings that differ in case, spaces or leading zeros only (``Cat`` and
    ``cat``, ``03`` and ``3``) count as one class, with a warning that names them; so does a data set, model or attack
    that has two such names, which stay two.

    Raises:
        TableError: naming the file, the row (1 = the first below the header), the column and what to write there.
        OSError: if the file cannot be read.
    """
    table = read_table(path)
    missing = [name for name in KEYS if name not in table]
    if missing:
        raise TableError(f"{path}: no column {shown(missing)}; an annotation table has {', '.join(KEYS)}.")
    unknown = [name for name in table if name not in (*KEYS, CLASS, RECOGNIZABLE) and not name.startswith(PREFIX)]
    if unknown:
        raise TableError(
            f"{path}: column {shown(unknown)} is not part of an annotation table; name annotators' columns {PREFIX}NAME and"
            " leave others out."
        )
    for name in KEYS:
        for row, cell in enumerate(table[name], start=1):
            if cell == "":
                raise TableError(f"{path}, row {row}: {name} is empty.")
    _warn_of_names(path, table)
    annotators = [name for name in table if name.startswith(PREFIX)]
    if PREFIX in annotators:
        raise TableError(f"{path}: column {PREFIX!r} names nobody; write {PREFIX}NAME.")
    if CLASS in table:
        votes = _right_classes(path, {name: table[name] for name in annotators}, table[CLASS])
    else:
        votes = {name: _yes_or_no(path, name, table[name]) for name in annotators}
    recognizable = _yes_or_no(path, RECOGNIZABLE, table[RECOGNIZABLE]) if RECOGNIZABLE in table else None
    keys: dict[str, Any] = {name: table[name] for name in KEYS}
    try:
        return Annotations(
            **keys, votes={name.removeprefix(PREFIX): v for name, v in votes.items()}, recognizable=recognizable
        )
    except ValueError as error:
        raise TableError(f"{path}: {error}") from error


def _yes_or_no(path: Path, name: str, cells: Column) -> Floats:
    values = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells, start=1):
        if is_missing(cell):
            continue
        answer = yes_or_no(cell)
        if answer is None:
            raise TableError(
                f"{path}, row {row}: {name} is {cell!r}; write 1 for recognised, 0 for not, nothing for not asked (or add"
                f" the column {CLASS!r} if annotators named classes)."
            )
        values[row - 1] = answer
    return values


def _right_classes(path: Path, answers: dict[str, Column], truth: Column) -> dict[str, Floats]:
    """Per annotator 1 where the true class was named, 0 where another one was, NaN where there is no answer."""
    for row, cell in enumerate(truth, start=1):
        if is_missing(cell):
            found = "is empty" if cell == "" else f"is {cell!r}, which reads as a missing cell; rename the class"
            raise TableError(f"{path}, row {row}: {CLASS} {found}; it holds the true class.")
        if one_class(cell) == CANNOT_TELL:
            raise TableError(
                f'{path}, row {row}: {CLASS} is {cell!r}, which annotators say for "cannot tell"; rename the class.'
            )
    classes = [one_class(cell) for cell in truth]
    known = set(classes)
    given = set()
    votes = {}
    for name, cells in answers.items():
        votes[name] = np.full(len(cells), np.nan)
        for row, (cell, right) in enumerate(zip(cells, classes, strict=True)):
            if is_missing(cell):
                continue
            if is_unclear(cell) and one_class(cell) not in known:
                raise TableError(
                    f"{path}, row {row + 1}: {name} is {cell!r}, which is no row's class; write nothing for not asked, and"
                    f" {CANNOT_TELL} for an annotator who could not tell."
                )
            given.add(cell)
            votes[name][row] = one_class(cell) == right
    _check_answers_are_classes(path, given, known)
    twice = spelled_differently([*truth, *given])
    if twice:
        warn(
            f"{path}: {named(twice)} differ in case, spaces or leading zeros only and count as one class; spell a class in"
            " one way, or give two classes two names."
        )
    return votes


def _check_answers_are_classes(path: Path, given: set[str], known: set[str]) -> None:
    said = {one_class(cell) for cell in given} - {CANNOT_TELL}
    if said and not said & known and all(yes_or_no(cell) is not None for cell in said):
        raise TableError(
            f"{path}: annotators' columns hold only {shown(sorted(said))}, but the table has a column {CLASS!r}, and then"
            f" they hold the classes that were named; leave {CLASS!r} out if 1 means recognised."
        )


def _warn_of_names(path: Path, table: dict[str, Column]) -> None:
    """Of a data set, a model, an attack or an annotator with two names; whether it is one, only the user knows."""
    columns = {name: table[name] for name in ("dataset", "model", "attack")}
    columns["annotator"] = [name.removeprefix(PREFIX) for name in table if name.startswith(PREFIX)]
    found = [f"{what} {named(twice)}" for what, cells in columns.items() if (twice := spelled_differently(cells))]
    if found:
        warn(
            f"{path}: {', '.join(found)} differ in case, spaces or leading zeros only and count as different ones; spell"
            " each in one way if they are the same."
        )


def _labels(name: str, column: Sequence[float] | Floats) -> Floats:
    cells = column.tolist() if hasattr(column, "tolist") else list(column)
    values = np.full(np.shape(cells), np.nan)
    for row, cell in enumerate(cells if values.ndim == 1 else ()):
        text = str(cell)  # pandas' missing values are unlike everything, themselves too
        if not is_missing(text):
            answer = yes_or_no(text)
            if answer is None:
                raise ValueError(f"column {name!r}, row {row + 1} is {cell!r}; votes are 1, 0 or NaN.")
            values[row] = answer
    return values


def _joined(*columns: Sequence[str] | Strings) -> Strings:
    return np.asarray([" / ".join(parts) for parts in zip(*(np.asarray(c).tolist() for c in columns), strict=True)])
