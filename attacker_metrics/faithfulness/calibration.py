"""From a metric to the probability that a person recognises the image, cross-validated by original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from attacker_metrics.faithfulness.annotations import Annotations, Floats
from attacker_metrics.faithfulness.bootstrap import too_few
from attacker_metrics.faithfulness.scores import Scores, pair
from attacker_metrics.statistics import Estimate, mean_interval

Method = Literal["isotonic", "logistic"]
FittedRule = Literal["majority", "any", "all"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Outcome of :func:`calibrate`.

    Args:
        metrics: which metrics predict.
        method: of the map.
        probability: ``(N,)`` predicted for each image by a map that never saw its original.
        recognized: ``(N,)`` 1 or 0.
        brier: mean squared error of the probabilities, in [0, 1], lower = better, with its 95 % interval over originals;
            none (NaN) of fewer than eight originals.
        brier_of_base_rate: the same if each image gets the share recognised among the other folds' images.
        predicted: per bin of the reliability curve the mean predicted probability.
        observed: per bin the share recognised.
        counts: per bin the number of images.
        refused: why there is no interval, or None.
    """

    metrics: tuple[str, ...]
    method: Method
    probability: Floats
    recognized: Floats
    brier: Estimate
    brier_of_base_rate: float
    predicted: Floats
    observed: Floats
    counts: npt.NDArray[np.int64]
    refused: str | None = None

    @property
    def skill(self) -> float:
        """1 - Brier score / Brier score of the base rate: 1 = perfect, 0 = no better than knowing the share recognised."""
        return 1 - self.brier.value / self.brier_of_base_rate


def calibrate(
    scores: Scores,
    annotations: Annotations,
    metrics: Sequence[str],
    *,
    method: Method = "isotonic",
    rule: FittedRule = "majority",
    folds: int = 5,
    draws: int = 1000,
    seed: int = 0,
    allow_unmatched: bool = False,
) -> Calibration:
    """Map one metric or several to the probability that an image is recognised, and test the map on other originals.

    Args:
        scores: the scores; the direction of each metric is the declared one, so that an isotonic map only ever increases
            with leakage.
        annotations: the votes.
        metrics: one for ``"isotonic"``, one or more for ``"logistic"``.
        method: ``"isotonic"``: any monotone map; ``"logistic"``: a logistic regression of the standardised scores.
        rule: when an image counts as recognised.
        folds: of the cross-validation; all reconstructions of an original are in one fold.
        draws: bootstrap draws over originals for the interval.
        seed: of the draws.
        allow_unmatched: leave rows without a partner out instead of raising.

    Raises:
        ValueError: for unknown metrics or methods, infinite scores, fewer originals than folds, or a fold without both
            recognised and unrecognised images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ids, psnr = [str(i) for i in range(200)], 10 + 10 * rng.random(200)
        >>> votes = {"ann": psnr + 4 * rng.random(200) > 17}
        >>> table = Annotations(["d"] * 200, ["m"] * 200, ["a"] * 200, ids, ids, votes)
        >>> 0.3 < calibrate(Scores(ids, {"psnr": psnr}), table, ["psnr"], draws=100).skill < 1
        True
    """
    if method not in get_args(Method) or rule not in get_args(FittedRule):
        raise ValueError(f"method is {method!r}, rule {rule!r}; there are {get_args(Method)} and {get_args(FittedRule)}.")
    if not metrics or (method == "isotonic" and len(metrics) > 1):
        raise ValueError(f"method {method!r} got the metrics {list(metrics)}; isotonic takes one, logistic one or more.")
    paired = pair(scores, annotations, allow_unmatched=allow_unmatched)
    unknown = [name for name in metrics if name not in paired.scores.columns]
    if unknown:
        raise ValueError(f"there are no scores of {unknown}; there are {list(paired.scores.columns)}.")
    features = np.stack([paired.scores.leaking(name) for name in metrics], axis=1)
    if not np.isfinite(features).all():
        raise ValueError(f"{list(metrics)} hold infinite scores, e.g. the PSNR of identical images; cap them first.")
    recognized = annotations.recognized(rule)[paired.rows]
    clusters = annotations.clusters[paired.rows]
    if len(np.unique(clusters)) < folds:
        raise ValueError(f"{len(np.unique(clusters))} originals cannot be split into {folds} folds; pass fewer folds.")
    probability, base = np.empty(len(recognized)), np.empty(len(recognized))
    for train, test in GroupKFold(folds).split(features, groups=clusters):
        if recognized[train].min() == recognized[train].max():
            raise ValueError("a fold holds only recognised or only unrecognised images; pass fewer folds or more images.")
        probability[test] = _predict(method, features[train], recognized[train], features[test])
        base[test] = recognized[train].mean()
    predicted, observed, counts = _reliability(probability, recognized)
    refused = too_few(len(np.unique(clusters)), "originals")
    brier = mean_interval((probability - recognized) ** 2, clusters, resamples=draws, seed=seed)
    return Calibration(
        metrics=tuple(metrics),
        method=method,
        probability=probability,
        recognized=recognized,
        brier=brier if refused is None else Estimate(brier.value, np.nan, np.nan),
        brier_of_base_rate=float(brier_score_loss(recognized, base)),
        predicted=predicted,
        observed=observed,
        counts=counts,
        refused=refused,
    )


def _reliability(probability: Floats, recognized: Floats, bins: int = 10) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Per bin of equally many images, as ``sklearn.calibration.calibration_curve`` makes them, and how many there are."""
    edges = np.quantile(probability, np.linspace(0, 1, bins + 1))
    number = np.searchsorted(edges[1:-1], probability)
    counts = np.bincount(number, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(number, values, bins)[filled] for values in (probability, recognized))
    predicted, observed = (total / counts[filled] for total in sums)
    return predicted, observed, counts[filled]


def _predict(method: Method, features: Floats, recognized: Floats, wanted: Floats) -> Floats:
    if method == "isotonic":
        isotonic = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds="clip")
        return np.asarray(isotonic.fit(features[:, 0], recognized).predict(wanted[:, 0]))
    logistic = make_pipeline(StandardScaler(), LogisticRegression())
    return np.asarray(logistic.fit(features, recognized).predict_proba(wanted)[:, 1])
