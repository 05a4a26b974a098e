"""MANIFEST -> the items that people judge: checked, with their candidates, with digests of the pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from attacker_metrics.faithfulness.annotations import CANNOT_TELL, CLASS, KEYS
from attacker_metrics.faithfulness.spellings import is_missing, is_unclear, named, one_class, spelled_differently
from attacker_metrics.faithfulness.tables import Column, TableError, read_table, shown
from attacker_metrics.files.images import ImageError, decode_image, one_spelling, read_bytes

TaskName = Literal["category", "pair"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
MAX_CANDIDATES = 20
_CANDIDATES, _SEPARATOR = "candidates", ";"
_TOLERANCE, _MOST_OUTSIDE = 1e-3, 0.25  # attacks overshoot here and there


@dataclass(frozen=True)
class Item:
    """A row of the manifest.

    Args:
        dataset: as in the annotation table, like the next four.
        model: what was attacked.
        attack: how.
        original: path, relative to the manifest.
        reconstruction: path, relative to the manifest; unique.
        category: the right one; empty if the manifest of a pair task has no classes.
        candidates: what one chooses from, sorted; empty in a pair task.
        pictures: digests of the original's and the reconstruction's file.
    """

    dataset: str
    model: str
    attack: str
    original: str
    reconstruction: str
    category: str
    candidates: tuple[str, ...]
    pictures: tuple[str, str]

    @property
    def source(self) -> str:
        """Which original this is a reconstruction of: by its content, because every attack may keep a copy of its own."""
        return self.pictures[0]


def read_tasks(manifest: Path, task: TaskName, *, seed: int = 0) -> list[Item]:
    """Read a manifest, CSV or Parquet, and every picture that it names, so that no annotator meets a broken one.

    Columns: ``dataset, model, attack, original, reconstruction`` (paths relative to the manifest), ``class`` (the right
    category; a pair task can do without) and optionally ``candidates``, separated by semicolons. By default the classes
    of the manifest are the candidates; of more than 20, nineteen wrong ones are drawn per original, so that the
    reconstructions of one original do not tell the right one by what their candidates share.

    Args:
        manifest: the file.
        task: ``"category"`` or ``"pair"``.
        seed: of the candidates.

    Raises:
        TableError: naming the file, the row (1 = the first below the header) and what to change.
        OSError: if the manifest cannot be read.
    """
    table = read_table(manifest)
    needed = (*KEYS, CLASS) if task == "category" else KEYS
    missing = [name for name in needed if name not in table]
    if missing:
        raise TableError(f"{manifest}: no column {shown(missing)}; a manifest of task {task!r} has {', '.join(needed)}.")
    for name in needed:
        for row, cell in enumerate(table[name], start=1):
            if cell == "":
                raise TableError(f"{manifest}, row {row}: {name} is empty.")
    first: dict[str, int] = {}
    for row, name in enumerate(table["reconstruction"], start=1):
        if first.setdefault(name, row) != row:
            raise TableError(f"{manifest}: reconstruction {name!r} is in row {first[name]} and in row {row}; list it once.")
    rows = len(table["reconstruction"])
    categories = table.get(CLASS, [""] * rows)
    if task == "category":
        _check_classes(manifest, categories)
        _check_no_original(manifest, table)
    digests = _digests(manifest, table)
    candidates: Sequence[tuple[str, ...]] = [()] * rows
    if task == "category":
        candidates = _candidates(manifest, table, digests, seed)
        _check_distinct(manifest, sorted({*categories, *(name for names in candidates for name in names)}))
    return [
        Item(
            dataset=table["dataset"][k],
            model=table["model"][k],
            attack=table["attack"][k],
            original=table["original"][k],
            reconstruction=table["reconstruction"][k],
            category=categories[k],
            candidates=candidates[k],
            pictures=(digests[table["original"][k]], digests[table["reconstruction"][k]]),
        )
        for k in range(rows)
    ]


def digest(content: bytes) -> str:
    """By which a picture is known, whatever its name."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _check_no_original(manifest: Path, table: dict[str, Column]) -> None:
    """By its path, not its content: an attack may be perfect."""
    originals = set(map(one_spelling, table["original"]))
    for row, name in enumerate(table["reconstruction"], start=1):
        if one_spelling(name) in originals:
            raise TableError(
                f"{manifest}, row {row}: reconstruction {name!r} is an original, which a category task must not show before"
                " its reconstructions; leave the row out (catch trials show originals at the end)."
            )


def _check_classes(manifest: Path, categories: Column) -> None:
    for row, name in enumerate(categories, start=1):
        if _is_no_class(name) or _SEPARATOR in name:
            raise TableError(
                f"{manifest}, row {row}: class is {name!r}, which the annotation table cannot hold ({CANNOT_TELL}, NA, None"
                f" and marks such as ? mean something else, {_SEPARATOR!r} separates candidates); rename it."
            )


def _check_distinct(manifest: Path, names: list[str]) -> None:
    """The annotation table reads 7.0 as 7, because spreadsheets write it so, and Cat as cat."""
    twice = spelled_differently(names, strictly=True)
    if twice:
        raise TableError(f"{manifest}: {named(twice)} are one class to the annotation table; rename one.")


def _is_no_class(name: str) -> bool:
    return is_missing(name) or is_unclear(name) or one_class(name) == CANNOT_TELL


def _candidates(manifest: Path, table: dict[str, Column], digests: dict[str, str], seed: int) -> list[tuple[str, ...]]:
    classes = sorted(set(table[CLASS]))
    listed = table.get(_CANDIDATES, [""] * len(table[CLASS]))
    found = []
    for row, (cell, right) in enumerate(zip(listed, table[CLASS], strict=True), start=1):
        if cell:
            names = [name.strip() for name in cell.split(_SEPARATOR)]
            _check_candidates(f"{manifest}, row {row}", names, right)
        elif len(classes) > MAX_CANDIDATES:
            entropy = int(digests[table["original"][row - 1]], 16)
            wrong = [name for name in classes if name != right]
            names = [
                right,
                *np.random.default_rng([seed, entropy]).choice(wrong, MAX_CANDIDATES - 1, replace=False).tolist(),
            ]
        else:
            names = classes
        if len(names) < 2:
            raise TableError(
                f"{manifest}, row {row}: {right!r} is the only candidate; there must be a choice of two at least."
            )
        found.append(tuple(sorted(names)))  # in whatever order they are listed, it must not tell
    return found


def _check_candidates(where: str, names: list[str], right: str) -> None:
    if len(names) > MAX_CANDIDATES:
        raise TableError(
            f"{where}: {len(names)} candidates, but at most {MAX_CANDIDATES} can be chosen from; leave some out."
        )
    if len(set(names)) < len(names) or "" in names:
        raise TableError(f"{where}: a candidate is empty or listed twice: {_SEPARATOR.join(names)!r}.")
    if right not in names:
        raise TableError(f"{where}: the right class {right!r} is not among the candidates; add it.")
    for name in names:
        if _is_no_class(name):
            raise TableError(
                f"{where}: a candidate is named {name!r}, which means no class to the annotation table; rename it."
            )


def _check_range(pixels: Tensor, path: Path) -> None:
    """People see [0, 1]: of a tensor in another scale they would recognise less than an attacker does."""
    outside = 1 - float(((pixels >= -_TOLERANCE) & (pixels <= 1 + _TOLERANCE)).float().mean())
    if outside > _MOST_OUTSIDE:
        raise ImageError(
            f"{path}: {outside:.0%} of the values are outside [0, 1], which people see as black or white; denormalise it, or"
            " clip it if it is meant so."
        )


def _digests(manifest: Path, table: dict[str, Column]) -> dict[str, str]:
    """Of every picture, decoded once."""
    digests: dict[str, str] = {}
    broken = []
    for row, names in enumerate(zip(table["original"], table["reconstruction"], strict=True), start=1):
        for name in names:
            if name in digests:
                continue
            path = manifest.parent / name
            digests[name] = ""
            if not _is_file(path):
                broken.append(f"row {row}: there is no file {_short(path)}")
                continue
            try:
                content = read_bytes(path)
                _check_range(decode_image(content, path).pixels, path)
                digests[name] = digest(content)
            except ImageError as error:
                broken.append(f"row {row}: {_short(error)}")
    if broken:
        more = f"; {len(broken) - 5} more" if len(broken) > 5 else ""
        raise TableError(f"{manifest}: {'; '.join(broken[:5])}{more}. Paths are relative to the manifest.")
    return digests


def _is_file(path: Path) -> bool:
    """Whether it is a regular file; a name that is too long, or holds what no name can, is none, and a pipe never ends."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _short(text: object, limit: int = 300) -> str:
    shown = str(text)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."
