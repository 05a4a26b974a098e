"""Answers -> CSV: the annotation table of ``faithfulness`` and ``semsim train``, and the log of all answers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from attacker_metrics.annotation.answers import Answer, main_answers, read_answers
from attacker_metrics.annotation.database import Database, DatabaseFileError
from attacker_metrics.annotation.store import Store
from attacker_metrics.evaluation.report import staged
from attacker_metrics.faithfulness.annotations import CANNOT_TELL, CLASS, KEYS, PREFIX

_LOG_COLUMNS = (
    *("annotator", "position", "kind", *KEYS, "shown_original", "answer", "expected", "right"),
    *("seconds", "visible_seconds", "answered_at", "undone"),
)


def table_csv(store: Store) -> str:
    """The annotation table.

    In a category task a cell holds the class that was named, beside a column ``class`` with the right one; in a pair task 1
    for "same" and 0 for "different". "Cannot tell" is an answer, and a no: -1, or 0 in a pair task. A cell is empty only
    where the annotator has not answered.

    Raises:
        DatabaseFileError: if there is no vote.
    """
    given = main_answers(read_answers(store))
    if not given:
        raise DatabaseFileError(f"{store.database.path} holds no vote yet; there is nothing to export.")
    with_class = store.settings.task == "category"
    rows = [[*KEYS, *([CLASS] if with_class else []), *(PREFIX + name for name in given)]]
    for k, item in enumerate(store.items):
        row = [getattr(item, name) for name in KEYS] + ([item.category] if with_class else [])
        rows.append(row + [_cell(answers.get(k), with_class=with_class) for answers in given.values()])
    return _csv(rows)


def log_csv(store: Store) -> str:
    """Every answer with its time, repeats, catch trials and undone ones too; ``position`` counts from 1."""
    rows: list[Iterable[object]] = [_LOG_COLUMNS]
    for answer in read_answers(store):
        item = store.items[answer.item]
        rows.append(
            [
                *(answer.annotator, answer.position + 1, answer.kind),
                *(getattr(item, name) for name in KEYS),
                _shown_original(store, answer),
                CANNOT_TELL if answer.answer is None else answer.answer,
                *(answer.expected, int(answer.right), f"{answer.seconds:.3f}"),
                "" if answer.visible_seconds is None else f"{answer.visible_seconds:.3f}",
                datetime.fromtimestamp(answer.answered_at, timezone.utc).isoformat(timespec="milliseconds"),
                int(answer.undone),
            ]
        )
    return _csv(rows)


def export(database: Path, output: Path) -> tuple[Path, Path]:
    """Write the table to ``output`` and the log beside it, ``NAME-answers.csv``; both or neither.

    Returns:
        The two paths.

    Raises:
        DatabaseFileError: if the file is no study, or nobody has voted.
        OSError: if they cannot be written.
    """
    if output.suffix.lower() != ".csv":
        raise ValueError(f"--output {output}: the table is written as CSV; pass a name that ends in .csv.")
    opened = Database(database, must_exist=True)
    try:
        store = Store(opened)
        contents = {output.name: table_csv(store), f"{output.stem}-answers.csv": log_csv(store)}
    finally:
        opened.close()
    with staged(output.parent) as stage:
        for name, content in contents.items():
            (stage / name).write_text(content, encoding="utf-8", newline="")
    first, second = (output.parent / name for name in contents)
    return first, second


def _cell(answer: Answer | None, *, with_class: bool) -> str:
    if answer is None:
        return ""
    if with_class:
        return CANNOT_TELL if answer.answer is None else answer.answer
    return str(int(answer.right))


def _shown_original(store: Store, answer: Answer) -> str:
    """The original that the annotator saw, if any."""
    if store.settings.task == "category" and answer.kind != "catch":
        return ""
    return store.items[answer.item if answer.partner is None else answer.partner].original


def _csv(rows: Iterable[Iterable[object]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()
