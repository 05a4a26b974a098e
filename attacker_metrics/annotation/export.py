"""Answers -> CSV: the annotation table of ``faithfulness`` and ``semsim train``, and the log of all answers."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from attacker_metrics.annotation.answers import Answer, main_answers, read_answers
from attacker_metrics.annotation.database import Database, DatabaseFileError
from attacker_metrics.annotation.store import Store
from attacker_metrics.faithfulness.annotations import CANNOT_TELL, CLASS, KEYS, PREFIX
from attacker_metrics.faithfulness.tables import TableError, read_table
from attacker_metrics.files.spreadsheet import csv_text
from attacker_metrics.files.writing import OutputError, check_outputs, has_header, staged, with_suffix

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
    return csv_text(rows)


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
    return csv_text(rows)


def export(database: Path, output: Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write the table to ``output`` and the log beside it, ``NAME-answers.csv``; both or neither.

    Args:
        database: of the study.
        output: the table's path.
        overwrite: replace files that no export has written, too.

    Returns:
        The two paths.

    Raises:
        DatabaseFileError: if the file is no study, or nobody has voted.
        ValueError: if the table's name does not end in .csv.
        OSError: if they cannot be written, or something would be lost.
    """
    with_suffix(output, ".csv")
    log = output.with_name(f"{output.stem}-answers.csv")
    opened = Database(database, must_exist=True)
    try:
        store = Store(opened)
        contents = {output.name: table_csv(store), log.name: log_csv(store)}
        if _is_manifest(output, store):
            raise OutputError(f"{output} is the list of this study's tasks; it would be lost. Pass another --output.")
    finally:
        opened.close()
    beside = has_header(log, _LOG_COLUMNS)  # of a table alone nobody can tell who made it
    check_outputs(
        [output, log],
        inputs=[database, *(database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm"))],
        overwrite=overwrite,
        ours=lambda path: beside and (path.name == log.name or _is_table(path)),
    )
    with staged(output.parent) as stage:
        for name, content in contents.items():
            (stage / name).write_text(content, encoding="utf-8", newline="")
    return output, log


def _is_table(path: Path) -> bool:
    """Whether the file has the header of an annotation table with an annotator."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    return tuple(header[: len(KEYS)]) == KEYS and any(name.startswith(PREFIX) for name in header)


def _is_manifest(path: Path, store: Store) -> bool:
    """Whether the file is the table that the study was made from, or a copy of it; nobody has voted in it."""
    try:
        table = read_table(path)
    except (OSError, TableError):
        return False
    ours = table.get(KEYS[-1]) == [item.reconstruction for item in store.items]
    return ours and not any(name.startswith(PREFIX) for name in table)


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
