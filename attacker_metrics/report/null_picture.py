"""The strongest attacker's level on unrelated pairs and on the run's own pairs, as a drawing for the report."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attacker_metrics.evaluation.calibration import RATES, Calibration
from attacker_metrics.files.drawing import svg_element

_NULL, _RUN, _LIMIT = "#6b7280", "#1d4ed8", "#b91c1c"
_BINS_PER_DECADE, _BINS_BEYOND = 5, 8


def null_svg(calibration: Calibration) -> str:
    """An SVG drawing: histograms of the maximum over attackers, with the thresholds that the unrelated pairs support.

    The axis is logarithmic in how few unrelated pairs reach as high by that attacker, up to one of them; beyond all of them
    it is the share of the way from their largest score to 1.
    """
    null, strongest = calibration.null, calibration.strongest
    decades = float(np.log10(null.count))
    beyond = max(1.0, decades / 3)  # width of the part behind the last unrelated pair

    def place(levels: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = -np.log10(np.clip(1 - levels, 1 / null.count, 1))
        return np.where(levels > 1, decades + beyond * (levels - 1), inside)

    edges = np.concatenate(
        [
            np.linspace(0, decades, max(2, round(decades * _BINS_PER_DECADE)) + 1),
            np.linspace(decades, decades + beyond, _BINS_BEYOND + 1)[1:],
        ]
    )
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    own = strongest.level[strongest.scored]
    for levels, colour, label in (
        (null.maxima, _NULL, f"{null.count} unrelated pairs"),
        (own, _RUN, f"{len(own)} pairs of the run"),
    ):
        weights = np.full(len(levels), 100 / max(1, len(levels)))
        axes.hist(place(levels), edges.tolist(), weights=weights, color=colour, alpha=0.55, label=label)
    for rate, style in zip(RATES, ("--", ":"), strict=True):
        try:
            limit = null.maximum_threshold(rate)
        except ValueError:  # too few pairs: a flag says so
            continue
        axes.axvline(float(place(np.array(limit))), color=_LIMIT, linestyle=style, label=f"false-positive rate {rate:.1%}")
    powers = np.arange(int(decades) + 1)
    ticks = {float(power): f"top {100 / 10.0**power:g} %" for power in powers if power and decades - power > decades / 12}
    ticks |= {0.0: "all", decades: "the best", decades + beyond: "a score of 1"}
    axes.set_xticks(sorted(ticks), [ticks[tick] for tick in sorted(ticks)])
    axes.axvspan(decades, decades + beyond, color="#f3f4f6", zorder=0)
    axes.set_xlim(0, decades + beyond)
    axes.set_xlabel("the strongest attacker's place among unrelated pairs; shaded: beyond all of them")
    axes.set_ylabel("% of the pairs")
    axes.legend(loc="upper left", fontsize="small")
    return svg_element(figure)
