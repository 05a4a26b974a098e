"""All that a set of scores says about its worst images, in one record."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from attacker_metrics.statistics.bootstrap import mean_interval, mean_of_worst
from attacker_metrics.statistics.proportions import Rate, success_rate
from attacker_metrics.statistics.quantiles import UnsupportedQuantileError, quantile
from attacker_metrics.statistics.sample import Estimate

QUANTILES = {"p90": 0.90, "p95": 0.95, "p99": 0.99}
WORST = 0.05


@dataclass(frozen=True)
class TailSummary:
    """Mean, tails and success rate of one attacker.

    Args:
        n: pairs with a score.
        left_out: pairs without one (NaN).
        groups: how many groups, or None if none were given.
        mean: with interval.
        quantiles: "p90", "p95", "p99"; None where the pairs do not support it.
        cvar5: mean of the worst 5 %; None where the pairs do not support a p95.
        success: share of pairs at or above the threshold; None without a threshold.
        refused: statistic -> why it is None.
    """

    n: int
    left_out: int
    groups: int | None
    mean: Estimate
    quantiles: dict[str, Estimate | None]
    cvar5: Estimate | None
    success: Rate | None
    refused: dict[str, str]


def tail_summary(
    scores: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    threshold: float | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> TailSummary:
    """Summarise the scores of one attacker; what the number of pairs does not support is None, with a reason.

    Args:
        scores: (n,) one number per pair, NaN where there is none; higher leaks more.
        groups: (n,) group of each pair.
        threshold: a score from which on the attacker is said to succeed. One that was chosen by looking at these very scores
            makes the success rate meaningless.
        bounds: what a score can be.
        seed: of the resampling.

    Raises:
        ValueError: if no score is left, for scores and groups that do not fit, or a threshold that is NaN.

    Example:
        >>> summary = tail_summary([i / 50 for i in range(50)], threshold=0.9)
        >>> summary.quantiles["p90"], summary.refused["p95"]
        (Estimate(value=0.882, low=0.8, high=0.98), 'p95 of 50 pairs: at least 74 are needed; ...')
        >>> print(summary.success)
        5 of 50 (0.1, 0.0435 .. 0.214)
    """
    if threshold is not None and math.isnan(threshold):
        # No score reaches NaN: the rate would read 0, as if no attacker had succeeded.
        raise ValueError("threshold is NaN; pass a number, or None for no success rate.")
    values, names = np.asarray(scores, dtype=np.float64), None if groups is None else np.asarray(groups)
    kept = ~np.isnan(values)
    if values.ndim == 1 and (names is None or names.shape == values.shape):  # what does not fit is named below
        values, names = values[kept], None if names is None else names[kept]
    quantiles: dict[str, Estimate | None] = {}
    refused: dict[str, str] = {}
    for name, q in QUANTILES.items():
        try:
            quantiles[name] = quantile(values, q, names)
        except UnsupportedQuantileError as error:  # noqa: PERF203
            quantiles[name], refused[name] = None, str(error)
    cvar5 = None
    if quantiles["p95"] is None:
        refused["cvar5"] = refused["p95"].replace("p95", "the mean of the worst 5 %", 1)
    else:
        cvar5 = mean_of_worst(values, names, fraction=WORST, bounds=bounds, seed=seed)
    return TailSummary(
        n=values.size,
        left_out=int((~kept).sum()),
        groups=None if names is None else np.unique(names).size,
        mean=mean_interval(values, names, bounds=bounds, seed=seed),
        quantiles=quantiles,
        cvar5=cvar5,
        success=None if threshold is None else success_rate(values >= threshold, names),
        refused=refused,
    )
