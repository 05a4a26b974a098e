"""Cluster bootstrap: draw whole clusters with replacement, and read intervals and tests off the draws."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import t as student_t

from attacker_metrics.faithfulness.annotations import Floats

FEWEST = 8
"""Of fewer originals or models no interval or test is given: of 4, intervals meant to hold 95 % held 58 to 84 %."""


def too_few(count: int, what: str) -> str | None:
    """Why there is no interval, or None where there is one.

    Args:
        count: of the clusters that are drawn.
        what: they are called.

    Example:
        >>> too_few(3, "models")
        'no intervals and no tests: they need 8 models, there are 3'
        >>> too_few(8, "models")
    """
    return f"no intervals and no tests: they need {FEWEST} {what}, there are {count}" if count < FEWEST else None


def draw_weights(clusters: Any, draws: int, seed: int) -> Floats:
    """How often each row counts in each draw: as often as its cluster was drawn.

    Args:
        clusters: ``(N,)`` labels; rows of one cluster are drawn together.
        draws: number of draws.
        seed: of the random numbers.

    Returns:
        ``(draws, N)`` counts.
    """
    labels, codes = np.unique(clusters, return_inverse=True)
    counts = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    return counts[:, codes].astype(np.float64)


def interval(values: Floats, clusters: int) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic's draws ``(draws,)`` of that many clusters.

    NaN if no draw has a value, or of fewer than :data:`FEWEST` clusters.
    """
    values = values[~np.isnan(values)]
    if values.size == 0 or clusters < FEWEST:
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def two_sided_p(difference: float, draws: Floats, clusters: int) -> float:
    """Student's t-test of a difference against 0 with its bootstrap standard error.

    A share of draws could not fall below one over their number, and no difference of many metrics would survive Holm's
    correction. But it is never below 2 ** (1 - clusters), the least that exchanging two metrics within whole clusters
    can give: few clusters can agree by chance, and then the standard error is 0.

    Args:
        difference: the estimate.
        draws: ``(draws,)`` its bootstrap draws.
        clusters: number of clusters that were drawn from; one less is the degrees of freedom.

    Returns:
        The p-value; 1 for a difference of 0 in every draw, NaN if there is no draw or no estimate.
    """
    draws = draws[~np.isnan(draws)]
    if draws.size < 2 or np.isnan(difference):
        return float("nan")
    error = draws.std(ddof=1)
    if error == 0:
        return 1.0 if difference == 0 else 2.0 ** (1 - clusters)
    return max(float(2 * student_t.sf(abs(difference) / error, df=max(clusters - 1, 1))), 2.0 ** (1 - clusters))
