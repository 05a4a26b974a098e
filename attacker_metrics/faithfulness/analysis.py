"""Scores and annotations -> how faithful each metric is to people, per image and per model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from attacker_metrics.faithfulness.agreement import HumanAgreement, human_agreement
from attacker_metrics.faithfulness.annotations import Annotations, Floats, Rule
from attacker_metrics.faithfulness.bootstrap import FEWEST, draw_weights, interval, too_few, two_sided_p
from attacker_metrics.faithfulness.rank_statistics import STATISTICS, RankStatistics
from attacker_metrics.faithfulness.scores import Paired, Scores, pair
from attacker_metrics.statistics import Estimate, holm

Level = Literal["image", "model"]
FEWEST_DRAWS = 100
"""With fewer the ends of an interval are noise."""
_CLUSTERS: dict[Level, str] = {"image": "originals", "model": "models"}


@dataclass(frozen=True)
class Comparison:
    """Whether one metric is more faithful than another, on the same draws of the same images or models.

    Args:
        first: a metric.
        second: another one.
        statistic: what was compared, e.g. ``"spearman"``.
        difference: first minus second, with its 95 % interval.
        p: two-sided p-value of the difference over its bootstrap standard error (Student's t); NaN where the level has
            refused intervals and tests.
        p_holm: the same after Holm's correction for all pairs of this level and statistic.
    """

    first: str
    second: str
    statistic: str
    difference: Estimate
    p: float
    p_holm: float

    @property
    def decided(self) -> bool:
        """Whether the two can be told apart at 5 % after the correction."""
        return self.p_holm < 0.05


@dataclass(frozen=True, eq=False)
class LevelResult:
    """One level of the analysis.

    Args:
        level: ``"image"`` or ``"model"``.
        count: number of images or models.
        statistics: metric -> statistic -> estimate. All metrics are turned by their direction first, so that positive
            correlations (a ROC area above .5) always mean: leaks more, is recognised more. The ROC area of models, whose
            target is a share, is the share of pairs of models that the metric puts in the right order, ties counting half.
        comparisons: every pair of metrics, by Spearman's rho and ROC area.
        agreement: metric -> metric -> Spearman's rho between their (turned) scores.
        scores: metric -> the (turned) values that were compared, one per image or model.
        target: what they were compared with: per image the share of annotators who recognised it, per model the share of
            recognised images.
        names: of the images or models.
        counts: of how many each share of ``target`` is: per image annotators who answered, per model images.
        refused: why there are no intervals and no tests (they are NaN then), or None: of fewer than eight originals or
            models neither holds what it promises.
    """

    level: Level
    count: int
    statistics: Mapping[str, Mapping[str, Estimate]]
    comparisons: tuple[Comparison, ...]
    agreement: Mapping[str, Mapping[str, float]]
    scores: Mapping[str, Floats]
    target: Floats
    names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    refused: str | None = None


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Outcome of :func:`faithfulness`.

    Args:
        image: per image.
        model: per model; None with fewer than three models.
        humans: how far the annotators agree with each other: the ceiling.
        directions: metric -> ``"higher"`` or ``"lower"`` = more leakage, as used.
        rule: how the votes were aggregated.
        draws: bootstrap draws.
        seed: of the draws.
        originals: number of different originals.
        aligned: number of images scored against a flipped or shifted original; None if alignment was not asked for.
        paired: which rows were used and which were not.
        recognized: how many of the images count as recognised; with the rule ``"mean"`` the sum of their shares.
    """

    image: LevelResult
    model: LevelResult | None
    humans: HumanAgreement
    directions: Mapping[str, str]
    rule: Rule
    draws: int
    seed: int
    originals: int
    aligned: int | None
    paired: Paired
    recognized: float


def faithfulness(
    scores: Scores,
    annotations: Annotations,
    *,
    rule: Rule = "majority",
    draws: int = 1000,
    seed: int = 0,
    allow_unmatched: bool = False,
) -> Faithfulness:
    """Measure how faithful metrics are to people who tried to recognise reconstructions.

    Per image, a metric's score is correlated with the share of annotators who recognised the image, and its ROC area says
    how well it separates recognised images from others. Per model (data set, model and attack), the metric's mean score is
    correlated with the share of recognised images. Intervals resample originals at image level (their reconstructions are
    not independent) and models at model level; of fewer than eight there are no intervals and no tests
    (:attr:`LevelResult.refused`).

    Args:
        scores: the metrics' scores; higher or lower = more leakage is taken from their declarations.
        annotations: the votes, matched by the reconstruction's id.
        rule: when an image counts as recognised: ``"majority"``, ``"any"``, ``"all"`` of the annotators asked; with
            ``"mean"`` every vote counts by itself, in the ROC area and in a model's share.
        draws: bootstrap draws, at least 100.
        seed: of the draws.
        allow_unmatched: leave rows without a partner out instead of raising.

    Raises:
        ValueError: if rows have no partner, or all images are recognised, or none.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> ids = [f"{m}/{i}" for m in "abcd" for i in range(30)]
        >>> seen = np.repeat([0.2, 0.4, 0.6, 0.8], 30) > rng.random(120)
        >>> table = Annotations(
        ...     ["cifar100"] * 120, [i[0] for i in ids], ["gradients"] * 120, [i[2:] for i in ids], ids, {"ann": seen}
        ... )
        >>> outcome = faithfulness(Scores(ids, {"mse": 1 - 0.5 * seen + 0.1 * rng.random(120)}), table, draws=100)
        >>> round(outcome.image.statistics["mse"]["roc_auc"].value, 3)  # a lower MSE leaks more, and it is turned
        1.0

    Source: design after "Privacy Assessment on Reconstructed Images" (NeurIPS 2023); Kendall's tau-b; Holm (1979).
    """
    if draws < FEWEST_DRAWS:
        raise ValueError(f"draws is {draws}; an interval needs at least {FEWEST_DRAWS}, better 1000.")
    paired = pair(scores, annotations, allow_unmatched=allow_unmatched)
    recognized = annotations.recognized(rule)[paired.rows]
    share = annotations.recognized("mean")[paired.rows]
    if recognized.min() == recognized.max() and recognized[0] in (0.0, 1.0):
        raise ValueError(
            f"by the rule {rule!r} {'every' if recognized[0] else 'no'} image is recognised; nothing can be ranked. Try"
            " another rule, e.g. 'mean'."
        )
    turned = {name: paired.scores.leaking(name) for name in paired.scores.columns}
    clusters, models = annotations.clusters[paired.rows], annotations.models[paired.rows]
    answered = (~np.isnan(np.stack(list(annotations.judges.values())))).sum(axis=0)[paired.rows]
    image = _level("image", turned, share, recognized, paired.scores.ids, answered, clusters, draws, seed)
    names, codes = np.unique(models, return_inverse=True)
    counts = np.bincount(codes)
    model = None
    if len(names) >= 3:
        means = {name: np.bincount(codes, values) / counts for name, values in turned.items()}
        leaked = np.bincount(codes, recognized) / counts
        model = _level("model", means, leaked, None, names.tolist(), counts, names, draws, seed)
    return Faithfulness(
        image=image,
        model=model,
        humans=human_agreement(annotations, paired.rows, draws, seed),
        directions=dict(paired.scores.directions or {}),
        rule=rule,
        draws=draws,
        seed=seed,
        originals=len(np.unique(clusters)),
        aligned=None if paired.scores.aligned is None else int(paired.scores.aligned.sum()),
        paired=paired,
        recognized=float(recognized.sum()),
    )


def _level(
    level: Level,
    scores: dict[str, Floats],
    target: Floats,
    positive: Floats | None,
    names: Sequence[str],
    counts: Any,
    clusters: Any,
    draws: int,
    seed: int,
) -> LevelResult:
    weights = draw_weights(clusters, draws, seed)
    count = len(np.unique(clusters))
    values, drawn = {}, {}
    for name, column in scores.items():
        statistics = RankStatistics(column, target, positive)
        values[name] = statistics()
        drawn[name] = np.stack([statistics(row) for row in weights])
    estimates = {
        name: {
            statistic: Estimate(float(values[name][k]), *interval(drawn[name][:, k], count))
            for k, statistic in enumerate(STATISTICS)
        }
        for name in scores
    }
    comparisons = [
        comparison for statistic in ("spearman", "roc_auc") for comparison in _comparisons(statistic, values, drawn, count)
    ]
    return LevelResult(
        level=level,
        count=len(target),
        statistics=estimates,
        comparisons=tuple(comparisons),
        agreement=_agreement(scores),
        scores=scores,
        target=target,
        names=tuple(names),
        counts=counts,
        refused=too_few(count, _CLUSTERS[level]),
    )


def _comparisons(statistic: str, values: dict[str, Floats], drawn: dict[str, Floats], clusters: int) -> list[Comparison]:
    k = STATISTICS.index(statistic)
    pairs = list(combinations(values, 2))
    if not pairs:
        return []
    differences = [float(values[a][k] - values[b][k]) for a, b in pairs]
    draws = [drawn[a][:, k] - drawn[b][:, k] for a, b in pairs]
    if clusters < FEWEST:
        p = [math.nan] * len(pairs)
        corrected = np.full(len(pairs), np.nan)
    else:
        p = [two_sided_p(difference, drawn_, clusters) for difference, drawn_ in zip(differences, draws, strict=True)]
        corrected = holm(np.nan_to_num(p, nan=1.0))
    return [
        Comparison(a, b, statistic, Estimate(difference, *interval(drawn_, clusters)), raw, float(holm))
        for (a, b), difference, drawn_, raw, holm in zip(pairs, differences, draws, p, corrected, strict=True)
    ]


def _agreement(scores: dict[str, Floats]) -> dict[str, dict[str, float]]:
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant metric has no correlation
        rho = np.atleast_2d(np.corrcoef([rankdata(column) for column in scores.values()]))
    return {a: {b: float(rho[i, j]) for j, b in enumerate(scores)} for i, a in enumerate(scores)}
