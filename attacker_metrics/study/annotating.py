"""Who recognises which reconstruction: a table of people's votes, or of machine annotators' picks, and tasks for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attacker_metrics.faithfulness import Annotations, read_annotations
from attacker_metrics.faithfulness.annotations import KEYS, PREFIX
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


def copy_of_people(root: Path, path: Path) -> None:
    """Write people's votes as the study's annotation table.

    Raises:
        TableError: if the file is no annotation table.
        OSError: if it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"annotation.people: {path} is not there yet. Ask people, e.g. by 'attacker-metrics annotate {root / TASKS}"
            " --database FILE', put their votes there, and run the study again; what is done is kept."
        )
    if path.suffix.lower() in _DATABASES:
        _write_votes(root / ANNOTATIONS, _votes_of_database(path))
        return
    annotations = read_annotations(path)
    machines = [name for name in annotations.votes if name.startswith(MACHINE)]
    if machines:
        raise ValueError(f"annotation.people: {path} holds machine annotators ({', '.join(machines)}), who are not people.")
    if path.suffix.lower() == ".csv":
        write_file(root / ANNOTATIONS, path.read_bytes())
    else:
        _write_votes(root / ANNOTATIONS, annotations)


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


def _votes_of_database(path: Path) -> Annotations:
    try:
        from attacker_metrics.annotation import read_votes
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"annotation.people: {path} is a database of the annotation app: pip install 'attacker-metrics[annotate]', or"
            " export a table from it.",
            name=error.name,
        ) from error
    return read_votes(path)


def _write_votes(path: Path, annotations: Annotations) -> None:
    keys = [np.asarray(getattr(annotations, name)).tolist() for name in KEYS]
    votes = {f"{PREFIX}{name}": np.asarray(column).tolist() for name, column in annotations.judges.items()}
    cells = [["" if value != value else int(value) for value in column] for column in votes.values()]
    write_rows(path, [[*KEYS, *votes], *zip(*keys, *cells, strict=True)])
