"""Votes in the database -> a list of answers -> the annotation table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import select

from attacker_metrics.annotation.database import Annotator, Database, DatabaseFileError, Trial, Vote
from attacker_metrics.annotation.store import DIFFERENT, SAME, Store
from attacker_metrics.faithfulness.annotations import KEYS, Annotations, Floats

_LATEST = 253402300800.0
"""The year 10,000, in seconds since 1970: no calendar goes further."""


@dataclass(frozen=True)
class Answer:
    """One vote.

    Args:
        annotator: name.
        position: of the trial in the annotator's session, from 0.
        kind: ``"main"``, ``"repeat"`` or ``"catch"``.
        item: position in the manifest, from 0.
        partner: the item whose original was shown in its place, or None.
        answer: a category, ``"same"``, ``"different"``; None = cannot tell.
        expected: the right answer.
        seconds: since the trial was shown last, by the server's clock.
        visible_seconds: during which the page was in sight, by the browser; None without JavaScript.
        answered_at: seconds since 1970.
        undone: whether it was taken back and does not count.
    """

    annotator: str
    position: int
    kind: str
    item: int
    partner: int | None
    answer: str | None
    expected: str
    seconds: float
    visible_seconds: float | None
    answered_at: float
    undone: bool

    @property
    def right(self) -> bool:
        """Whether it is the expected one; "cannot tell" never is."""
        return self.answer == self.expected


def read_answers(store: Store) -> list[Answer]:
    """Every answer ever given, by annotator and trial."""
    columns = (Annotator.name, Trial.position, Trial.kind, Trial.item, Trial.partner, Vote.answer)
    times = (Vote.shown_at, Vote.answered_at, Vote.visible_ms, Vote.undone_at)
    query = (
        select(*columns, *times).join(Trial, Vote.trial_id == Trial.id).join(Annotator, Trial.annotator_id == Annotator.id)
    )
    with store.database.reading() as session:
        rows = session.execute(query.order_by(Annotator.number, Trial.position, Vote.id)).all()
    for row in rows:
        if not _is_answer(store, *row):
            raise store.database.damaged(f"the answer {tuple(row)!r} is none")
    return [
        Answer(
            annotator=name,
            position=position,
            kind=kind,
            item=item,
            partner=partner,
            answer=answer,
            expected=_expected(store, kind, item),
            seconds=answered_at - shown_at,
            visible_seconds=None if visible_ms is None else visible_ms / 1000,
            answered_at=answered_at,
            undone=undone_at is not None,
        )
        for name, position, kind, item, partner, answer, shown_at, answered_at, visible_ms, undone_at in rows
    ]


def main_answers(answers: Sequence[Answer]) -> dict[str, dict[int, Answer]]:
    """Annotator -> item -> the answer that goes into the table; whoever has not answered yet is left out."""
    found: dict[str, dict[int, Answer]] = {}
    for answer in answers:
        if answer.kind == "main" and not answer.undone:
            found.setdefault(answer.annotator, {})[answer.item] = answer
    return found


def annotation_table(store: Store, answers: Sequence[Answer]) -> Annotations:
    """Who recognised what: 1 for the right category, or "same"; 0 for anything else, "cannot tell" too; NaN for no answer.

    Raises:
        DatabaseFileError: if there is no vote.
    """
    votes: dict[str, Floats] = {}
    for name, given in main_answers(answers).items():
        votes[name] = np.full(len(store.items), np.nan)
        votes[name][list(given)] = [answer.right for answer in given.values()]
    if not votes:
        raise DatabaseFileError(f"{store.database.path} holds no vote yet.")
    keys = {name: [getattr(item, name) for item in store.items] for name in KEYS}
    return Annotations(**keys, votes=votes)


def read_votes(database: Path | str) -> Annotations:
    """The annotation table of a study's database, as ``attacker_metrics.faithfulness.read_annotations`` has it of a file.

    Repeats and catch trials are not in it. It can be read while people vote.

    Args:
        database: the file that ``attacker-metrics annotate --database`` was given.

    Returns:
        A row per row of the manifest, a column per annotator with a vote: 1 recognised (the right category was chosen, or
        "same" in a pair task), 0 not recognised (another answer, "cannot tell" included), NaN not answered.

    Raises:
        DatabaseFileError: if the file is no study, or nobody has voted.

    Example:
        >>> from pathlib import Path
        >>> read_votes(Path("absent.sqlite"))
        Traceback (most recent call last):
        attacker_metrics.annotation.database.DatabaseFileError: absent.sqlite: there is no such database.
    """
    opened = Database(Path(database), must_exist=True)
    try:
        store = Store(opened)
        return annotation_table(store, read_answers(store))
    finally:
        opened.close()


def _is_answer(
    store: Store,
    name: object,
    position: object,
    kind: object,
    item: object,
    partner: object,
    answer: object,
    *times: object,
) -> bool:
    """Whether a row can be what this app writes: SQLite itself holds anything anywhere."""
    places = [place for place in (item, partner) if place is not None]
    shown_at, answered_at, visible_ms, undone_at = times
    return (
        isinstance(name, str)
        and isinstance(position, int)
        and kind in ("main", "repeat", "catch")
        and item is not None
        and all(isinstance(place, int) and 0 <= place < len(store.items) for place in places)
        and (answer is None or isinstance(answer, str))
        and all(isinstance(moment, (int, float)) and 0 <= moment < _LATEST for moment in (shown_at, answered_at))
        and all(moment is None or isinstance(moment, (int, float)) for moment in (visible_ms, undone_at))
    )


def _expected(store: Store, kind: str, item: int) -> str:
    if store.settings.task == "category":
        return store.items[item].category
    return DIFFERENT if kind == "catch" else SAME
