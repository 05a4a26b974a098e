"""A summary and its scores -> table, JSON, Parquet and HTML, written whole or not at all."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table

from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.evaluation.summary import OURS, attackers_of
from attacker_metrics.evaluation.tails import TAILS
from attacker_metrics.files.drawing import plain, svg_element
from attacker_metrics.files.run_files import REPORT, SCORES, SUMMARY
from attacker_metrics.files.terminal import json_escaped, printable
from attacker_metrics.files.writing import MARK, marked
from attacker_metrics.scoring.components import MEANS, MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES
from attacker_metrics.statistics import Rate

_HEADINGS = ("mean", "95 % interval", "median", "p90", "p95", "p99", "worst 5 %", "max")

__all__ = [
    *("REPORT", "SCORES", "SUMMARY", "as_calibrated_table", "as_html", "as_json", "as_table", "calibrated_rows"),
    *("check_writable", "most_leaking_pairs", "staged", "write_outputs"),
]


def write_outputs(
    stage: Path,
    scores: RunScores,
    summary: dict[str, Any],
    gallery: list[tuple[str, bytes]],
    more: Mapping[str, pa.Array] | None = None,
    null_drawing: str | None = None,
) -> None:
    """Write ``summary.json``, ``scores.parquet`` and ``report.html`` into a folder.

    Args:
        stage: an existing folder.
        scores: the outcome of a run.
        summary: its summary.
        gallery: caption and PNG of the pairs to show; the report holds image data only if there are any.
        more: further columns of ``scores.parquet``.
        null_drawing: an SVG drawing of what unrelated originals score, for the report.
    """
    (stage / SUMMARY).write_text(as_json(summary), encoding="utf-8")
    table = scores.rows
    for name, column in scores.columns.items():
        table = table.append_column(name, pa.array(column, pa.float32(), from_pandas=True))
    for name, array in (more or {}).items():
        table = table.append_column(name, array)
    pq.write_table(marked(table), stage / SCORES)
    page = as_html(scores, summary, gallery, null_drawing)
    (stage / REPORT).write_text(json_escaped(page), encoding="utf-8")  # a page is looked at in terminals, too


def as_json(summary: dict[str, Any]) -> str:
    """The summary as JSON; a number that does not exist is null, never NaN."""
    return json_escaped(json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def as_table(summary: dict[str, Any]) -> Table:
    """The table for a terminal: groups as columns if there are any, statistics otherwise; most leaking cells marked."""
    table = Table(title="How much each attacker still reads (0 = nothing, 1 = everything; * = most leaking)")
    table.add_column("component", no_wrap=True)
    for heading in _headings(summary):
        table.add_column(heading, justify="right", overflow="fold")
    for name, cells, marks in _rows(summary):
        style = "bold" if name in MEANS else None
        shown = [f"[bold red]{cell} *[/]" if mark else f"{cell}  " for cell, mark in zip(cells, marks, strict=True)]
        table.add_row(
            escape(printable(name)),
            *shown,
            style=style,
            end_section=name in (MS_SSIM_COMPONENT_NAMES[-1], PEARSON_COMPONENT_NAMES[-1]),
        )
    return table


def as_calibrated_table(summary: dict[str, Any]) -> Table:
    """For a terminal: how often each attacker succeeds, beside what its score is for unrelated and identical pictures."""
    count = summary["null"]["comparisons"]
    title = f"Measured by {count} comparisons with unrelated originals (equal PSNR: Gaussian noise with the same error)"
    table = Table(title=title)
    headings, rows = calibrated_rows(summary)
    table.add_column(headings[0], no_wrap=True)
    for heading in headings[1:]:
        table.add_column(heading, justify="right", overflow="fold")
    for cells in rows:
        table.add_row(
            *(escape(printable(cell)) for cell in cells),
            style="bold" if cells[0] == "strongest" else None,
            end_section=cells[0] == "strongest",
        )
    return table


def calibrated_rows(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: the strongest attacker, then every attacker with its anchors and its successes."""
    null = summary["null"]
    headings = ["attacker", "mean", "unrelated", "equal PSNR", "identity"]
    headings += [f"read at {float(rate):.1%}" for rate in null["rates"]]

    def successes(name: str) -> list[str]:
        found = [rate["success"] for rate in null["rates"].values()]
        return ["refused" if success is None else str(Rate(**success[name])) for success in found]

    rows = [["strongest", "", "", "", "", *successes("strongest")]]
    for name, anchor in null["anchors"].items():
        numbers = (summary["components"][name]["mean"], anchor["null"], anchor["equal_noise"], anchor["ceiling"])
        rows.append([name, *map(_number, numbers), *successes(name)])
    return headings, rows


def as_html(
    scores: RunScores, summary: dict[str, Any], gallery: list[tuple[str, bytes]], null_drawing: str | None = None
) -> str:
    """The self-contained report."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("attacker_metrics.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.jinja").render(
        mark=MARK,
        summary=summary,
        headings=_headings(summary),
        rows=_rows(summary),
        tails=_tails(summary),
        calibrated=calibrated_rows(summary) if summary["null"] is not None and summary["null"]["anchors"] else None,
        null_drawing=None if null_drawing is None else Markup(null_drawing),  # noqa: S704 # nosec B704
        distributions=[(name, Markup(_distribution(scores, mask))) for name, mask in _parts(scores)],  # noqa: S704 # nosec B704
        most_leaking=_most_leaking(scores),
        gallery=[(caption, base64.b64encode(png).decode()) for caption, png in gallery],
    )


def most_leaking_pairs(scores: RunScores, count: int) -> list[int]:
    """Indices of the pairs with the highest score of any attacker, the mean over attackers breaking ties.

    Another library's metric that has no score of a pair does not hide it.
    """
    table = np.stack([scores.columns[name] for name in attackers_of(scores)])
    eligible = np.flatnonzero(scores.scored)
    order = np.lexsort((-np.nanmean(table[:, eligible], axis=0), -np.nanmax(table[:, eligible], axis=0)))
    return [int(index) for index in eligible[order][:count]]


def _headings(summary: dict[str, Any]) -> list[str]:
    return list(summary["groups"]) if "groups" in summary else [*_HEADINGS]


def _rows(summary: dict[str, Any]) -> list[tuple[str, list[str], list[bool]]]:
    """Per component its name, the text of its cells, and which of them is the most leaking one of its column."""
    names = list(summary["components"])
    if "groups" in summary:
        values = {name: [part["components"][name]["mean"] for part in summary["groups"].values()] for name in names}
        texts = {name: [_number(value) for value in values[name]] for name in names}
    else:
        values, texts = {}, {}
        for name, s in summary["components"].items():
            tail = [None if (found := summary["tails"][name][key]) is None else found["value"] for key in TAILS]
            values[name] = [s["mean"], None, s["median"], *tail, s["max"]]
            texts[name] = [_number(value) for value in values[name]]
            texts[name][1] = _interval(summary["tails"][name]["mean"])
    attackers = [name for name in names if name in OURS]
    rows = []
    for name in names:
        marked = []
        for column, value in enumerate(values[name]):
            rivals = [other for rival in attackers if (other := values[rival][column]) is not None]
            marked.append(name in attackers and value is not None and _number(value) == _number(max(rivals)))
        rows.append((name, texts[name], marked))
    return rows


def _tails(summary: dict[str, Any]) -> list[tuple[str, list[str], str]]:
    """Per component its name, mean and tails with intervals, and why some are missing."""
    rows = []
    for name, found in (summary["tails"] or {}).items():
        cells = [str(found["n"]), "-" if found["groups"] is None else str(found["groups"])]
        for key in ("mean", *TAILS):
            estimate = found[key]
            cells.append("-" if estimate is None else f"{_number(estimate['value'])} ({_interval(estimate)})")
        rows.append((name, cells, " ".join(dict.fromkeys(found["refused"].values()))))
    return rows


def _interval(estimate: dict[str, float | None] | None) -> str:
    ends = [None, None] if estimate is None else [estimate["low"], estimate["high"]]
    return "-" if ends == [None, None] else " .. ".join(map(_number, ends))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _parts(scores: RunScores) -> list[tuple[str, np.ndarray[Any, np.dtype[np.bool_]]]]:
    if scores.groups is None:
        return [("all pairs", scores.scored)]
    groups = np.asarray(scores.groups)
    return [(name, scores.scored & (groups == name)) for name in dict.fromkeys(scores.groups)]


def _distribution(scores: RunScores, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> str:
    """An SVG drawing: a box (quartiles, whole range) per component, and the single pairs where they are few."""
    names = list(scores.columns)[::-1]
    columns = [scores.columns[name][mask] for name in names]
    columns = [column[np.isfinite(column)] for column in columns]
    figure = Figure(figsize=(7, 0.26 * len(names) + 0.6), layout="constrained")
    axes = figure.subplots()
    axes.boxplot(columns, orientation="horizontal", whis=(0, 100), widths=0.6, medianprops={"color": "#b91c1c"})
    if mask.sum() <= 200:
        for position, column in enumerate(columns, start=1):
            axes.plot(column, np.full(len(column), position), ".", color="#1d4ed8", markersize=3, alpha=0.6)
    axes.set_yticks(range(1, len(names) + 1), [plain(name) for name in names])
    axes.set_xlim(-0.02, 1.02)
    axes.grid(axis="x", alpha=0.3)
    return svg_element(figure)


def _most_leaking(scores: RunScores) -> list[tuple[str, str, str]]:
    """Id, strongest attacker and its score for the most leaking pairs."""
    names = attackers_of(scores)
    rows = []
    for index in most_leaking_pairs(scores, 25):
        values = [scores.columns[name][index] for name in names]
        if np.isnan(values).all():
            continue
        best = int(np.nanargmax(values))
        rows.append((scores.id(index), names[best], _number(float(values[best]))))
    return rows
