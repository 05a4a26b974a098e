"""Scores -> means and tails with intervals, as ``summary.json`` holds them; null, with the reason, where n is too small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.statistics import Estimate, quantile, tail_summary
from attacker_metrics.statistics.tails import QUANTILES, TailSummary

TAILS = (*QUANTILES, "cvar5")
"""The statistics beside the mean, as they are called in ``summary.json``."""


def tails_of(scores: RunScores, bounded: frozenset[str]) -> dict[str, Any]:
    """Component -> its mean and tails, clustered by the column ``group`` where there is one.

    Args:
        scores: the outcome of a run.
        bounded: the components that lie in [0, 1]; others may take any value.
    """
    return tails_among(scores, scores.scored, bounded)


def tails_among(scores: RunScores, chosen: NDArray[np.bool_], bounded: frozenset[str]) -> dict[str, Any]:
    """As :func:`tails_of`, for some of the pairs.

    Args:
        scores: the outcome of a run.
        chosen: which pairs.
        bounded: the components that lie in [0, 1].
    """
    clusters = None if scores.clusters is None else np.asarray(scores.clusters)[chosen]
    return {name: _record(column[chosen], clusters, name in bounded) for name, column in scores.columns.items()}


def why_unsupported(scores: RunScores, component: str, level: str) -> str | None:
    """Why a quantile of a component, such as ``"p95"``, has no interval; None if it has one."""
    return why_refused(scores, scores.columns[component], level)


def why_refused(scores: RunScores, column: NDArray[Any], level: str) -> str | None:
    """As :func:`why_unsupported`, of any value per pair.

    Args:
        scores: the outcome of a run.
        column: ``(n,)``, NaN where there is none.
        level: of the quantile.
    """
    kept = scores.scored & np.isfinite(column)
    if not kept.any():
        return "no pair has a score."
    clusters = None if scores.clusters is None else np.asarray(scores.clusters)[kept]
    try:
        quantile(column[kept], QUANTILES[level], clusters)
    except ValueError as error:
        return str(error)
    return None


def estimate_as_json(estimate: Estimate | None) -> dict[str, float | None] | None:
    """Value, lower and upper end of the 95 % interval; null where there is none, or no bound on a score without bounds."""
    if estimate is None:
        return None
    return {name: float(number) if math.isfinite(number) else None for name, number in estimate._asdict().items()}


def _record(column: NDArray[np.float32], clusters: NDArray[np.str_] | None, bounded: bool) -> dict[str, Any]:
    values = column.astype(np.float64)
    if bounded:
        values = values.clip(0, 1)  # float32 may round to a hair above 1
    empty = {"n": 0, "left_out": len(values), "groups": None, "mean": None, **dict.fromkeys(TAILS)}
    if np.isnan(values).all():
        return {**empty, "refused": dict.fromkeys(("mean", *TAILS), "no pair has a score.")}
    bounds = (0.0, 1.0) if bounded else (-math.inf, math.inf)
    try:
        found = tail_summary(values, clusters, bounds=bounds)
    except ValueError as error:  # another library's metric may be infinite
        return {**empty, "refused": {name: str(error) for name in ("mean", *TAILS)}}
    return _as_json(found)


def _as_json(found: TailSummary) -> dict[str, Any]:
    return {
        "n": found.n,
        "left_out": found.left_out,
        "groups": found.groups,
        "mean": estimate_as_json(found.mean),
        **{name: estimate_as_json(found.quantiles[name]) for name in QUANTILES},
        "cvar5": estimate_as_json(found.cvar5),
        "refused": found.refused,
    }
