"""The study's rules: who sees which trial, which votes count, how the last one is taken back."""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from attacker_metrics.annotation.database import (
    Annotator,
    Database,
    DatabaseFileError,
    StoredItem,
    Study,
    Trial,
    Vote,
)
from attacker_metrics.annotation.order import plan
from attacker_metrics.annotation.tasks import TASKS, Item, TaskName

SAME, DIFFERENT = "same", "different"
DEFAULT_REPEATS = 0.1
DEFAULT_CATCH: dict[TaskName, float] = {"category": 0.1, "pair": 0.5}

_LONGEST_NAME = 40
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_LONGEST_VISIBLE_MS = 24 * 3600 * 1000


class RefusedError(ValueError):
    """What an annotator asked for is not possible; the message tells them why."""


@dataclass(frozen=True)
class Settings:
    """What decides candidates and order; fixed when the database is made.

    Args:
        task: ``"category"``: choose what the reconstruction shows; ``"pair"``: does it show this original?
        seed: of candidates and orders.
        repeats: share of the items that an annotator sees twice.
        catch: share of catch trials, relative to the items: originals, or in a pair task pairs that do not belong together.
    """

    task: TaskName
    seed: int = 0
    repeats: float = DEFAULT_REPEATS
    catch: float = DEFAULT_CATCH["category"]

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"the seed is {self.seed}; it is 0 or more.")
        for name in ("repeats", "catch"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it is a share of the items, between 0 and 1.")


@dataclass(frozen=True)
class Turn:
    """Where an annotator is.

    Args:
        answered: how many trials are done.
        total: of how many.
        trial: the one to answer; None at the end.
        undoable: token of the trial whose answer can be taken back, if any.
    """

    answered: int
    total: int
    trial: Trial | None
    undoable: str | None


def new_token() -> str:
    """128 random bits."""
    return secrets.token_urlsafe(16)


def tidy_name(name: str) -> str:
    """A name as it is kept: with single spaces, and each letter in its one form.

    Raises:
        RefusedError: if it is no name; a file name, a cell of a table and a page must all be able to hold it.
    """
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    # Many scripts write vowels as marks, which are no letters.
    if not (
        0 < len(name) <= _LONGEST_NAME
        and (name[0].isalnum() or name[0] == "_")
        and all(sign.isalnum() or sign in " ._-" or unicodedata.category(sign).startswith("M") for sign in name)
    ):
        raise RefusedError(
            f"{name!r} is no name here; it has 1 to {_LONGEST_NAME} letters, digits, spaces, dots, dashes or underscores."
        )
    return name


class Store:
    """A study in its database.

    Args:
        database: an opened one, made by :meth:`create`.

    Raises:
        DatabaseFileError: if it is a new one.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> from attacker_metrics.annotation import Database, Item, overview, read_votes
        >>> item = Item("faces", "lenet", "dlg", "7.png", "lenet/7.png", "cat", ("cat", "dog"), pictures=("", ""))
        >>> database = Database(Path(mkdtemp()) / "votes.sqlite")
        >>> store = Store.create(database, Settings("category", repeats=0, catch=0), [item])
        >>> ann = store.register("ann")
        >>> store.vote(ann, store.show(ann).trial.token, "cat")  # as the app does it
        True
        >>> overview(store).annotators[0].recognized
        Share(hits=1, count=1)
        >>> read_votes(database.path).votes
        {'ann': array([1.])}
        >>> database.close()
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        if database.is_new:
            raise DatabaseFileError(f"{database.path} is empty: there is no study in it.")
        with database.reading() as session:
            study = session.get_one(Study, 1)
            stored = session.execute(select(StoredItem.position, StoredItem.content).order_by(StoredItem.position)).all()
        try:
            self.settings = Settings(study.task, study.seed, study.repeats, study.catch)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise database.damaged(error) from error
        self.name = study.name
        items = [_item(content) for _, content in stored]
        self.items = [item for item in items if item is not None]
        if not items or self.settings.task not in TASKS or not re.fullmatch("[0-9a-f]{8}", str(self.name)):
            raise database.damaged(f"the study's row is not one ({self.settings.task!r}, {self.name!r})")
        for place, (item, (position, _)) in enumerate(zip(items, stored, strict=True)):
            if item is None or position != place:
                raise database.damaged(f"item {place + 1} is none")

    @classmethod
    def create(cls, database: Database, settings: Settings, items: Sequence[Item]) -> Store:
        """Write a new study, in one transaction."""
        if settings.task == "pair" and settings.catch and len({item.source for item in items}) < 2:
            raise ValueError("a pair task needs two originals at least, to show pairs that do not belong together.")
        with database.writing() as session:
            database.create_tables(session)
            if session.get(Study, 1) is not None:
                raise DatabaseFileError(f"{database.path}: another process has made a study of it just now; start again.")
            session.add(Study(id=1, name=secrets.token_hex(4), **asdict(settings)))
            session.execute(insert(StoredItem), [{"position": k, "content": asdict(item)} for k, item in enumerate(items)])
        return cls(database)

    def check_unchanged(self, settings: Settings, items: Sequence[Item]) -> None:
        """Refuse to go on with other tasks than those that the votes are about.

        Raises:
            DatabaseFileError: naming what differs.
        """
        found = [
            f"{field.name} is {getattr(settings, field.name)!r}, was {getattr(self.settings, field.name)!r}"
            for field in fields(Settings)
            if getattr(settings, field.name) != getattr(self.settings, field.name)
        ]
        if len(items) != len(self.items):
            found.append(f"the manifest has {len(items)} rows, had {len(self.items)}")
        for row, (new, old) in enumerate(zip(items, self.items, strict=False), start=1):
            for field in fields(Item):
                now, before = getattr(new, field.name), getattr(old, field.name)
                if now != before:
                    change = "another picture has this name" if field.name == "pictures" else f"is {now!r}, was {before!r}"
                    found.append(f"row {row}: {field.name}: {change}")
        if found:
            more = f"; {len(found) - 5} more" if len(found) > 5 else ""
            raise DatabaseFileError(
                f"{self.database.path} was made for other tasks: {'; '.join(found[:5])}{more}. Restore them, or begin a new"
                " study with another --database."
            )

    def annotators(self) -> list[Annotator]:
        """All, in the order of their registration."""
        with self.database.reading() as session:
            return list(session.scalars(select(Annotator).order_by(Annotator.number)))

    def register(self, name: str, token: str | None = None) -> Annotator:
        """Add an annotator and write their trials.

        Args:
            name: a new one.
            token: the secret of the personal link, 22 of ``a-z A-Z 0-9 _ -``; by default, and if it is another one's, drawn
                here. Whoever comes with the name and its token again, because a form was sent twice, is the same person.

        Raises:
            RefusedError: if the name is taken, or no name, or the token is none.
        """
        name = tidy_name(name)
        if token is not None and not _TOKEN.fullmatch(token):
            raise RefusedError("The form is incomplete; load the page again.")
        with self.database.writing() as session:
            known = session.scalar(select(Annotator).where(Annotator.folded_name == name.casefold()))
            if known is not None and token and secrets.compare_digest(known.token, token):
                return known
            if known is not None:
                raise RefusedError(
                    f"The name {name} is taken. If it is yours, use your personal link; otherwise choose another."
                )
            number = session.scalar(select(func.count()).select_from(Annotator)) or 0
            if token is None or session.scalar(select(Annotator.id).where(Annotator.token == token)) is not None:
                token = new_token()
            annotator = Annotator(number=number, name=name, folded_name=name.casefold(), token=token)
            session.add(annotator)
            session.flush()
            trials = plan(
                self.items,
                self.settings.task,
                number,
                repeats=self.settings.repeats,
                catch=self.settings.catch,
                seed=self.settings.seed,
            )
            rows = [
                {
                    "annotator_id": annotator.id,
                    "position": position,
                    "kind": trial.kind,
                    "item": trial.item,
                    "partner": trial.partner,
                    "token": new_token(),
                }
                for position, trial in enumerate(trials)
            ]
            session.execute(insert(Trial), rows)
        return annotator

    def annotator(self, key: str) -> Annotator | None:
        """The annotator with this key, compared in constant time."""
        number, _, token = key.partition("-")
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            return None
        with self.database.reading() as session:
            found = session.get(Annotator, int(number))
        if found is None or not secrets.compare_digest(found.token.encode(), token.encode()):
            return None
        return found

    def turn(self, annotator: Annotator) -> Turn:
        """Where the annotator is."""
        with self.database.reading() as session:
            return self._turn(session, annotator)

    def show(self, annotator: Annotator) -> Turn:
        """The same, and the clock of the trial starts."""
        with self.database.writing() as session:
            turn = self._turn(session, annotator)
            if turn.trial is not None:
                turn.trial.shown_at = time.time()
        return turn

    def vote(self, annotator: Annotator, token: str, answer: str | None, visible_ms: int | None = None) -> bool:
        """Count an answer, unless the trial has one already.

        Args:
            annotator: who.
            token: of the trial.
            answer: a candidate, ``"same"`` or ``"different"``; None = cannot tell.
            visible_ms: how long the picture was in sight, as the browser says.

        Returns:
            Whether it was counted; a form that is sent twice, or again after the back button, is not.

        Raises:
            RefusedError: if the trial or the answer does not exist.
        """
        with self.database.writing() as session:
            trial = self._trial(session, annotator, token)
            if answer is not None and answer not in self.answers(trial):
                raise RefusedError("That is none of the answers.")
            now = time.time()
            if trial.position != self._answered(session, annotator):
                return False
            known = visible_ms if visible_ms is not None and 0 <= visible_ms <= _LONGEST_VISIBLE_MS else None
            session.add(
                Vote(
                    trial_id=trial.id,
                    annotator_id=annotator.id,
                    answer=answer,
                    shown_at=now if trial.shown_at is None else trial.shown_at,
                    answered_at=now,
                    visible_ms=known,
                )
            )
        return True

    def undo(self, annotator: Annotator, token: str) -> bool:
        """Take back the answer to the trial before the present one; it stays in the history.

        Only that one: what is seen later must not change what was said earlier.

        Returns:
            Whether it was; a form that is sent twice is not.

        Raises:
            RefusedError: if there is no such trial.
        """
        with self.database.writing() as session:
            self._trial(session, annotator, token)
            if self._turn(session, annotator).undoable != token:
                return False
            vote = session.scalars(select(Vote).join(Trial).where(Trial.token == token, Vote.undone_at.is_(None))).one()
            vote.undone_at = time.time()
        return True

    def trial(self, annotator: Annotator, token: str) -> Trial:
        """The annotator's trial with this token.

        Raises:
            RefusedError: if there is none.
        """
        with self.database.reading() as session:
            return self._trial(session, annotator, token)

    def own_trial(self, annotator: Annotator, token: str) -> Trial | None:
        """The same, or None."""
        with self.database.reading() as session:
            return self._find(session, annotator, token)

    def counted(self, trial: Trial) -> Vote | None:
        """The answer to a trial that counts, or None if there is none."""
        with self.database.reading() as session:
            return session.scalar(select(Vote).where(Vote.trial_id == trial.id, Vote.undone_at.is_(None)))

    def answers(self, trial: Trial) -> tuple[str, ...]:
        """What can be answered beside "cannot tell"."""
        return (SAME, DIFFERENT) if self.settings.task == "pair" else self.items[trial.item].candidates

    def _turn(self, session: Session, annotator: Annotator) -> Turn:
        own = select(Trial).where(Trial.annotator_id == annotator.id)
        answered = self._answered(session, annotator)
        total = session.scalar(select(func.count()).select_from(own.subquery())) or 0
        trial = session.scalar(own.where(Trial.position == answered))
        before = session.scalar(own.where(Trial.position == answered - 1))
        was_taken_back = trial is not None and session.scalar(select(Vote.id).where(Vote.trial_id == trial.id).limit(1))
        return Turn(answered, total, trial, None if before is None or was_taken_back else before.token)

    def _answered(self, session: Session, annotator: Annotator) -> int:
        """Trials are answered in order: the number of votes that count is the position of the next one."""
        votes = select(func.count()).select_from(Vote).where(Vote.annotator_id == annotator.id, Vote.undone_at.is_(None))
        return session.scalar(votes) or 0

    def _trial(self, session: Session, annotator: Annotator, token: str) -> Trial:
        trial = self._find(session, annotator, token)
        if trial is None:
            raise RefusedError(
                f"That picture is none of yours, so nothing was counted: this browser belongs to {annotator.name} now."
                " Whoever saw it can go on by their personal link."
            )
        return trial

    def _find(self, session: Session, annotator: Annotator, token: str) -> Trial | None:
        return session.scalar(select(Trial).where(Trial.token == token, Trial.annotator_id == annotator.id))


def _item(content: object) -> Item | None:
    """An item as it was written, or None if it is none."""
    names = [field.name for field in fields(Item)]
    if not isinstance(content, dict) or sorted(content) != sorted(names):
        return None
    lists = [content.pop(name) for name in ("candidates", "pictures")]
    texts = [*content.values(), *(cell for cells in lists if isinstance(cells, list) for cell in cells)]
    if (
        not all(isinstance(cells, list) for cells in lists)
        or len(lists[1]) != 2
        or not all(isinstance(t, str) for t in texts)
    ):
        return None
    return Item(**content, candidates=tuple(lists[0]), pictures=tuple(lists[1]))
