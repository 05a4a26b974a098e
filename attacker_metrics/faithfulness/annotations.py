"""The annotation table: who recognised which reconstruction, read, validated and aggregated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from attacker_metrics.faithfulness.tables import Column, TableError, read_table, shown

Floats = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]
Rule = Literal["majority", "any", "all", "mean"]
RULES: tuple[Rule, ...] = get_args(Rule)

KEYS = ("dataset", "model", "attack", "original", "reconstruction")
CLASS, RECOGNIZABLE, PREFIX = "class", "recognizable", "annotator_"
_YES, _NO = ("1", "true", "yes"), ("0", "false", "no")
_MISSING = ("", "nan", "NaN")  # what an empty cell of a table of floats becomes


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
    (recognised or not; also true / false, yes / no) or empty for not asked; optionally ``recognizable`` in the same form.
    With a column ``class``, which holds the true class, annotators' columns hold the class that each of them named instead:
    recognised is then whoever named the true one, and any other value, such as -1 for "cannot tell", is a no.

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
    annotators = [name for name in table if name.startswith(PREFIX)]
    if CLASS in table:
        votes = {name: _answers(path, table[name], table[CLASS]) for name in annotators}
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
        # Tables are written by way of floats, because of empty cells.
        text = "" if cell in _MISSING else cell.lower().removesuffix(".0")
        if text in _YES or text in _NO:
            values[row - 1] = text in _YES
        elif text:
            raise TableError(
                f"{path}, row {row}: {name} is {cell!r}; write 1 for recognised, 0 for not, nothing for not asked (or add"
                f" the column {CLASS!r} if annotators named classes)."
            )
    return values


def _answers(path: Path, cells: Column, truth: Column) -> Floats:
    values = np.full(len(cells), np.nan)
    for row, (cell, true_class) in enumerate(zip(cells, truth, strict=True), start=1):
        if true_class == "":
            raise TableError(f"{path}, row {row}: {CLASS} is empty; it holds the true class.")
        if cell not in _MISSING:
            values[row - 1] = cell.removesuffix(".0") == true_class.removesuffix(".0")
    return values


def _labels(name: str, column: Sequence[float] | Floats) -> Floats:
    values = np.asarray(column, dtype=np.float64)
    wrong = np.flatnonzero(~(np.isnan(values) | (values == 0) | (values == 1)))
    if wrong.size:
        raise ValueError(f"column {name!r}, row {wrong[0] + 1} is {values[wrong[0]]:g}; votes are 1, 0 or NaN.")
    return values


def _joined(*columns: Sequence[str] | Strings) -> Strings:
    return np.asarray([" / ".join(parts) for parts in zip(*(np.asarray(c).tolist() for c in columns), strict=True)])
