"""How well a score orders what people recognise, with a weight per row so that a bootstrap need not sort again.

One table of counts, score by target, gives every statistic: a draw only refills it. With weights of 1 the values are
those of ``scipy.stats.spearmanr``, ``kendalltau`` (tau-b), ``pearsonr`` and ``sklearn.metrics.roc_auc_score``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attacker_metrics.faithfulness.annotations import Floats

STATISTICS = ("spearman", "kendall", "pearson", "roc_auc")


class RankStatistics:
    """Spearman rho, Kendall tau-b, Pearson r and ROC area of a score against a target.

    Args:
        score: ``(N,)``, higher = leaks more; may be infinite (Pearson's r is NaN then).
        target: ``(N,)`` what the correlations compare with.
        positive: ``(N,)`` in [0, 1], how much a row counts as recognised for the ROC area, the rest of it counts as not
            recognised: 0 or 1, or a share of votes, which gives the ROC area over single votes. Without it the target orders
            the rows: the share of pairs with different targets that the score puts in the same order, ties counting half,
            which is the ROC area if the target is 0 or 1.
    """

    def __init__(self, score: Floats, target: Floats, positive: Floats | None = None) -> None:
        self._scores, self._score_code = np.unique(score, return_inverse=True)
        self._targets, self._target_code = np.unique(target, return_inverse=True)
        self._positive = positive

    def __call__(self, weights: Floats | None = None) -> Floats:
        """The four statistics in the order of :data:`STATISTICS`, NaN where one does not exist.

        Args:
            weights: ``(N,)`` how often each row counts; by default once.
        """
        weights = np.ones(len(self._score_code)) if weights is None else weights
        table = self._table(self._target_code, len(self._targets), weights)
        by_score, by_target = table.sum(axis=1), table.sum(axis=0)
        pairs, same_score, same_target = (_pairs(count) for count in (table.sum(), by_score, by_target))
        surplus = _surplus(table)
        with np.errstate(invalid="ignore", divide="ignore"):
            kendall = surplus / np.sqrt((pairs - same_score) * (pairs - same_target))
            if self._positive is None:
                ordered = surplus / (pairs - same_target)
            else:
                yes = np.bincount(self._score_code, weights * self._positive, len(self._scores))
                no = np.bincount(self._score_code, weights * (1 - self._positive), len(self._scores))
                ordered = _surplus(np.stack([no, yes], axis=1)) / (yes.sum() * no.sum())
            return np.asarray(
                [
                    _correlation(table, _midranks(by_score), _midranks(by_target)),
                    kendall,
                    _correlation(table, self._scores, self._targets),
                    (1 + ordered) / 2,
                ]
            )

    def _table(self, codes: Any, size: int, weights: Floats) -> Floats:
        cells = self._score_code * size + codes
        counts = np.bincount(cells, weights, len(self._scores) * size).astype(np.float64)
        return counts.reshape(len(self._scores), size)


def _pairs(counts: Any) -> Any:
    return (counts * (counts - 1) / 2).sum()


def _surplus(table: Floats) -> Any:
    """Pairs ordered alike by score and target, minus those ordered oppositely."""
    below = np.cumsum(table, axis=0) - table  # rows with a lower score, by target
    lower = np.cumsum(below, axis=1) - below
    higher = below.sum(axis=1, keepdims=True) - lower - below
    return (table * (lower - higher)).sum()


def _midranks(counts: Floats) -> Floats:
    return np.cumsum(counts) - (counts - 1) / 2


def _correlation(table: Floats, x: Floats, y: Floats) -> Any:
    by_x, by_y, count = table.sum(axis=1), table.sum(axis=0), table.sum()
    if np.count_nonzero(by_x) < 2 or np.count_nonzero(by_y) < 2:  # a constant; rounding would make a correlation of it
        return np.nan
    x = x - by_x @ x / count
    y = y - by_y @ y / count
    return (x @ table @ y) / np.sqrt((by_x @ x**2) * (by_y @ y**2))
