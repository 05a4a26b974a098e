"""The study's report: leakage per model and defence, correlations of the metrics, and what both rest on."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from attacker_metrics.faithfulness import Annotations, Faithfulness, Scores, faithfulness, read_annotations, read_scores
from attacker_metrics.faithfulness import report as faithfulness_report
from attacker_metrics.faithfulness.analysis import LevelResult
from attacker_metrics.faithfulness.rank_statistics import STATISTICS
from attacker_metrics.faithfulness.tables import read_table
from attacker_metrics.files.drawing import drawn, plain
from attacker_metrics.statistics import Estimate, Rate, success_rate
from attacker_metrics.study.annotating import MOST_CLASSES
from attacker_metrics.study.config import ALL, Config
from attacker_metrics.study.files import (
    ANNOTATIONS,
    ATTACKED,
    CORRELATIONS,
    LEAKAGE,
    PICKS,
    REPORT,
    SCORES,
    SUMMARY,
    THREAT_MODEL,
    Cell,
    image_names,
    read_images,
    read_json,
    write_rows,
)
from attacker_metrics.study.leakage import LeakageRow, leakage
from attacker_metrics.study.units import Folder, Unit, versions, write_file, write_json

_SHOWN = ("ms_ssim", "pearson", "mse", "psnr", "ssim", "lpips", "semsim")
"""Metrics of the page's table; the files hold all."""
_INTERVALS = {
    "image": "95 % intervals: bootstrap over attacked images, as several reconstructions are of each.",
    "model": "Means against shares recognised; 95 % intervals: bootstrap over these points. They share images, networks and"
    " attacks, so the intervals are rather too narrow.",
}


@dataclass(frozen=True)
class Subject:
    """What a report is about.

    Args:
        config: the study's settings.
        cells: the cells of its design.
        betas: of the attackers' MS-SSIM.
        training: number of training images.
        validation: number of held-out images.
        classifiers: the units that trained or loaded them.
        annotations: the unit that annotated.
    """

    config: Config
    cells: tuple[Cell, ...]
    betas: tuple[float, ...]
    training: int
    validation: int
    classifiers: tuple[Unit, ...]
    annotations: Unit


def report(root: Path, *, study: Subject) -> None:
    """Write ``report.html``, ``report.json``, ``leakage.csv`` and ``correlations.csv``."""
    scores, annotations = read_scores(root / SCORES), read_annotations(root / ANNOTATIONS)
    rows = leakage(study.cells, scores, annotations)
    outcome = _correlated(scores, annotations, study)
    summary = _summary(root, study, annotations, rows, outcome)
    page = _page(root, study, summary, rows, outcome, scores, annotations)  # before anything is written: it may fail
    write_json(root / SUMMARY, summary)
    _write_leakage(root / LEAKAGE, rows)
    _write_correlations(root / CORRELATIONS, outcome)
    write_file(root / REPORT, page.encode())


def _correlated(scores: Scores, annotations: Annotations, study: Subject) -> Faithfulness | str:
    """The analysis, or why there is none."""
    found = set(annotations.recognized()[np.isin(annotations.reconstruction, scores.ids)].tolist())
    if found in ({0.0}, {1.0}):
        which = "every" if 1.0 in found else "no"
        return f"{which} reconstruction was recognised by more than half of the annotators, there is nothing to rank."
    try:
        return faithfulness(
            scores, annotations, draws=study.config.report.draws, seed=study.config.seed, allow_unmatched=True
        )
    except ValueError as error:
        return str(error)


def _summary(
    root: Path, study: Subject, annotations: Annotations, rows: list[LeakageRow], outcome: Faithfulness | str
) -> dict[str, Any]:
    config, folder = study.config, Folder(root)
    attacked = read_json(root / ATTACKED)
    basis = _basis(study, annotations, attacked["classes"], folder)
    found: dict[str, Any] = {"refused": outcome}
    if not isinstance(outcome, str):
        found = faithfulness_report.as_dict(outcome)
        found["annotator_agreement"] = found.pop("humans")  # annotators may be machines
        found["readings"] = _readings(outcome, machines=basis["kind"] == "machine")
    classifiers = []
    for unit in study.classifiers:
        model, _, defence = unit.name.partition("/")
        classifiers.append({"model": model, "defence": defence, **(folder.record(unit) or {}).get("facts", {})})
    return {
        "name": config.name,
        "seed": config.seed,
        "images": {
            "attacked": config.images,
            "training": study.training,
            "validation": study.validation,
            "classes": len(attacked["classes"]),
            "pixels": config.data.size,
        },
        "reconstructions": config.images * len(study.cells),
        "betas": list(study.betas),
        "annotators": basis,
        "classifiers": classifiers,
        "leakage": [row.as_dict() for row in rows],
        "correlations": found,
        "threat_models": _threat_models(root, study.cells),
        "readings": [*sentences(rows, basis), *found.get("readings", [])],
        "versions": versions(),
    }


def _basis(study: Subject, annotations: Annotations, classes: list[str], folder: Folder) -> dict[str, Any]:
    """Who annotated, how many, what, and how often they would be right by chance."""
    annotation, known = study.config.annotation, _known(study, annotations)
    # Who has not voted on this study is no annotator of it.
    names = [name for name, votes in annotations.votes.items() if (~np.isnan(np.asarray(votes)) & known).any()]
    asked = ~np.isnan(annotations.recognized("mean")) & known
    basis: dict[str, Any] = {"names": names, "annotators": len(names) or None, "reconstructions": int(asked.sum())}
    if annotation.machine:
        basis |= {"kind": "machine", "candidates": annotation.candidates, "margin": annotation.margin}
        basis["task"] = f"pick the attacked picture among {annotation.candidates}, or say 'cannot tell'"
    else:
        task = ((folder.record(study.annotations) or {}).get("facts", {})).get("task")
        told: dict[str, tuple[int | None, str]] = {
            "category": (count := min(len(classes), MOST_CLASSES), f"choose among {count} classes, or say 'cannot tell'"),
            "pair": (2, "say whether the reconstruction is of the picture beside it, or 'cannot tell'"),
        }
        options, said = told.get(str(task), (None, "not stated by the table of votes"))
        basis |= {"kind": "people", "candidates": options, "task": said}
    chance = 1 / basis["candidates"] if basis["candidates"] else None
    most = None if chance is None or not names else float(binom.sf(len(names) // 2, len(names), chance))
    return {**basis, "chance": chance, "chance_of_majority": most}


def _known(study: Subject, annotations: Annotations) -> NDArray[np.bool_]:
    """Which votes are on this study's reconstructions."""
    known = [f"{cell.folder}/{name}.png" for cell in study.cells for name in image_names(study.config.images)]
    return np.isin(annotations.reconstruction, known)


def _threat_models(root: Path, cells: tuple[Cell, ...]) -> list[dict[str, Any]]:
    return [
        {
            "classifier": cell.classifier,
            "attack": cell.attack,
            "threat_model": read_json(root / cell.folder / THREAT_MODEL),
        }
        for cell in cells
    ]


def sentences(rows: list[LeakageRow], basis: dict[str, Any]) -> list[str]:
    """Who recognised, and of what most and least was."""
    said = [f"Recognised means: by more than half of {_who(basis)}, on {basis['reconstructions']} reconstructions."]
    judged = [row for row in rows if row.recognized is not None and row.attack != ALL]
    most = max(judged, key=_rate_of, default=None)
    least = min(judged, key=_rate_of, default=None)
    if most is not None and least is not None and _rate_of(most) > _rate_of(least):
        said.append(f"Most is recognised of {_named(most, judged)}; least of {_named(least, judged)}.")
    elif len(judged) > 1:
        said.append("As many were recognised of each classifier under each attack: these data show no difference.")
    return said


def _who(basis: dict[str, Any]) -> str:
    if basis["kind"] == "machine":
        return f"{_count(basis['annotators'], 'machine annotator')}, programs and not people"
    return "an unknown number of people" if basis["annotators"] is None else _count(basis["annotators"], "person", "people")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _rate_of(row: LeakageRow) -> float:
    return row.recognized.rate if row.recognized is not None else 0.0


def _readings(outcome: Faithfulness, *, machines: bool) -> list[str]:
    said = [
        sentence.replace(" images ", " reconstructions ").replace("models", "classifiers under an attack")
        for sentence in faithfulness_report.sentences(outcome)
    ]
    return [sentence.replace("human ceiling", "ceiling") for sentence in said] if machines else said


def _named(row: LeakageRow, judged: list[LeakageRow]) -> str:
    others = sum(_rate_of(one) == _rate_of(row) for one in judged) - 1
    more = f" (and of {_count(others, 'other', 'others')} alike)" if others else ""
    return f"{row.model}+{row.defence} under {row.attack}, {row.recognized}{more}"


def _write_leakage(path: Path, rows: list[LeakageRow]) -> None:
    table: list[list[Any]] = [["model", "defence", "attack", "metric", "images", "value", "low", "high"]]
    for row in rows:
        key = [row.model, row.defence, row.attack]
        if row.recognized is not None:
            rate = row.recognized
            table.append([*key, "recognized", rate.n, rate.rate, rate.low, rate.high])
        table += [[*key, name, row.images, *_csv(found)] for name, found in row.metrics.items()]
    write_rows(path, table)


def _write_correlations(path: Path, outcome: Faithfulness | str) -> None:
    table: list[list[Any]] = [["level", "metric", "leaks_if", "statistic", "value", "low", "high"]]
    for level in _levels(outcome):
        for name, statistics in level.statistics.items():
            for statistic, found in statistics.items():
                direction = "" if isinstance(outcome, str) else outcome.directions[name]
                table.append([level.level, name, direction, statistic, *_csv(found)])
    write_rows(path, table)


def _levels(outcome: Faithfulness | str) -> list[LevelResult]:
    return [] if isinstance(outcome, str) else [level for level in (outcome.image, outcome.model) if level is not None]


def _part(level: LevelResult, names: list[str]) -> LevelResult:
    """The level with some of its metrics, for a plot that one can look at."""
    return dataclasses.replace(level, scores={name: level.scores[name] for name in names})


def _csv(found: Estimate | None) -> list[Any]:
    return ["", "", ""] if found is None else ["" if value != value else value for value in found]


def _page(
    root: Path,
    study: Subject,
    summary: dict[str, Any],
    rows: list[LeakageRow],
    outcome: Faithfulness | str,
    scores: Scores,
    annotations: Annotations,
) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attacker_metrics.study"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    shown = [name for name in _SHOWN if name in scores.columns]
    levels = [
        {
            "what": f"{level.count} {'reconstructions' if level.level == 'image' else 'classifiers under an attack'}",
            "intervals": _INTERVALS[level.level] if level.refused is None else f"There are {level.refused}.",
            "rows": [
                (name, (scores.directions or {})[name], [_text(statistics[statistic]) for statistic in STATISTICS])
                for name, statistics in level.statistics.items()
            ],
            "plot": base64.b64encode(faithfulness_report.scatter_png(_part(level, shown))).decode(),
        }
        for level in _levels(outcome)
    ]
    gallery = [
        (defence.name, *_gallery(root, [cell for cell in study.cells if cell.defence == defence.name], study))
        for defence in study.config.defences
        if study.config.report.gallery
    ]
    page: str = environment.get_template("study.html.jinja").render(
        summary=summary,
        shown=shown,
        directions=scores.directions,
        rows=[(row, _in_two(_rate(row.recognized)), [_in_two(_text(row.metrics[name])) for name in shown]) for row in rows],
        levels=levels,
        refused=outcome if isinstance(outcome, str) else None,
        annotators=_annotator_rows(root, study, annotations, summary["annotators"]),
        facts=_facts(summary["threat_models"], study),
        who=_who(summary["annotators"]),
        gallery=gallery,
    )
    return page


def _facts(threat_models: list[dict[str, Any]], study: Subject) -> list[tuple[str, str, list[str]]]:
    """Per classifier and attack what the attacker knows, in words; the digests stay in the files."""
    augmented = {f"{cell.model}+{cell.defence}": cell.defence for cell in study.cells}
    policies = {defence.name: defence.augment for defence in study.config.defences}
    told = []
    for one in threat_models:
        facts, policy = one["threat_model"], policies[augmented[one["classifier"]]]
        cells = [
            "as it is" if policy is None else f"augmented by {policy}",
            facts["gradient"],
            "none" if not facts["defenses"] else ", ".join(facts["defenses"]),
            "yes" if facts["knows_defenses"] else "no",
            facts["labels"],
            facts["batch_norm"],
            "loaded" if facts["epoch"] is None else str(facts["epoch"]),
            "yes" if facts["knows_checkpoint"] else "no",
            f"{facts['settings']['restarts']} x {facts['settings']['iterations']}",
        ]
        told.append((one["classifier"], one["attack"], cells))
    return told


def _annotator_rows(
    root: Path, study: Subject, annotations: Annotations, basis: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """Per annotator how many reconstructions were recognised, and how often a machine could not tell."""
    picks = read_table(root / PICKS) if basis["kind"] == "machine" else {}
    rows = []
    for name, votes in annotations.judges.items():
        asked = ~np.isnan(votes) & _known(study, annotations)
        rate = success_rate(votes[asked] == 1, annotations.clusters[asked]) if asked.any() else None
        unsure = str(picks[name].count("cannot tell")) if name in picks else "-"
        rows.append((name, _rate(rate), unsure))
    return rows


def _gallery(root: Path, cells: list[Cell], study: Subject) -> tuple[list[str], str]:
    """Labels of the rows, and a picture: what was attacked, and below it what each attack made of it."""
    config = study.config
    count = min(config.report.gallery, config.images)
    strips = [("attacked", read_images(root, f"views/{cells[0].defence}"))]
    strips += [(f"{cell.model}, {cell.attack}", read_images(root, cell.folder)) for cell in cells]
    figure = Figure(figsize=(1.1 * count, 1.25 * len(strips)), layout="constrained")
    for line, (label, images) in zip(figure.subplots(len(strips), count, squeeze=False), strips, strict=True):
        for axes, image, name in zip(line, images[:count], image_names(count), strict=True):
            axes.imshow(_shown(image))
            axes.set_xticks([])
            axes.set_yticks([])
            if line is not None and label == "attacked":
                axes.set_title(name, fontsize=7)
        line[0].set_ylabel(plain(label, 40), fontsize=7)
    return [label for label, _ in strips], base64.b64encode(drawn(figure, "png", 110)).decode()


def _shown(image: Tensor) -> Any:
    return image.clamp(0, 1).permute(1, 2, 0).numpy()


def _in_two(text: str) -> tuple[str, str]:
    """A number and its interval, for two lines of a cell."""
    value, _, interval = text.removesuffix(")").partition(" (")
    return value, interval


def _text(found: Estimate | None) -> str:
    if found is None or found.value != found.value:
        return "-"
    if found.low != found.low:
        return f"{found.value:.3g}"
    return f"{found.value:.3g} ({found.low:.3g} to {found.high:.3g})"


def _rate(rate: Rate | None) -> str:
    return "-" if rate is None else f"{rate.successes} of {rate.n} ({rate.low:.2f} to {rate.high:.2f})"
