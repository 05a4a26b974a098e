"""Who recognises which reconstruction: a table of people's votes, or of machine annotators' picks, and tasks for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attacker_metrics._extras import missing_extra
from attacker_metrics.faithfulness import Annotations, read_annotations
from attacker_metrics.faithfulness.annotations import CLASS, KEYS, PREFIX
from attacker_metrics.faithfulness.tables import read_table
from attacker_metrics.study.config import Annotation
from attacker_metrics.study.files import (
    ANNOTATIONS,
    ATTACKED,
    PICKS,
    TASKS,
    Cell,
    image_names,
    read_images,
    read_json,
    write_csv,
    write_rows,
)
from attacker_metrics.study.machines import CANNOT_TELL, draw_candidates, pick
from attacker_metrics.study.units import write_file

MACHINE = "machine-"
"""What the names of machine annotators begin with, in every table."""
MOST_CLASSES = 20
"""People choose among so many classes at most."""
_DATABASES = (".sqlite", ".sqlite3", ".db")


def key_columns(dataset: str, cells: Sequence[Cell], count: int) -> dict[str, list[str]]:
    """The columns that name a reconstruction, a row per cell and image; paths are relative to the study's folder."""
    rows = [
        (dataset, cell.classifier, cell.attack, f"originals/{name}.png", f"{cell.folder}/{name}.png")
        for cell in cells
        for name in image_names(count)
    ]
    return {key: list(column) for key, column in zip(KEYS, zip(*rows, strict=True), strict=True)}


def annotate_by_machines(root: Path, dataset: str, cells: Sequence[Cell], annotation: Annotation, seed: int) -> None:
    """Write the annotation table of the machine annotators, and what they picked among which candidates.

    Candidates are the exact views that were attacked under the same defence.
    """
    count = len(read_json(root / ATTACKED)["images"])
    candidates = draw_candidates(count, annotation.candidates, seed)
    names, keys = image_names(count), key_columns(dataset, cells, count)
    votes: dict[str, list[int]] = {f"{PREFIX}{MACHINE}{name}": [] for name in annotation.machine}
    picks: dict[str, list[str]] = {f"{MACHINE}{name}": [] for name in annotation.machine}
    for cell in cells:
        found, views = read_images(root, cell.folder), read_images(root, f"views/{cell.defence}")
        for name in annotation.machine:
            picked = pick(found, views, candidates, name, annotation.margin)
            votes[f"{PREFIX}{MACHINE}{name}"] += [int(choice == image) for image, choice in enumerate(picked)]
            picks[f"{MACHINE}{name}"] += ["cannot tell" if choice == CANNOT_TELL else names[choice] for choice in picked]
    shown = [";".join(names[other] for other in row) for row in candidates.tolist()] * len(cells)
    write_csv(root / ANNOTATIONS, {**keys, **votes})
    write_csv(
        root / PICKS, {"reconstruction": keys["reconstruction"], "right": names * len(cells), "candidates": shown, **picks}
    )


def copy_of_people(root: Path, path: Path) -> dict[str, str]:
    """Write people's votes as the study's annotation table.

    Returns:
        What they were asked, as far as the file tells: ``"category"``, ``"pair"``, or ``"unknown"``.

    Raises:
        TableError: if the file is no annotation table.
        ValueError: if the votes are a machine's, on other pictures, or on none of the study's.
        OSError: if it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"annotation.people: {path} is not there yet. Ask people, e.g. by 'attacker-metrics annotate {root / TASKS}"
            " --database FILE', put their votes there, and run the study again; what is done is kept."
        )
    if path.suffix.lower() in _DATABASES:
        annotations, task = _votes_of_database(path, root / TASKS)
    else:
        annotations = read_annotations(path)
        task = "category" if CLASS in read_table(path) else "unknown"
    machines = [name for name in annotations.votes if name.startswith(MACHINE)]
    if machines:
        raise ValueError(f"annotation.people: {path} holds machine annotators ({', '.join(machines)}), who are not people.")
    asked = read_table(root / TASKS)["reconstruction"]
    answered = ~np.isnan(annotations.recognized("mean"))
    if not set(asked) & set(np.asarray(annotations.reconstruction)[answered].tolist()):
        raise ValueError(
            f"annotation.people: {path} has votes on none of this study's reconstructions; its column 'reconstruction' holds"
            f" those of {TASKS}, such as {asked[0]!r}."
        )
    if path.suffix.lower() == ".csv":
        write_file(root / ANNOTATIONS, path.read_bytes())
    else:
        _write_votes(root / ANNOTATIONS, annotations)
    return {"task": task}


def write_tasks(root: Path, dataset: str, cells: Sequence[Cell], seed: int) -> None:
    """Write the manifest that ``attacker-metrics annotate`` shows to people: which class is it, of at most twenty."""
    attacked = read_json(root / ATTACKED)
    keys = key_columns(dataset, cells, len(attacked["images"]))
    right = [image["class"] for image in attacked["images"]]
    candidates = [
        ";".join(classes_to_choose_from(attacked["classes"], name, (seed, image))) for image, name in enumerate(right)
    ]
    write_csv(root / TASKS, {**keys, "class": right * len(cells), "candidates": candidates * len(cells)})


def classes_to_choose_from(classes: Sequence[str], right: str, seed: Sequence[int]) -> list[str]:
    """At most twenty classes, the right one among them, in the order of the data set.

    The seed is of one original: were the wrong ones alike for all, the odd one out would be right.
    """
    if len(classes) <= MOST_CLASSES:
        return list(classes)
    others = [name for name in classes if name != right]
    chosen = {right, *np.random.default_rng(list(seed)).permutation(others)[: MOST_CLASSES - 1].tolist()}
    return [name for name in classes if name in chosen]


def _votes_of_database(path: Path, tasks: Path) -> tuple[Annotations, str]:
    try:
        from attacker_metrics.annotation import Database, Store, read_tasks, read_votes
    except ModuleNotFoundError as error:
        what = f"annotation.people: {path} is a database of the annotation app"
        raise missing_extra(what, "annotate", error, instead="or export a table from it") from error
    opened = Database(path, must_exist=True)
    try:
        store = Store(opened)
    finally:
        opened.close()
    now = {item.reconstruction: item.pictures for item in read_tasks(tasks, store.settings.task)}
    others = [item.reconstruction for item in store.items if now.get(item.reconstruction, item.pictures) != item.pictures]
    if others:
        raise ValueError(
            f"annotation.people: the votes in {path} are on other pictures than those that now have their names"
            f" ({len(others)}, e.g. {others[0]}); ask people anew, in another database."
        )
    return read_votes(path), store.settings.task


def _write_votes(path: Path, annotations: Annotations) -> None:
    keys = [np.asarray(getattr(annotations, name)).tolist() for name in KEYS]
    votes = {f"{PREFIX}{name}": np.asarray(column).tolist() for name, column in annotations.judges.items()}
    cells = [["" if value != value else int(value) for value in column] for column in votes.values()]
    write_rows(path, [[*KEYS, *votes], *zip(*keys, *cells, strict=True)])
