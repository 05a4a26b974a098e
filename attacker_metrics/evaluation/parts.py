"""The folder of an unfinished run: its settings and the scores of its finished parts, each written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

FOLDER = ".unfinished"
_SETTINGS = "run.json"
_PREFIX, _SUFFIX = "part-", ".arrow"
_OUTPUTS = "outputs-"


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
    so that a process may be killed at any moment; the digest in its name tells later damage.

    Args:
        output: the run's output folder.
    """

    def __init__(self, output: Path) -> None:
        self.output, self.folder = output, output / FOLDER
        self.joined = False
        self._created = False

    def begin(self, settings: dict[str, Any], total: int, part_size: int | None, default: int, *, resume: bool) -> Plan:
        """Make the folder, or take it up again; for one process only.

        Args:
            settings: what the scores depend on; JSON values.
            total: number of pairs.
            part_size: pairs per part as the user wants it, or None.
            default: pairs per part if the user has no wish.
            resume: whether to continue an unfinished run, if there is one.

        Raises:
            ResumeError: if there is an unfinished run and ``resume`` is false, or the settings differ.
            OSError: if nothing can be written there.
        """
        if self.output.exists() and not self.output.is_dir():
            raise FileExistsError(f"{self.output} exists and is not a folder; pass another --output.")
        path = self.folder / _SETTINGS
        if not self.exists:
            self._created = not self.output.exists()
            shutil.rmtree(self.folder, ignore_errors=True)  # a run that was killed before its settings were written
            self.folder.mkdir(parents=True)
            size = part_size or default
            try:
                _write_whole(path, json.dumps({"part_size": size, "settings": settings}, indent=2).encode())
            except OSError:
                self.remove_if_empty()
                raise
            return Plan(total, size, list(range(-(-total // size))))
        if not resume:
            raise ResumeError(
                f"{self.output} holds an unfinished run ({len(self._files())} parts are done). Pass --resume to continue it,"
                f" or delete {self.folder} to start over."
            )
        then = json.loads(path.read_text(encoding="utf-8"))
        now = {**settings, "part_size": part_size or then["part_size"]}
        before = {**then["settings"], "part_size": then["part_size"]}
        differing = [
            f"{name} is {now.get(name)!r}, was {before.get(name)!r}"
            for name in {**before, **now}
            if now.get(name) != before.get(name)
        ]
        if differing:
            raise ResumeError(
                f"--resume: the settings differ from those of the unfinished run in {self.output}: {'; '.join(differing)}."
                f" Pass the same, or delete {self.folder} to start over."
            )
        plan = Plan(total, then["part_size"], [])
        done = self._intact_parts()
        return Plan(total, plan.part_size, [part for part in range(plan.parts) if part not in done])

    def join(self) -> None:
        """Check that another process's folder is seen here too.

        Raises:
            OSError: if it is not.
        """
        if not self.exists:
            raise FileNotFoundError(
                f"{self.folder} is not seen by every process; --output must be on storage that all share."
            )
        self.joined = True

    def write(self, part: int, table: pa.Table) -> None:
        """Store a finished part."""
        buffer = io.BytesIO()
        with pa.ipc.new_file(buffer, table.schema) as file:
            file.write_table(table)
        content = buffer.getvalue()
        _write_whole(self.folder / f"{_PREFIX}{part:09}-{_digest(content)}{_SUFFIX}", content)

    def tables(self, plan: Plan) -> Iterator[pa.Table]:
        """The parts' tables in order.

        Raises:
            ResumeError: if a part is missing or damaged.
        """
        files = self._files()
        for part in range(plan.parts):
            content = _content(files[part]) if part in files else None
            if content is None:
                raise ResumeError(f"part {part} is missing from {self.folder} or damaged; --resume evaluates it again.")
            yield pa.ipc.open_file(content).read_all()

    def keep(self, name: str, content: bytes) -> None:
        """Store what the processes must all know; it is stored anew whenever the run is begun or continued."""
        _write_whole(self.folder / name, content)

    def kept(self, name: str) -> bytes:
        """What :meth:`keep` stored."""
        return (self.folder / name).read_bytes()

    @property
    def exists(self) -> bool:
        """Whether there is a run to continue."""
        return (self.folder / _SETTINGS).exists()

    @property
    def done(self) -> int:
        """Number of finished parts."""
        return len(self._files())

    @property
    def stored(self) -> int:
        """Number of finished parts, those of other stages of the run included."""
        return sum(1 for _ in self.folder.rglob(f"{_PREFIX}*{_SUFFIX}"))

    @contextlib.contextmanager
    def publish(self) -> Iterator[Path]:
        """A folder whose files move into the output when the block ends without an error."""
        stage = self.folder / f"{_OUTPUTS}{uuid.uuid4().hex}"
        stage.mkdir()
        try:
            yield stage
            for file in stage.iterdir():
                file.replace(self.output / file.name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def remove(self) -> None:
        """Delete the folder: the run is finished, also if this process is killed while it deletes."""
        with contextlib.suppress(OSError):
            (self.folder / _SETTINGS).unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_if_empty(self) -> bool:
        """Delete the folder, and the output if this run made it, if no part is done in any stage; return whether it did."""
        if self.stored:
            return False
        return self.remove_if_unscored()

    def remove_if_unscored(self) -> bool:
        """As :meth:`remove_if_empty`, but what other stages have stored below the folder is deleted too."""
        if self.done:
            return False
        self.remove()
        if self._created:
            with contextlib.suppress(OSError):  # something else was put there meanwhile
                self.output.rmdir()
        return True

    def _files(self) -> dict[int, Path]:
        """Part -> its file, judged by the names alone."""
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            names = (e.name for e in entries if e.name.startswith(_PREFIX) and e.name.endswith(_SUFFIX))
            return {int(name.split("-")[1]): self.folder / name for name in sorted(names)}

    def _intact_parts(self) -> set[int]:
        """The parts whose content is what was written; damaged files and remains of writing are deleted."""
        for path in self.folder.iterdir():
            if path.is_dir():  # others belong to a second stage, which looks after them itself
                if path.name.startswith(_OUTPUTS):
                    shutil.rmtree(path)
            elif path.name != _SETTINGS and (not path.name.endswith(_SUFFIX) or _content(path) is None):
                path.unlink()
        return set(self._files())


def _content(path: Path) -> bytes | None:
    """What a part's file holds, or None if that is not what was written."""
    content = path.read_bytes()
    return content if path.name.endswith(f"-{_digest(content)}{_SUFFIX}") else None


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or not at all, even if the machine loses power."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # a full disk, or a signal: half a file would only take up room
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
