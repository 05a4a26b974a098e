"""The folder of an unfinished run: its settings and the scores of its finished parts, each written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from attacker_metrics.files.lock import held
from attacker_metrics.files.writing import CODE, move_files, write_whole

FOLDER = ".unfinished"
LOCK = ".evaluate.lock"
_SETTINGS, _REMOVED = "run.json", "removed.json"
_MARK = "attacker-metrics: parts of an unfinished run"
_PREFIX, _SUFFIX = "part-", ".arrow"
_PART = re.compile(r"part-(\d{9,})-[0-9a-f]{32}\.arrow")
_OUTPUTS = re.compile(r"outputs-[0-9a-f]{32}")
_TEMPORARY = re.compile(r"(part-\d{9,}-.*|run\.json|split\.bits)\.\w+\.tmp")
_STAGES = ("fit", "fitted", "unrelated")
"""The folders of other stages of a run, each as this one is."""
SPLIT = "split.bits"
"""The file that tells every process which pairs are for fitting."""
_KEPT = (SPLIT,)


class ResumeError(ValueError):
    """An unfinished run that cannot be continued; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """How the pairs of a run are cut into parts.

    Args:
        total: number of pairs.
        part_size: pairs per part; the last part may hold fewer.
        remaining: the parts that are still to be evaluated.
    """

    total: int
    part_size: int
    remaining: list[int]

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-self.total // self.part_size)

    def rows(self, part: int) -> tuple[int, int]:
        """First row of a part, and the row after its last."""
        return part * self.part_size, min((part + 1) * self.part_size, self.total)

    @property
    def remaining_pairs(self) -> int:
        """Number of pairs that are still to be evaluated."""
        return sum(stop - start for start, stop in map(self.rows, self.remaining))


class UnfinishedRun:
    """The folder ``.unfinished`` in a run's output folder; all processes must see it.

    A part is a file named ``part-NUMBER-DIGEST.arrow``. It is written under another name, brought to the disk and renamed,
    so that a process may be killed at any moment; the digest in its name, of the run's identity and the content, tells later
    damage, and parts of another run. Whatever else lies in the folder is not touched.

    Args:
        output: the run's output folder.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.folder = output, output / FOLDER
        self.joined = False
        self.identity = ""

    def held(self) -> AbstractContextManager[None]:
        """Keep other runs out of the output folder, which is deleted at the end if it is empty and was not there.

        Raises:
            OSError: if another run is at work in it, saying which; or nothing can be written there.
        """
        if self.output.exists() and not self.output.is_dir():
            raise FileExistsError(f"{self.output} exists and is not a folder; pass another --output.")
        return held(self.output / LOCK, str(self.output))

    def begin(self, settings: dict[str, Any], total: int, part_size: int | None, default: int, *, resume: bool) -> Plan:
        """Make the folder, or take it up again; for one process only.

        Args:
            settings: what the scores depend on; JSON values.
            total: number of pairs.
            part_size: pairs per part as the user wants it, or None.
            default: pairs per part if the user has no wish.
            resume: whether to continue an unfinished run, if there is one.

        Raises:
            ResumeError: if there is an unfinished run and ``resume`` is false, or the settings differ; or something else has
                the folder's name.
            OSError: if nothing can be written there.
        """
        if self.output.exists() and not self.output.is_dir():
            raise FileExistsError(f"{self.output} exists and is not a folder; pass another --output.")
        if not self.exists:
            self._make_room()
            size, self.identity = part_size or default, uuid.uuid4().hex
            record = {"what": _MARK, "identity": self.identity, "part_size": size, "settings": settings}
            try:
                write_whole(self.folder / _SETTINGS, json.dumps(record, indent=2).encode())
            except OSError:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
                raise
            return Plan(total, size, list(range(-(-total // size))))
        then = self._record()
        if not resume:
            raise ResumeError(
                f"{self.output} holds an unfinished run ({len(self._files())} parts are done). Pass --resume to continue it,"
                f" or delete {self.folder} to start over."
            )
        now = json.loads(json.dumps({**settings, "part_size": part_size or then["part_size"]}))
        before = {**then["settings"], "part_size": then["part_size"]}
        differing = [name for name in {**before, **now} if now.get(name) != before.get(name)]
        if CODE in differing:
            raise ResumeError(
                f"--resume: the unfinished run in {self.output} was made by other code of attacker_metrics than the one that"
                f" is installed now, which may give other scores. Install that code again, or delete {self.folder} to start"
                " over."
            )
        if differing:
            named = "; ".join(f"{name} is {now.get(name)!r}, was {before.get(name)!r}" for name in differing)
            raise ResumeError(
                f"--resume: the settings differ from those of the unfinished run in {self.output}: {named}."
                f" Pass the same, or delete {self.folder} to start over."
            )
        self.identity = then["identity"]
        plan = Plan(total, then["part_size"], [])
        done = self._intact_parts()
        return Plan(total, plan.part_size, [part for part in range(plan.parts) if part not in done])

    def begin_or_renew(self, settings: dict[str, Any], total: int, part_size: int | None, default: int) -> Plan:
        """As :meth:`begin` for a later stage of a run: what an interrupted one left that is not of these settings goes."""
        try:
            return self.begin(settings, total, part_size, default, resume=True)
        except ResumeError:
            self.remove()
            return self.begin(settings, total, part_size, default, resume=True)

    def join(self) -> None:
        """Check that another process's folder is seen here too, and learn whose parts are to be written.

        Raises:
            OSError: if it is not.
        """
        try:
            self.identity = self._record()["identity"]
        except (OSError, ResumeError) as error:
            raise FileNotFoundError(
                f"{self.folder} is not seen by every process; --output must be on storage that all share."
            ) from error
        self.joined = True

    def write(self, part: int, table: pa.Table) -> None:
        """Store a finished part."""
        buffer = io.BytesIO()
        with pa.ipc.new_file(buffer, table.schema) as file:
            file.write_table(table)
        content = buffer.getvalue()
        write_whole(self.folder / f"{_PREFIX}{part:09}-{self._digest(content)}{_SUFFIX}", content)

    def tables(self, plan: Plan) -> Iterator[pa.Table]:
        """The parts' tables in order.

        Raises:
            ResumeError: if a part is missing, damaged, or of another run.
        """
        files = self._files()
        for part in range(plan.parts):
            content = self._content(files[part]) if part in files else None
            if content is None:
                raise ResumeError(f"part {part} is missing from {self.folder} or damaged; --resume evaluates it again.")
            try:
                table = pa.ipc.open_file(content).read_all()
                table.validate(full=True)  # its digest tells mix-ups, not whoever means to mislead
            except (pa.ArrowException, OSError) as error:
                raise ResumeError(
                    f"{files[part]} holds no scores ({_line(error)}); delete it, --resume evaluates it again."
                ) from error
            yield table

    def keep(self, name: str, content: bytes) -> None:
        """Store what the processes must all know; it is stored anew whenever the run is begun or continued."""
        write_whole(self.folder / name, content)

    def kept(self, name: str) -> bytes:
        """What :meth:`keep` stored."""
        return (self.folder / name).read_bytes()

    @property
    def exists(self) -> bool:
        """Whether there is a run to continue, or something in the place of one."""
        return os.path.lexists(self.folder / _SETTINGS)

    @property
    def done(self) -> int:
        """Number of finished parts."""
        return len(self._files())

    @property
    def stored(self) -> int:
        """Number of finished parts, those of other stages of the run included."""
        return self.done + sum(stage.stored for stage in self._stages() if stage.folder.is_dir())

    @contextlib.contextmanager
    def publish(self) -> Iterator[Path]:
        """A folder whose files move into the output when the block ends without an error."""
        stage = self.folder / f"outputs-{uuid.uuid4().hex}"
        stage.mkdir()
        try:
            yield stage
            move_files(stage, self.output)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def remove(self) -> None:
        """Delete what is ours of the folder: the run is finished, also if this process is killed while it deletes."""
        with contextlib.suppress(OSError, ResumeError):
            self._record()
            (self.folder / _SETTINGS).replace(self.folder / _REMOVED)
            self._delete()

    def remove_if_empty(self) -> bool:
        """Delete the folder if no part is done in any stage; return whether it did."""
        return not self.stored and self.remove_if_unscored()

    def remove_if_unscored(self) -> bool:
        """As :meth:`remove_if_empty`, but what other stages have stored below the folder is deleted too."""
        if self.done or not self.identity:  # another process's, where this one has not begun
            return False
        self.remove()
        return True

    def _make_room(self) -> None:
        """Make the folder, or take one without a run in it: what a killed process of ours has left, nothing of the user's.

        Raises:
            ResumeError: if something of the user's is there.
        """
        if os.path.lexists(self.folder / _REMOVED):
            _checked(self.folder / _REMOVED)
            self._delete()
        if os.path.lexists(self.folder) and (self.folder.is_symlink() or not self.folder.is_dir()):
            raise ResumeError(f"{self.folder} is not this program's: move it away, or pass another --output.")
        self.folder.mkdir(parents=True, exist_ok=True)
        foreign = [path.name for path in self.folder.iterdir() if not (_TEMPORARY.fullmatch(path.name) and path.is_file())]
        if foreign:
            raise ResumeError(
                f"{self.folder} holds files that are not this program's, such as {min(foreign)!r}: move them away, or pass"
                " another --output."
            )

    def _record(self) -> dict[str, Any]:
        """The settings' file, checked.

        Raises:
            ResumeError: if it is not what :meth:`begin` writes.
        """
        return _checked(self.folder / _SETTINGS)

    def _delete(self) -> None:
        """Delete what this program has written, the mark that it did last."""
        for stage in self._stages():
            stage.remove()
            with contextlib.suppress(OSError):  # the user's files stay
                stage.output.rmdir()
        with contextlib.suppress(OSError):
            for path in sorted(self.folder.iterdir(), key=lambda path: path.name == _REMOVED):
                _delete_ours(path)
            self.folder.rmdir()

    def _stages(self) -> list[UnfinishedRun]:
        """Other stages of the run, begun or not."""
        return [UnfinishedRun(self.folder / name) for name in _STAGES]

    def _files(self) -> dict[int, Path]:
        """Part -> its file, judged by the names alone."""
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            found = [(match, entry.name) for entry in entries if (match := _PART.fullmatch(entry.name))]
        return {int(match[1]): self.folder / name for match, name in sorted(found, key=lambda pair: pair[1])}

    def _intact_parts(self) -> set[int]:
        """The parts whose content is what was written; damaged ones and remains of writing are deleted."""
        for path in list(self.folder.iterdir()):
            if not _PART.fullmatch(path.name) or self._content(path) is None:
                _delete_ours(path)
        return set(self._files())

    def _content(self, path: Path) -> bytes | None:
        """What a part's file holds, or None if that is not what this run wrote."""
        content = path.read_bytes() if path.is_file() else b""
        return content if path.name.endswith(f"-{self._digest(content)}{_SUFFIX}") else None

    def _digest(self, content: bytes) -> str:
        return hashlib.blake2b(content, digest_size=16, key=self.identity.encode()).hexdigest()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _delete_ours(path: Path) -> None:
    """Delete a file or folder whose name this program gives; anything else stays."""
    if path.is_dir() and not path.is_symlink():
        if _OUTPUTS.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
    elif path.name == _REMOVED or _PART.fullmatch(path.name) or _TEMPORARY.fullmatch(path.name) or path.name in _KEPT:
        path.unlink()


def _checked(path: Path) -> dict[str, Any]:
    """The content of a run's settings file.

    Raises:
        ResumeError: if it is not what this program writes.
    """
    start_over = f"delete {path.parent} to start over, or pass another --output."
    if not path.is_file():
        raise ResumeError(f"{path} is no regular file, so it is not this program's: move it away, or pass another --output.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResumeError(f"{path} is damaged or not this program's ({type(error).__name__}); {start_over}") from error
    if isinstance(found, dict) and found.keys() == {"part_size", "settings"} and isinstance(found["settings"], dict):
        raise ResumeError(
            f"the unfinished run in {path.parent.parent} was saved by an earlier release, whose parts do not say which code"
            f" scored them, so they cannot be continued; {start_over}"
        )
    fits = (
        isinstance(found, dict)
        and found.get("what") == _MARK
        and isinstance(found.get("identity"), str)
        and re.fullmatch("[0-9a-f]{32}", found["identity"]) is not None
        and type(found.get("part_size")) is int
        and found["part_size"] > 0
        and isinstance(found.get("settings"), dict)
    )
    if not fits:
        raise ResumeError(f"{path} is damaged or not this program's; {start_over}")
    return dict(found)
