"""Scores beside those of unrelated pairs -> the strongest attacker per image, success rates, anchors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from attacker_metrics.evaluation.scoring import Scores
from attacker_metrics.evaluation.unrelated import SEED, Selection
from attacker_metrics.reading.strongest import TIE_RULE, NullDistribution, Strongest
from attacker_metrics.reading.strongest.null import Floats
from attacker_metrics.statistics import success_rate

RATES = (0.01, 0.001)
"""The false-positive rates at which success is counted."""
STRONGEST = ("strongest", "strongest_attacker", "strongest_p_value")
"""The columns of ``scores.parquet``: percentile among unrelated pairs, attacker, chance of so much by an unrelated pair."""


@dataclass(frozen=True)
class Calibration:
    """What the unrelated pairs of a run say about its scores.

    Args:
        null: the scores of unrelated pairs.
        strongest: the strongest attacker of every pair.
        scores: attacker -> ``(n,)``, NaN for pairs without a score.
        anchors: number of images of which the anchors were scored.
        ceiling: attacker -> mean score of a clean picture against itself; None where no image has one.
        equal_noise: attacker -> mean score of clean pictures under Gaussian noise of equal PSNR.
        digest: tells which pairs and attackers the null is of.
    """

    null: NullDistribution
    strongest: Strongest
    scores: dict[str, Floats]
    anchors: int
    ceiling: dict[str, float | None]
    equal_noise: dict[str, float | None]
    digest: str

    @classmethod
    def of(cls, scores: Scores, matched: Scores, selection: Selection, names: list[str], fit: str | None) -> Calibration:
        """Measure the scores of a run against those of its images matched anew.

        Args:
            scores: of the run.
            matched: of :class:`~attacker_metrics.evaluation.unrelated.UnrelatedPairs`.
            selection: what was matched.
            names: the attackers that compete.
            fit: the digest of the learned attackers' fit, or None.

        Raises:
            ValueError: if fewer than two unrelated pairs have a score.
        """
        chosen = scores.scored
        columns = {name: np.where(chosen, scores.columns[name].astype(np.float64), np.nan) for name in names}
        pairs, count = len(selection.noisy), len(selection.anchors)
        parts = {name: np.split(matched.columns[name].astype(np.float64), [pairs, pairs + count]) for name in names}
        null = NullDistribution({name: part[0] for name, part in parts.items()})
        ceiling, noise = ({name: _mean(part[which]) for name, part in parts.items()} for which in (1, 2))
        return cls(null, null.strongest(columns), columns, count, ceiling, noise, selection.digest(scores, names, fit))

    def columns(self) -> dict[str, pa.Array]:
        """The columns :data:`STRONGEST`; null for pairs without a score."""
        percentile, winner, p_value = self.strongest.percentile, self.strongest.winner, self.strongest.p_value
        arrays = (
            pa.array(percentile, pa.float64(), from_pandas=True),
            pa.array([name or None for name in winner.tolist()], pa.string()),
            pa.array(p_value, pa.float64(), from_pandas=True),
        )
        return dict(zip(STRONGEST, arrays, strict=True))


def as_json(calibration: Calibration, clusters: list[str] | None) -> dict[str, Any]:
    """What ``summary.json`` holds under ``null``.

    Args:
        calibration: of the run.
        clusters: group of every pair, for the intervals, or None.
    """
    null, strongest = calibration.null, calibration.strongest
    winners, counts = np.unique(strongest.winner[strongest.winner != ""], return_counts=True)
    anchors = {
        name: {
            "null": null.mean(name),
            "equal_noise": calibration.equal_noise[name],
            "ceiling": calibration.ceiling[name],
        }
        for name in null.names
    }
    return {
        "pairs": null.count,
        "without_score": null.skipped,
        "seed": SEED,
        "digest": calibration.digest,
        "tie_rule": TIE_RULE,
        "refused": None,
        "rates": {f"{rate:g}": _at_rate(calibration, clusters, rate) for rate in RATES},
        "winners": {str(winners[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")},
        "anchor_images": calibration.anchors,
        "anchors": anchors,
    }


def refused(reason: str) -> dict[str, Any]:
    """What ``summary.json`` holds under ``null`` where no unrelated pairs could be had."""
    return {"pairs": 0, "refused": reason, "rates": {}, "winners": {}, "anchor_images": 0, "anchors": {}}


def _at_rate(calibration: Calibration, clusters: list[str] | None, rate: float) -> dict[str, Any]:
    null = calibration.null
    try:
        realised = null.realised(rate)
    except ValueError as error:
        return {"refused": str(error), "realised": None, "thresholds": None, "success": None}
    scored = ~np.isnan(calibration.strongest.p_value)
    groups = None if clusters is None else np.asarray(clusters)[scored]
    hits = {"strongest": calibration.strongest.success(rate)}
    hits |= {name: null.success(name, calibration.scores[name], rate) for name in null.names}
    return {
        "refused": None,
        "realised": realised,
        "thresholds": {"strongest_p_value": rate, **{name: null.threshold(name, rate) for name in null.names}},
        "success": {name: asdict(success_rate(which[scored], groups)) for name, which in hits.items()},
    }


def _mean(values: Floats) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
