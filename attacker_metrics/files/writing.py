"""What may be written, and files written whole or not at all: every command asks here, and nowhere else.

A command never writes over one of its inputs, however the path is spelt, and over a file of somebody else only with
``--overwrite``. Its own earlier outputs it recognises by what they say about themselves, so the same command runs twice.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attacker_metrics.files.regular import open_regular

MARK = "attacker-metrics output"
"""Stands in every text or picture that this package writes, for people and for :func:`is_ours`."""
VERSION = "attacker_metrics_version"
"""The key of every JSON file of ours."""

CODE = "package_digest"
"""The key of JSON files of ours that says which code wrote them."""

_ENDS = 1 << 16
_STAGE = ".attacker-metrics-"


class OutputError(FileExistsError):
    """An output that would destroy something; the message names it, and what to do."""


IsOurs = Callable[[Path], bool]


def check_outputs(
    files: Iterable[Path],
    *,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    overwrite: bool = False,
    ours: IsOurs | None = None,
    many: Callable[[], Iterable[str | os.PathLike[str]]] = tuple,
) -> None:
    """Refuse to write what must not be lost.

    Two paths are one file if the file system says so: links of both kinds, another spelling, and upper and lower case where
    these are one.

    Args:
        files: what is about to be written; those that do not exist are free.
        inputs: what the command reads; never written over. None and URLs are passed over.
        overwrite: whether files that are not this program's may be replaced.
        ours: tells an earlier output of the same command; by default :func:`is_ours`.
        many: names further inputs, perhaps millions: asked only where something lies in an output's place that is a link, or
            that the command did not write.

    Raises:
        OutputError: naming the first file that must stay as it is.

    Example:
        >>> check_outputs([Path("nowhere.png")], inputs=["also-nowhere.png"])
    """
    read = [path for source in inputs if source is not None and (path := _local(source)) is not None]
    recognise = is_ours if ours is None else ours
    doubtful: list[Path] = []
    for file in files:
        for source in read:
            if same_file(file, source):
                raise OutputError(f"{file} is an input ({source}); it would be lost. Pass another --output.")
        if not os.path.lexists(file):
            continue
        target = Path(os.path.realpath(file))
        if target.exists() and not target.is_file():
            raise OutputError(f"{file} exists and is no regular file; pass another --output.")
        known = target.exists() and recognise(target)
        if target.exists() and not overwrite and not known:
            raise OutputError(
                f"{file} exists, and this command did not write it. Pass another --output, or --overwrite to replace it."
            )
        if not known or file.is_symlink() or target.stat().st_nlink > 1:
            doubtful.append(file)
    for place in many() if doubtful else ():
        for file in doubtful:
            if (path := _local(place)) is not None and same_file(file, path):
                raise OutputError(f"{file} is an input ({path}); it would be lost. Pass another --output.")


def _local(source: str | os.PathLike[str]) -> Path | None:
    """The path that is read, also if it is written as ``file://``; None for any other URL."""
    text = os.fspath(source)
    if text[:7].lower() == "file://":
        return Path(text[7:])
    return None if "://" in text else Path(text)


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths lead to one file, which need not exist."""
    try:
        return first.samefile(second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


def check_apart(output: Path, folders: Iterable[Path | None]) -> None:
    """Refuse an output folder that is one of the folders that are read, or a folder of their files.

    Raises:
        OutputError: if so.
    """
    for folder in folders:
        if folder is None or not output.is_dir():
            continue
        if same_file(output, folder):
            raise OutputError(f"--output {output} is a folder of inputs; pass one of its own.")


def is_ours(path: Path) -> bool:
    """Whether a file says that this package wrote it: by a key (JSON), metadata (Parquet) or :data:`MARK` (others)."""
    try:
        if path.suffix == ".json":
            found = json.loads(path.read_text(encoding="utf-8"))
            return isinstance(found, dict) and VERSION in found
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq  # most outputs need no pyarrow

            return MARK.encode() in (pq.read_schema(path).metadata or {})
        with path.open("rb") as file:
            start = file.read(_ENDS)
            file.seek(max(0, path.stat().st_size - _ENDS))
            return MARK.encode() in start or MARK.encode() in file.read(_ENDS)
    except (OSError, ValueError, RecursionError):
        return False
    except Exception as error:  # pyarrow's own errors, which not all are ValueErrors
        if type(error).__module__.startswith("pyarrow"):
            return False
        raise


def earlier_release(index: Path, *keys: str) -> bool:
    """Whether a JSON file has these keys and no mark: those beside it have none either, as in earlier releases."""
    try:
        with open_regular(index) as file:
            found = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and all(key in found for key in keys) and CODE not in found


def has_header(path: Path, *headers: Iterable[str]) -> bool:
    """Whether a CSV file has one of these headers, column by column: tables of ours have no room for a mark."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as file:
            found = next(csv.reader(file), [])
    except (OSError, ValueError, csv.Error):
        return False
    return any(found == list(header) for header in headers)


def marked(table: Any) -> Any:
    """A pyarrow table that says whose it is once it is written as Parquet."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), MARK.encode(): b"1"})


def with_suffix(path: Path, *suffixes: str, option: str = "--output") -> Path:
    """The path, if it ends in one of the suffixes, in upper or lower case.

    Raises:
        ValueError: naming those that it may end in.

    Example:
        >>> with_suffix(Path("grid.PNG"), ".png").name
        'grid.PNG'
        >>> with_suffix(Path("grid.xyz"), ".png", ".svg")
        Traceback (most recent call last):
        ValueError: --output grid.xyz: the name must end in .png or .svg.
    """
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{option} {path}: the name must end in {' or '.join(suffixes)}.")
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or not at all, even if the machine loses power.

    A link is followed; a file that is replaced keeps its mode, a new one has that of the user's mask.

    Args:
        path: where; its folder exists.
        content: of the file.

    Raises:
        OSError: if it cannot be written; what was there is as it was.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f"{path.name[:100]}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _place(temporary, path)
    except BaseException:  # a full disk, or a signal: half a file would only take up room
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """A folder beside ``output`` whose files move into it when the block ends without an error, and vanish otherwise.

    Raises:
        OSError: at the start, before any work, if nothing can be written there.
    """
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"{output} exists and is not a folder; pass another --output.")
    stage = (output if output.exists() else output.parent) / f"{_STAGE}{uuid.uuid4().hex}"
    stage.mkdir(parents=True)
    try:
        yield stage
        if output.exists():
            move_files(stage, output)
        else:
            for file in stage.iterdir():
                _to_disk(file)
            stage.replace(output)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def move_files(stage: Path, output: Path) -> None:
    """Move the files of a folder into another one of the same file system, each whole; all are on the disk before."""
    files = sorted(stage.iterdir())
    for file in files:
        _to_disk(file)
    for file in files:
        _place(file, Path(os.path.realpath(output / file.name)))
    sync_folder(output)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot, and need not
            os.fsync(handle)
    finally:
        os.close(handle)


def _place(file: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        file.chmod(stat.S_IMODE(target.stat().st_mode))
    file.replace(target)


def _to_disk(file: Path) -> None:
    if file.is_file():
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
