"""A comparison -> terminal table, JSON, CSV, LaTeX and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from attacker_metrics._version import __version__
from attacker_metrics.comparison.differences import LEVEL, Difference
from attacker_metrics.comparison.runs import STRONGEST, Run
from attacker_metrics.files.digest import package_digest
from attacker_metrics.files.drawing import drawn, plain
from attacker_metrics.files.spreadsheet import escaped
from attacker_metrics.files.terminal import json_escaped, printable
from attacker_metrics.files.writing import CODE, MARK, VERSION, check_outputs, earlier_release, has_header, is_ours
from attacker_metrics.scoring.components import MEANS, MS_SSIM_COMPONENT_NAMES, PEARSON_COMPONENT_NAMES
from attacker_metrics.statistics import Estimate, mean_interval

JSON, CSV, LATEX = "comparison.json", "comparison.csv", "comparison.tex"
DIFFERENCES, TRADE_OFF = "differences", "privacy_utility"
PICTURES = ("svg", "pdf")
_COLUMNS = (
    *("run", "baseline", "component", "n", "left_out", "baseline_mean", "run_mean", "difference", "low", "high"),
    *("pairs_lower", "pairs_higher", "p", "p_smallest", "p_exact", "p_holm", "leaks"),
)
"""The header of the CSV file."""


@dataclass(frozen=True)
class ComparedRuns:
    """Everything that a comparison found.

    Args:
        runs: aligned; the first is the baseline.
        left_out: ids that not all runs have.
        differences: every run against the baseline, per component.
        sentences: what they say.
        notes: what may make them mislead.
        utility: name of a run -> its utility, or None.
    """

    runs: Sequence[Run]
    left_out: Sequence[str]
    differences: Sequence[Difference]
    sentences: Sequence[str]
    notes: Sequence[str] = field(default_factory=list)
    utility: dict[str, Estimate] | None = None

    def of(self, run: Run) -> list[Difference]:
        """The differences of one run."""
        return [difference for difference in self.differences if difference.run == run.name]


def write_outputs(stage: Path, comparison: ComparedRuns) -> None:
    """Write all files of a comparison into an existing folder."""
    content = json.dumps(as_dict(comparison), indent=2, ensure_ascii=False, allow_nan=False)
    (stage / JSON).write_text(json_escaped(content) + "\n", "utf-8")
    as_frame(comparison).map(escaped).to_csv(stage / CSV, index=False, lineterminator="\n")
    (stage / LATEX).write_text(f"% {MARK}\n{as_latex(comparison)}", encoding="utf-8")
    drawings = {DIFFERENCES: draw_differences(comparison)}
    if comparison.utility is not None:
        drawings[TRADE_OFF] = draw_trade_off(comparison, comparison.utility)
    for name, figure in drawings.items():
        for suffix in PICTURES:
            (stage / f"{name}.{suffix}").write_bytes(drawn(figure, suffix))


def check_writable(folder: Path, inputs: Sequence[Path], *, trade_off: bool, overwrite: bool) -> None:
    """Refuse an output folder in which a comparison's files are somebody else's, or read.

    Raises:
        OSError: naming the file.
    """
    drawings = [f"{name}.{suffix}" for name in (DIFFERENCES, *([TRADE_OFF] if trade_off else [])) for suffix in PICTURES]
    old = earlier_release(folder / JSON, VERSION, "differences")
    check_outputs(
        [folder / name for name in (JSON, CSV, LATEX, *drawings)],
        inputs=inputs,
        overwrite=overwrite,
        ours=lambda path: old or (has_header(path, _COLUMNS) if path.name == CSV else is_ours(path)),
    )


def remove_stale(folder: Path, comparison: ComparedRuns) -> None:
    """Remove the plot that an earlier comparison left in the folder and this one did not draw."""
    if comparison.utility is None:
        for file in (folder / f"{TRADE_OFF}.{suffix}" for suffix in PICTURES):
            if file.is_file() and is_ours(file):
                file.unlink()


def as_table(comparison: ComparedRuns, run: Run) -> Table:
    """The table of one run against the baseline, for a terminal."""
    # A folder may be called noise[v2], which rich would take for a style.
    first, second = escape(printable(comparison.runs[0].name)), escape(printable(run.name))
    table = Table(title=f"{second} against {first} (negative = leaks less; * = significant, Holm-corrected)")
    table.add_column("component", no_wrap=True)
    for heading in (first, second, "difference", "95 % interval", "pairs less / more", "p", "p (Holm)", "leaks"):
        table.add_column(heading, justify="right", overflow="fold")
    for difference in comparison.of(run):
        style = {"less": "green", "more": "bold red"}.get(difference.verdict)
        table.add_row(
            escape(printable(difference.component)),
            *(f"{mean:.3f}" for mean in (difference.baseline_mean, difference.run_mean)),
            f"{difference.change.value:+.3f}",
            _interval(difference.change),
            f"{difference.pairs_lower} / {difference.pairs_higher}",
            _p(difference.test.p_value),
            _p(difference.p_holm),
            "undecided" if difference.verdict == "undecided" else f"[{style}]{difference.verdict} *[/]",
            end_section=difference.component in (MS_SSIM_COMPONENT_NAMES[-1], PEARSON_COMPONENT_NAMES[-1]),
        )
    return table


def as_frame(comparison: ComparedRuns) -> pd.DataFrame:
    """A row per run and component, every number of a difference."""
    return pd.DataFrame([_row(difference) for difference in comparison.differences])


def as_dict(comparison: ComparedRuns) -> dict[str, Any]:
    """The content of ``comparison.json``; a number that does not exist is null."""
    baseline = comparison.runs[0]
    runs = []
    for run in comparison.runs:
        facts: dict[str, Any] = {"name": run.name, "path": str(run.path)}
        if comparison.utility is not None:
            facts["utility"] = _numbers(comparison.utility[run.name])
        runs.append(facts)
    return {
        "attacker_metrics_version": __version__,
        "spec_version": baseline.summary.get("spec_version"),
        CODE: package_digest(),
        "level": LEVEL,
        "correction": "holm",
        "baseline": baseline.name,
        "runs": runs,
        "pairs": len(baseline.ids),
        "left_out_pairs": list(comparison.left_out),
        "groups": None if baseline.groups is None else len(set(baseline.groups)),
        "sentences": list(comparison.sentences),
        "notes": list(comparison.notes),
        "differences": [
            {name: _finite(value) for name, value in _row(difference).items()} for difference in comparison.differences
        ],
    }


def as_latex(comparison: ComparedRuns) -> str:
    """A booktabs table: means, and differences with their intervals; a star marks significant ones."""
    baseline = comparison.runs[0]
    base = printable(baseline.name)
    columns: dict[str, dict[str, str]] = {base: {}}
    for run in comparison.runs[1:]:
        means, changes = columns.setdefault(name := printable(run.name), {}), columns.setdefault(f"{name} - {base}", {})
        for difference in comparison.of(run):
            star = "" if difference.verdict == "undecided" else "*"
            columns[base].setdefault(printable(difference.component), f"{difference.baseline_mean:.3f}")
            means[printable(difference.component)] = f"{difference.run_mean:.3f}"
            changes[printable(difference.component)] = (
                f"{difference.change.value:+.3f} [{_interval(difference.change)}]{star}"
            )
    style = pd.DataFrame(columns).fillna("-").style.format(escape="latex")
    style = style.format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
    return str(style.to_latex(hrules=True, column_format="l" + "r" * len(columns)))


def draw_differences(comparison: ComparedRuns) -> Figure:
    """Differences with their intervals, a colour per run; filled = significant."""
    names = list(dict.fromkeys(difference.component for difference in comparison.differences))
    compared = comparison.runs[1:]
    handles = []
    figure = Figure(figsize=(7, 0.22 * len(names) * max(1.3, len(compared)) + 1.2), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="0.5", linewidth=0.8)
    for place, run in enumerate(compared):
        shift, color = (place - (len(compared) - 1) / 2) * 0.7 / len(compared), _color(place + 1)
        for difference in comparison.of(run):
            y = names.index(difference.component) + shift
            change = difference.change
            if math.isfinite(change.low) and math.isfinite(change.high):
                axes.plot([change.low, change.high], [y, y], color=color, linewidth=1.5)
            filled = color if difference.verdict != "undecided" else "white"
            axes.plot(change.value, y, "o", color=color, markerfacecolor=filled, markersize=5)
        handles += axes.plot([], [], "o", color=color)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    baseline = plain(comparison.runs[0].name)
    axes.set_xlabel(f"score minus that of {baseline} (left = leaks less; filled = significant)")
    # Names given here and not as labels: matplotlib leaves a label that begins with _ out.
    axes.legend(handles, [plain(run.name) for run in compared], loc="best")
    return figure


def draw_trade_off(comparison: ComparedRuns, utility: dict[str, Estimate]) -> Figure:
    """Leakage over the pairs that all runs scored against utility, a panel per mean; the best corner is bottom right."""
    names = [name for name in (*MEANS, STRONGEST) if all(name in run.columns for run in comparison.runs)]
    names = names or list(dict.fromkeys(difference.component for difference in comparison.differences))[:3]
    figure = Figure(figsize=(4.2 * len(names), 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        scored = np.logical_and.reduce([np.isfinite(run.columns[name]) for run in comparison.runs])
        for place, run in enumerate(comparison.runs):
            if not scored.any():
                continue
            worth, leakage, color = utility[run.name], _leakage(run, name, scored), _color(place)
            axes.errorbar(
                worth.value, leakage.value, xerr=_bars(worth), yerr=_bars(leakage), fmt="o", color=color, capsize=3
            )
            axes.annotate(
                plain(run.name), (worth.value, leakage.value), xytext=(6, 6), textcoords="offset points", color=color
            )
        axes.set_xlabel("utility (right = better)")
        axes.set_ylabel(f"mean {plain(name)} (down = leaks less)")
        axes.margins(0.2)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    return figure


def _leakage(run: Run, name: str, chosen: NDArray[np.bool_]) -> Estimate:
    groups = None if run.groups is None else np.asarray(run.groups)[chosen]
    return mean_interval(run.columns[name][chosen], groups, bounds=(-math.inf, math.inf))


def _color(place: int) -> str:
    """Of a run by its place on the command line, the same in every plot."""
    return f"C{place % 10}"


def _row(difference: Difference) -> dict[str, Any]:
    d = difference
    values = (
        *(d.run, d.baseline, d.component, d.n, d.left_out, d.baseline_mean, d.run_mean),
        *(d.change.value, d.change.low, d.change.high, d.pairs_lower, d.pairs_higher),
        *(d.test.p_value, d.test.smallest, d.test.exact, d.p_holm, d.verdict),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _bars(estimate: Estimate) -> list[list[float]] | None:
    lengths = [estimate.value - estimate.low, estimate.high - estimate.value]
    return [[length] for length in lengths] if all(map(math.isfinite, lengths)) else None


def _numbers(estimate: Estimate) -> list[float | None]:
    return [_finite(number) for number in estimate]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:+.3f} .. {estimate.high:+.3f}" if math.isfinite(estimate.low) else "-"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.0e}"
