"""The tables of a study in SQLite, by SQLAlchemy: settings, items, annotators, their trials, their votes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, UniqueConstraint, create_engine, event, inspect, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DatabaseError, IntegrityError, NoResultFound, OperationalError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

_APPLICATION = 0x616D_616E
"""SQLite's mark of whose file it is."""
_FORMAT = 1
"""Of the tables; another one is refused."""

_BUSY_SECONDS = 30
_UNREADABLE = (DatabaseError, StatementError, NoResultFound, UnicodeDecodeError, JSONDecodeError, RecursionError)


class Base(DeclarativeBase):
    """Of all tables."""


class Study(Base):
    """The one row of settings."""

    __tablename__ = "study"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]  # random: cookies of two studies on one host must not meet
    task: Mapped[str]
    seed: Mapped[int]
    repeats: Mapped[float]
    catch: Mapped[float]


class StoredItem(Base):
    """A row of the manifest, ``content`` as JSON."""

    __tablename__ = "items"

    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class Annotator(Base):
    """Who votes; ``number`` decides the order, ``token`` is the secret of the personal link."""

    __tablename__ = "annotators"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    name: Mapped[str]
    folded_name: Mapped[str] = mapped_column(unique=True)
    token: Mapped[str] = mapped_column(unique=True)

    @property
    def key(self) -> str:
        """What the personal link and the cookie hold."""
        return f"{self.id}-{self.token}"


class Trial(Base):
    """One showing to one annotator, written when they are registered: a restart changes nothing."""

    __tablename__ = "trials"
    __table_args__ = (UniqueConstraint("annotator_id", "position"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    position: Mapped[int]
    kind: Mapped[str]
    item: Mapped[int] = mapped_column(ForeignKey("items.position"))
    partner: Mapped[int | None] = mapped_column(ForeignKey("items.position"))
    token: Mapped[str] = mapped_column(unique=True)
    shown_at: Mapped[float | None]

    annotator: Mapped[Annotator] = relationship()


class Vote(Base):
    """An answer; None = cannot tell. Undone ones stay, at most one per trial counts."""

    __tablename__ = "votes"

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trials.id"))
    annotator_id: Mapped[int] = mapped_column(ForeignKey("annotators.id"))
    answer: Mapped[str | None]
    shown_at: Mapped[float]
    answered_at: Mapped[float]
    visible_ms: Mapped[int | None]
    undone_at: Mapped[float | None]

    trial: Mapped[Trial] = relationship()

    __table_args__ = (
        Index("one_vote_per_trial", "trial_id", unique=True, sqlite_where=text("undone_at IS NULL")),
        Index("votes_of_an_annotator", "annotator_id", sqlite_where=text("undone_at IS NULL")),
    )


class DatabaseFileError(ValueError):
    """A file that is no database of this app, or of another study; the message says which and what to do."""


class NotWritableError(DatabaseFileError):
    """The disk is full, the file is read-only, or another process has not let go of it for half a minute."""


class NotReadableError(DatabaseFileError):
    """The file is damaged, or has other tables than those of a study."""


class Database:
    """Transactions on a file.

    Args:
        path: of the SQLite file; with ``must_exist`` no new one is made.
        must_exist: whether its absence is an error.

    Raises:
        DatabaseFileError: if it is absent, no SQLite file, damaged, or one of another application or version; it is left as
            it was.
    """

    def __init__(self, path: Path, *, must_exist: bool = False) -> None:
        if must_exist and not path.is_file():
            raise DatabaseFileError(f"{path}: there is no such database.")
        if path.exists() and not path.is_file():
            raise DatabaseFileError(f"{path} is no file; pass the name of an SQLite file.")
        if not path.parent.is_dir():
            raise DatabaseFileError(f"{path}: there is no folder {path.parent}; make it first.")
        self.path = path
        self._engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": _BUSY_SECONDS})
        event.listen(self._engine, "connect", self._prepare)
        event.listen(self._engine, "begin", _begin)
        self.is_new = not path.exists()
        if not self.is_new:
            try:
                self._look()
            finally:
                self.close()  # a new file's connections are set up otherwise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def create_tables(self, session: Session) -> None:
        """Make the tables, within a transaction."""
        Base.metadata.create_all(session.connection())
        session.execute(text(f"PRAGMA application_id = {_APPLICATION}"))
        session.execute(text(f"PRAGMA user_version = {_FORMAT}"))

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view.

        Raises:
            NotReadableError: if what is in the file is not what is expected there.
        """
        try:
            with Session(self._engine, expire_on_commit=False) as session:
                yield session
        except _UNREADABLE as error:
            raise self.damaged(getattr(error, "orig", None) or error) from error

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction, alone; it is on the disk when the block has ended.

        Raises:
            NotWritableError: if it cannot be written; then nothing of it is.
        """
        try:
            with Session(self._engine.execution_options(writes=True), expire_on_commit=False) as session, session.begin():
                session.connection()  # begins now
                yield session
        except OperationalError as error:
            raise NotWritableError(f"{self.path} cannot be written: {error.orig}.") from error
        except IntegrityError:
            raise  # the tables have kept their promise
        except _UNREADABLE as error:
            raise self.damaged(getattr(error, "orig", None) or error) from error
        self.is_new = False

    def damaged(self, reason: object) -> NotReadableError:
        """The error of a file that holds something else than a study."""
        short = " ".join(str(reason).split())[:200]
        return NotReadableError(
            f"{self.path} cannot be read as a study: {short}. Restore it, with its -wal file, from a copy, or recover what"
            " can be read by sqlite3's .recover."
        )

    def _look(self) -> None:
        try:
            with self._engine.connect() as connection:
                self.is_new = not inspect(connection).get_table_names()
                mark = tuple(connection.scalar(text(f"PRAGMA {name}")) for name in ("application_id", "user_version"))
                sound = connection.scalar(text("PRAGMA quick_check(1)"))
        except _UNREADABLE as error:
            raise DatabaseFileError(
                f"{self.path} cannot be used as a database: {getattr(error, 'orig', None) or error}. SQLite keeps files"
                f" beside one while it is open; if the folder cannot be written, copy {self.path.name}* to another."
            ) from error
        if not self.is_new and mark != (_APPLICATION, _FORMAT):
            if mark[0] == _APPLICATION:
                which = f"its format is {mark[1]}, this version reads {_FORMAT}; use the version that made it"
            else:
                which = "pass another file"
            raise DatabaseFileError(f"{self.path} holds no study of this version of the app; {which}.")
        if sound != "ok":  # now, and not when somebody has voted
            raise self.damaged(sound)

    def _prepare(self, connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy's BEGIN, not the driver's
        # The write-ahead log, which lets readers and a writer work at once, is the file's property for good.
        for pragma in (*(("journal_mode = WAL",) if self.is_new else ()), "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    # A writer that began as a reader could find that another one was faster.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
