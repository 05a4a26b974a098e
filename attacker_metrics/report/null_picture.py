"""The strongest attacker's level on unrelated pairs and on the run's own pairs, as a drawing for the report."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from attacker_metrics.evaluation.calibration import RATES, NullCalibration
from attacker_metrics.files.drawing import svg_element

_NULL, _RUN, _LIMIT = "#6b7280", "#1d4ed8", "#b91c1c"
_BINS_PER_DECADE = 5
_MOST_DECADES = 12.0
"""Beyond so many, levels are drawn as one: they are extrapolated, and rarer is not more of a leak."""


def null_svg(calibration: NullCalibration) -> str:
    """An SVG drawing: histograms of how rare the strongest attacker's score is, with the thresholds of the null."""
    null, own = calibration.null, calibration.own
    levels = own.level[own.scored]
    end = min(_MOST_DECADES, max([1.0, *np.ceil(null.maxima), *np.ceil(levels)]))
    edges = np.linspace(0, end, round(end * _BINS_PER_DECADE) + 1)
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for values, colour, label in (
        (null.maxima, _NULL, f"{null.count} unrelated originals"),
        (levels, _RUN, f"{len(levels)} pictures with their own"),
    ):
        weights = np.full(len(values), 100 / max(1, len(values)))
        axes.hist(np.clip(values, 0, end), edges.tolist(), weights=weights, color=colour, alpha=0.55, label=label)
    for rate, style in zip(RATES, ("--", ":"), strict=True):
        try:
            limit = null.maximum_threshold(rate)
        except ValueError:  # too few comparisons: a flag says so
            continue
        axes.axvline(min(limit, end), color=_LIMIT, linestyle=style, label=f"false-positive rate {rate:.1%}")
    ticks = np.arange(0, end + 1, max(1, round(end / 6)))
    axes.set_xticks(
        ticks,
        ["all" if tick == 0 else f"1 in {10**tick:,.0f}" if tick < 5 else f"1 in $10^{{{tick:.0f}}}$" for tick in ticks],
    )
    axes.set_xlim(0, end)
    axes.set_xlabel(
        "how rare the strongest attacker's score is for an unrelated original, before the choice of the attacker"
    )
    axes.set_ylabel("% of each")
    axes.legend(loc="upper right", fontsize="small")
    return svg_element(figure)
