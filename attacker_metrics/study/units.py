"""Units of work: each is done once, leaves files and a record, and is done again if what it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import filelock
import torch
import torchmetrics

from attacker_metrics._version import __version__
from attacker_metrics.engine import backend
from attacker_metrics.files.digest import package_digest
from attacker_metrics.files.writing import write_whole

MANIFESTS = "manifests"
_HOLDER = ".lock.json"
"""Beside the lock: who holds it. Outlives a run that was killed, which the lock does not."""
NOT_YET = "not done yet"
_LONGEST = 200
UNREADABLE = "its record is damaged, or of another release"
_RECORD: dict[str, Any] = {
    "settings_digest": str,
    "settings": dict,
    "code": str,
    "inputs": dict,
    "outputs": dict,
    "facts": dict,
    "seconds": (int, float),
    "unit": str,
}
"""What every record holds, and of which type."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A piece of a step, done by one process.

    Args:
        step: which.
        name: unique in its step; may hold slashes.
        settings: what the outputs depend on beside the needed units, as JSON knows it.
        needs: units whose outputs it reads.
        outputs: the files it writes, relative to the study's folder.
        work: writes them, given the folder; what it returns goes into the record.
        sources: digests of what it reads from outside the folder, by name.
    """

    step: str
    name: str
    settings: Mapping[str, Any]
    needs: tuple[Unit, ...]
    outputs: tuple[str, ...]
    work: Callable[[Path], Mapping[str, Any] | None]
    sources: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Of the settings, its own and those of all units it needs: another digest is another result."""
        before = [unit.digest for unit in self.needs]
        content = [self.step, self.name, self.settings, self.sources, package_digest(), list(self.outputs), before]
        return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()

    @property
    def title(self) -> str:
        """What a person reads."""
        return f"{self.step} {self.name}"


class FolderInUseError(ValueError):
    """Two runs in one folder would write over each other."""


class Folder:
    """A study's folder: records of what is done, beside the outputs.

    Args:
        path: where; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other runs out of the folder; the system lets go of it even if this process is killed.

        Raises:
            FolderInUseError: if another run is at work in it.
        """
        (self.path / MANIFESTS).mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / MANIFESTS / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise FolderInUseError(
                f"another run is at work in {self.path}{_told(_read(self.path / MANIFESTS / _HOLDER))}; wait for its end, or"
                " pass another --output. Several processes share one study if torchrun starts them together."
            ) from None
        holder = self.path / MANIFESTS / _HOLDER
        try:
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            write_json(holder, {"process": os.getpid(), "host": platform.node(), "since": since})
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def record(self, unit: Unit) -> dict[str, Any] | None:
        """What was written when the unit was last done, or None, also where that cannot be read."""
        found = _read(self._record(unit))
        if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in _RECORD.items()):
            return None
        # A record without a digest of its own is of a release before there was one, so its code is another too.
        return found if found.pop("digest", _digest(found)) == _digest(found) else None

    def reason_to_do(self, unit: Unit) -> str | None:
        """Why the unit has to be done; None if it is done, and its outputs are what they were."""
        record = self.record(unit)
        if record is None:
            return UNREADABLE if self._record(unit).exists() else NOT_YET
        if record["settings_digest"] != unit.digest:
            changed = _differences(record["settings"], json.loads(json.dumps(dict(unit.settings))))
            others = [name for name, digest in unit.sources.items() if record["inputs"].get(name) != digest]
            if record["code"] != package_digest():
                others.append("this library's code")
            if changed or others:
                return f"changed: {', '.join([changed] * bool(changed) + others)}"
            return "what it builds on changed"
        for name in unit.outputs:
            if name not in record["outputs"] or digest_of(self.path / name) != record["outputs"][name]:
                return f"{name} is missing or not what was written"
        return None

    def do(self, unit: Unit) -> float:
        """Do the unit and record it; returns the seconds it took."""
        self._record(unit).unlink(missing_ok=True)  # of other settings: its outputs are about to go
        begin = time.time()
        facts = unit.work(self.path)
        inputs = dict(unit.sources)
        for need in unit.needs:
            inputs |= (self.record(need) or {"outputs": {}})["outputs"]
        seconds = time.time() - begin
        record = {
            "step": unit.step,
            "unit": unit.name,
            "settings_digest": unit.digest,
            "settings": unit.settings,
            "code": package_digest(),
            "inputs": inputs,
            "outputs": {name: digest_of(self.path / name) for name in unit.outputs},
            "facts": facts or {},
            "versions": versions(),
            "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begin)),
            "seconds": round(seconds, 3),
        }
        write_json(self._record(unit), {**record, "digest": _digest(json.loads(json.dumps(record)))})
        return seconds

    def is_summarized(self, step: str, units: list[Unit]) -> bool:
        """Whether the step's manifest is there, for these units."""
        found = _read(self.path / MANIFESTS / f"{step}.json")
        return isinstance(found, dict) and found.get("settings_digest") == _digest_of_all(units)

    def summarize(self, step: str, units: list[Unit]) -> None:
        """Write the step's manifest from the records of its units."""
        records = [record for unit in units if (record := self.record(unit)) is not None]
        inputs = {name: digest for record in records for name, digest in record["inputs"].items()}
        outputs = {name: digest for record in records for name, digest in record["outputs"].items()}
        manifest = {
            "step": step,
            "settings_digest": _digest_of_all(units),
            "inputs": {name: inputs[name] for name in inputs if name not in outputs},
            "outputs": outputs,
            "units": [record["unit"] for record in records],
            "versions": versions(),
            "seconds": round(sum(record["seconds"] for record in records), 3),
        }
        write_json(self.path / MANIFESTS / f"{step}.json", manifest)

    def _record(self, unit: Unit) -> Path:
        return self.path / MANIFESTS / unit.step / f"{unit.name}.json"


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "attacker_metrics": __version__,
        "torch": torch.__version__,
        "torchmetrics": torchmetrics.__version__,
        "python": platform.python_version(),
        "backend": str(backend()),
    }


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and the folders above it where they are missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a number that does not exist is an error, never NaN."""
    write_file(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; None if there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> Any:
    """The content of a JSON file; None if there is none, or it is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def _digest(content: Any) -> str:
    """Of what JSON can hold."""
    try:
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    except RecursionError:  # nested so deeply that it can be read, but not written
        return ""


def _told(holder: Any) -> str:
    """Who holds the lock, as far as its file tells."""
    if not isinstance(holder, dict):
        return ""
    process, host, since = (json.dumps(str(holder.get(name, "unknown"))[:80])[1:-1] for name in ("process", "host", "since"))
    return f" (process {process} on {host}, since {since})"


def _digest_of_all(units: list[Unit]) -> str:
    return hashlib.sha256("".join(unit.digest for unit in units).encode()).hexdigest()


def _differences(old: Any, new: Any, at: str = "") -> str:
    """Which settings differ, for a person; a few of them."""
    if isinstance(old, dict) and isinstance(new, dict):
        told = [_differences(old.get(name), new.get(name), f"{at}.{name}") for name in dict.fromkeys([*old, *new])]
        found = [one for one in told if one]
        return ", ".join(found[:4])
    return "" if old == new else f"{at.removeprefix('.')} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    try:
        told = json.dumps(value)
    except RecursionError:
        return "..."
    return told if len(told) <= _LONGEST else f"{told[:_LONGEST]}..."
