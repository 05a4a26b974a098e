"""How far annotators agree with each other: the ceiling that no metric can be expected to pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import krippendorff
import numpy as np
import numpy.typing as npt
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

from attacker_metrics.faithfulness.annotations import Annotations, Floats
from attacker_metrics.faithfulness.bootstrap import draw_weights, interval, too_few
from attacker_metrics.faithfulness.rank_statistics import STATISTICS, RankStatistics


@dataclass(frozen=True)
class HumanAgreement:
    """Agreement of the annotators, recognised or not.

    Args:
        annotators: their names.
        left_out: statistic -> annotator -> that annotator's votes against the mean of the others', per image.
        mean: statistic -> mean over the annotators who have one (whoever always gave the same answer has no correlation),
            with its 95 % interval over originals; NaN if nobody has. No interval (NaN) of fewer than eight originals.
        model_left_out: annotator -> Spearman's rho of the annotator's share per model with the mean of the others'; empty
            with fewer than three models.
        fleiss_kappa: None unless every annotator answered every row.
        krippendorff_alpha: nominal; None with fewer than two annotators or where all votes are the same.
        recognized: annotator -> (recognised, answered), numbers of rows.
        refused: why there are no intervals, or None.
    """

    annotators: tuple[str, ...]
    left_out: Mapping[str, Mapping[str, float]]
    mean: Mapping[str, tuple[float, float, float]]
    model_left_out: Mapping[str, float]
    fleiss_kappa: float | None
    krippendorff_alpha: float | None
    recognized: Mapping[str, tuple[int, int]]
    refused: str | None = None


def human_agreement(
    annotations: Annotations, rows: npt.NDArray[np.intp] | None = None, draws: int = 1000, seed: int = 0
) -> HumanAgreement:
    """Leave-one-annotator-out correlations, Fleiss' kappa and Krippendorff's alpha.

    Args:
        annotations: the votes.
        rows: which rows to use; by default all.
        draws: bootstrap draws over originals.
        seed: of the draws.

    Source: Fleiss (1971) by statsmodels, Krippendorff (2004) by the package krippendorff.
    """
    rows = np.arange(len(annotations)) if rows is None else rows
    votes = {name: column[rows] for name, column in annotations.judges.items()}
    recognized = {name: (int(np.nansum(column)), int((~np.isnan(column)).sum())) for name, column in votes.items()}
    if len(votes) < 2:
        return HumanAgreement(tuple(votes), {}, {}, {}, None, None, recognized)
    table = np.stack(list(votes.values()))
    clusters = annotations.clusters[rows]
    weights, count = draw_weights(clusters, draws, seed), len(np.unique(clusters))
    values, drawn, per_model = [], [], {}
    models = annotations.models[rows]
    for k, name in enumerate(votes):
        others = _mean(np.delete(table, k, axis=0))
        both = ~np.isnan(table[k]) & ~np.isnan(others)
        statistics = RankStatistics(others[both], table[k][both])
        values.append(statistics())
        drawn.append(np.stack([statistics(row[both]) for row in weights]))
        names, codes = np.unique(models[both], return_inverse=True)
        if len(names) >= 3:
            counts = np.bincount(codes)
            shares = (np.bincount(codes, column[both]) / counts for column in (table[k], others))
            per_model[name] = float(RankStatistics(*shares)()[0])
    mean, mean_drawn = _mean(np.stack(values)), _mean(np.stack(drawn))
    return HumanAgreement(
        annotators=tuple(votes),
        left_out={
            statistic: {name: float(values[k][j]) for k, name in enumerate(votes)} for j, statistic in enumerate(STATISTICS)
        },
        mean={statistic: (float(mean[j]), *interval(mean_drawn[:, j], count)) for j, statistic in enumerate(STATISTICS)},
        model_left_out=per_model,
        fleiss_kappa=_fleiss_kappa(table),
        krippendorff_alpha=_krippendorff_alpha(table),
        recognized=recognized,
        refused=too_few(count, "originals"),
    )


def _mean(table: Floats) -> Floats:
    """Mean over the first axis of the values that there are; NaN where there is none."""
    there = (~np.isnan(table)).sum(axis=0)
    mean: Floats = np.divide(np.nansum(table, axis=0), there, out=np.full(table.shape[1:], np.nan), where=there > 0)
    return mean


def _fleiss_kappa(table: Floats) -> float | None:
    if np.isnan(table).any() or table.min() == table.max():
        return None
    return float(fleiss_kappa(aggregate_raters(table.T.astype(int), n_cat=2)[0]))


def _krippendorff_alpha(table: Floats) -> float | None:
    answered = ~np.isnan(table)
    pairable = table[answered & (answered.sum(axis=0) >= 2)]  # a single answer agrees with nobody
    if pairable.size == 0 or pairable.min() == pairable.max():
        return None
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))
