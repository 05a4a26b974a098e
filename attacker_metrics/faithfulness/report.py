"""An analysis -> plain sentences, tables, plots and JSON. No pixel is in any of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from attacker_metrics._version import __version__
from attacker_metrics.faithfulness.analysis import Comparison, Faithfulness, LevelResult
from attacker_metrics.faithfulness.calibration import Calibration
from attacker_metrics.faithfulness.rank_statistics import STATISTICS
from attacker_metrics.files.digest import package_digest
from attacker_metrics.files.drawing import drawn, plain
from attacker_metrics.files.terminal import printable
from attacker_metrics.files.writing import CODE, MARK, VERSION, check_outputs, earlier_release, is_ours
from attacker_metrics.report.outputs import as_json
from attacker_metrics.statistics import Estimate

SUMMARY, PAGE, RELIABILITY = "faithfulness.json", "faithfulness.md", "reliability.png"
_HEADINGS = {"spearman": "Spearman rho", "kendall": "Kendall tau-b", "pearson": "Pearson r", "roc_auc": "ROC area"}
_FEW = 500
"""So many points are large enough to be seen one by one."""
_UNITS = {"image": "images", "model": "models"}
_INTERVALS = {"image": "95 % bootstrap intervals over originals", "model": "95 % bootstrap intervals over models"}
_AREA = {"image": "", "model": " ROC area: the share of pairs of models in the right order."}


def sentences(outcome: Faithfulness) -> list[str]:
    """What the numbers say and what they do not, in plain sentences."""
    said = []
    for level in _levels(outcome):
        said.append(_best(level))
        said.append(_undecided(level))
        if level.refused is not None:
            said.append(f"Of {level.count} {_UNITS[level.level]} there are {level.refused}.")
    said.append(f"By the rule {outcome.rule!r}, {outcome.recognized:.10g} of {outcome.image.count} images were recognised.")
    humans = outcome.humans
    if "spearman" in humans.mean:
        rho, low, high = humans.mean["spearman"]
        said.append(
            f"One annotator's votes against the mean of the others': rho {_estimate(Estimate(rho, low, high))} per image,"
            f" ROC area {_number(humans.mean['roc_auc'][0])}."
        )
        said.append(
            f"{len(humans.annotators)} annotators agree with Fleiss' kappa {_number(humans.fleiss_kappa)}, Krippendorff's"
            f" alpha {_number(humans.krippendorff_alpha)}."
        )
    else:
        said.append(f"One judge only ({', '.join(humans.annotators)}): there is no human ceiling to compare with.")
    if outcome.model is None:
        said.append("Fewer than three models: nothing is said about models.")
    if outcome.aligned is not None:
        said.append(f"{outcome.aligned} of {outcome.image.count} images were scored against a flipped or shifted original.")
    left = outcome.paired
    if left.unmatched_scores or left.unmatched_annotations or left.incomplete:
        said.append(
            f"Left out: {len(left.unmatched_scores)} scores without annotation, {len(left.unmatched_annotations)} annotated"
            f" images without score, {len(left.incomplete)} images with a missing score or without any vote."
        )
    return said


def tables(outcome: Faithfulness) -> list[Table]:
    """A table per level for a terminal."""
    made = []
    for level in _levels(outcome):
        within = "" if level.refused is not None else " (95 % interval)"
        table = Table(title=f"{level.count} {_UNITS[level.level]}: + = leaks more, is recognised more{within}")
        table.add_column("metric", no_wrap=True)
        table.add_column("leaks if")
        for heading in _HEADINGS.values():
            table.add_column(heading, justify="right", no_wrap=True)
        for name, cells in _cells(level).items():
            table.add_row(escape(printable(name)), outcome.directions[name], *cells)
        if level.refused is not None:
            table.caption = level.refused
        made.append(table)
    return made


def as_dict(outcome: Faithfulness, calibrations: Sequence[Calibration] = ()) -> dict[str, Any]:
    """Everything but the single scores; a number that does not exist is None."""
    humans = dataclasses.asdict(outcome.humans) | {"recognized": _counts(outcome.humans.recognized)}
    content = {
        "rule": outcome.rule,
        "draws": outcome.draws,
        "seed": outcome.seed,
        "originals": outcome.originals,
        "recognized": {"hits": outcome.recognized, "count": outcome.image.count},
        "aligned": outcome.aligned,
        "directions": dict(outcome.directions),
        "left_out": {
            "scores_without_annotation": list(outcome.paired.unmatched_scores),
            "annotations_without_score": list(outcome.paired.unmatched_annotations),
            "incomplete": list(outcome.paired.incomplete),
        },
        "humans": humans,
        "levels": {level.level: _level_dict(level) for level in _levels(outcome)},
        "calibrations": [
            {
                "metrics": list(fit.metrics),
                "method": fit.method,
                "brier": fit.brier._asdict(),
                "brier_of_base_rate": fit.brier_of_base_rate,
                "skill": fit.skill,
                "refused": fit.refused,
                "reliability": {
                    "predicted": fit.predicted.tolist(),
                    "observed": fit.observed.tolist(),
                    "counts": fit.counts.tolist(),
                },
            }
            for fit in calibrations
        ],
        "readings": sentences(outcome),
    }
    return _without_nan(content)  # type: ignore[no-any-return]


def summary(outcome: Faithfulness, calibrations: Sequence[Calibration] = ()) -> dict[str, Any]:
    """The same, and which version and sources of this package made it."""
    return {VERSION: __version__, CODE: package_digest(), **as_dict(outcome, calibrations)}


def write_outputs(stage: Path, outcome: Faithfulness, calibrations: Sequence[Calibration] = ()) -> None:
    """Write JSON, a page in Markdown, a scatter plot per level and a reliability plot into a folder."""
    (stage / SUMMARY).write_text(as_json(summary(outcome, calibrations)), encoding="utf-8")
    for level in _levels(outcome):
        (stage / f"scatter-{level.level}.png").write_bytes(scatter_png(level))
    if calibrations:
        (stage / RELIABILITY).write_bytes(reliability_png(calibrations))
    (stage / PAGE).write_text(as_markdown(outcome, calibrations), encoding="utf-8")


def check_writable(folder: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse an output folder in which these files are somebody else's, or read.

    Raises:
        OSError: naming the file.
    """
    old = earlier_release(folder / SUMMARY, "rule", "originals", "levels")
    names = (SUMMARY, PAGE, RELIABILITY, *(f"scatter-{level}.png" for level in _UNITS))
    check_outputs(
        [folder / name for name in names], inputs=inputs, overwrite=overwrite, ours=lambda path: old or is_ours(path)
    )


def as_markdown(outcome: Faithfulness, calibrations: Sequence[Calibration] = ()) -> str:
    """The page: sentences, a table and a plot per level, calibration."""
    lines = [
        f"<!-- {MARK} -->",
        "# Do the metrics agree with people?",
        "",
        *(f"- {_cell(sentence)}" for sentence in sentences(outcome)),
        "",
    ]
    for level in _levels(outcome):
        lines += [
            f"## {level.count} {_UNITS[level.level]}",
            "",
            f"Positive = leaks more, is recognised more; {level.refused or _INTERVALS[level.level]}.{_AREA[level.level]}",
            "",
            "| metric | leaks if | " + " | ".join(_HEADINGS.values()) + " |",
            "|---|---|" + "---|" * len(_HEADINGS),
            *(
                f"| {_cell(name)} | {outcome.directions[name]} | " + " | ".join(cells) + " |"
                for name, cells in _cells(level).items()
            ),
            "",
            f"![scatter plot](scatter-{level.level}.png)",
            "",
        ]
    lines += _shares("annotator", "reconstructions", outcome.humans.recognized)
    if outcome.model is not None:
        lines += _shares("model", "reconstructions", _recognized(outcome.model))
    if calibrations:
        lines += ["## Probability that a person recognises the image", ""]
        lines += ["| metrics | map | Brier score | of the base rate | skill |", "|---|---|---|---|---|"]
        for fit in calibrations:
            brier = _estimate(fit.brier)
            names = _cell(", ".join(fit.metrics))
            lines.append(f"| {names} | {fit.method} | {brier} | {fit.brier_of_base_rate:.3f} | {fit.skill:.3f} |")
        if calibrations[0].refused is not None:
            lines += ["", f"Of the Brier scores there are {calibrations[0].refused}."]
        lines += ["", f"![reliability plot]({RELIABILITY})", ""]
    return "\n".join(lines)


def _shares(what: str, of: str, counts: Mapping[str, tuple[float, int]]) -> list[str]:
    rows = [
        f"| {_cell(name)} | {hits / n:.3f} | {hits:.10g} of {n} |" if n else f"| {_cell(name)} | - | 0 of 0 |"
        for name, (hits, n) in counts.items()
    ]
    return [f"| {what} | share recognised | {of} |", "|---|---|---|", *rows, ""]


def _recognized(level: LevelResult) -> dict[str, tuple[float, int]]:
    """Model -> how many of its images count as recognised, of how many."""
    counted = zip(level.names, level.target.tolist(), level.counts.tolist(), strict=True)
    return {name: (round(share * n, 9), n) for name, share, n in counted}


def scatter_png(level: LevelResult) -> bytes:
    """Each metric (turned: right = leaks more) against the share that recognised; images are jittered."""
    names = list(level.scores)
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows), layout="constrained")
    jitter = np.random.default_rng(0).uniform(-0.04, 0.04, level.count) if level.level == "image" else 0.0
    size = 8 if level.count <= _FEW else 2
    for axes, name in itertools.zip_longest(figure.subplots(rows, columns, squeeze=False).flat, names):
        if name is None:
            axes.remove()
            continue
        axes.plot(level.scores[name], level.target + jitter, ".", markersize=size, alpha=0.5)
        axes.set_title(f"{plain(name, 40)}: rho {level.statistics[name]['spearman'].value:.2f}", fontsize=9)
        axes.set_ylabel("share recognised", fontsize=8)
        axes.set_xlabel("leaks more \N{RIGHTWARDS ARROW}", fontsize=8)
    return drawn(figure, "png", 110)


def reliability_png(calibrations: Sequence[Calibration]) -> bytes:
    """Predicted probability against the share recognised, per bin of equally many images."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    lines = [axes.plot(fit.predicted, fit.observed, "o-", markersize=4)[0] for fit in calibrations]
    axes.set(xlabel="predicted probability", ylabel="share recognised", xlim=(0, 1), ylim=(0, 1))
    # Names given here and not as labels: matplotlib leaves a label that begins with _ out.
    figure.legend(lines, [plain(_named(fit), 40) for fit in calibrations], loc="outside right upper", fontsize=7)
    return drawn(figure, "png", 110)


def _named(fit: Calibration) -> str:
    return fit.metrics[0] if len(fit.metrics) == 1 else f"{len(fit.metrics)} metrics together"


def _levels(outcome: Faithfulness) -> list[LevelResult]:
    return [level for level in (outcome.image, outcome.model) if level is not None]


def _best(level: LevelResult) -> str:
    rho = {name: statistics["spearman"] for name, statistics in level.statistics.items()}
    best = max(rho, key=lambda name: -math.inf if math.isnan(rho[name].value) else rho[name].value)
    return f"Over {level.count} {_UNITS[level.level]} {best} has the highest correlation: rho {_estimate(rho[best])}."


def _undecided(level: LevelResult) -> str:
    pairs = [comparison for comparison in level.comparisons if comparison.statistic == "spearman"]
    open_pairs = [comparison for comparison in pairs if not comparison.decided]
    start = f"With {level.count} {_UNITS[level.level]}"
    if not pairs:
        return f"{start} there is one metric only: nothing to compare."
    if not open_pairs:
        return f"{start} all {len(pairs)} pairs of metrics can be told apart (Holm, 5 %)."
    if len(pairs) == 1:
        return f"{start} these two metrics cannot be told apart: {_difference(pairs[0])}."
    if len(open_pairs) == len(pairs):
        return f"{start} no two of these {len(level.statistics)} metrics can be told apart (Holm, 5 %)."
    named = "; ".join(map(_difference, open_pairs[:6]))
    more = f"; and {len(open_pairs) - 6} more" if len(open_pairs) > 6 else ""
    return f"{start} {len(open_pairs)} of {len(pairs)} pairs of metrics cannot be told apart (Holm, 5 %): {named}{more}."


def _difference(comparison: Comparison) -> str:
    return f"{comparison.first} and {comparison.second} (rho differs by {_estimate(comparison.difference)})"


def _cells(level: LevelResult) -> dict[str, list[str]]:
    return {
        name: [_estimate(statistics[statistic]) for statistic in STATISTICS] for name, statistics in level.statistics.items()
    }


def _estimate(estimate: Estimate) -> str:
    if math.isnan(estimate.value) or math.isnan(estimate.low):
        return _number(estimate.value)
    return f"{estimate.value:.3f} ({_number(estimate.low)} to {_number(estimate.high)})"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _level_dict(level: LevelResult) -> dict[str, Any]:
    return {
        "count": level.count,
        "refused": level.refused,
        "statistics": {
            name: {statistic: value._asdict() for statistic, value in statistics.items()}
            for name, statistics in level.statistics.items()
        },
        "comparisons": [
            {**vars(comparison), "difference": comparison.difference._asdict(), "decided": comparison.decided}
            for comparison in level.comparisons
        ],
        "agreement": {name: dict(row) for name, row in level.agreement.items()},
        **({"recognized": _counts(_recognized(level))} if level.level == "model" else {}),
    }


def _counts(counts: Mapping[str, tuple[float, int]]) -> dict[str, dict[str, float]]:
    return {name: {"hits": hits, "count": n} for name, (hits, n) in counts.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(text: str) -> str:
    """Text of the user's within a page in Markdown: neither HTML nor the end of a cell."""
    return printable(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
