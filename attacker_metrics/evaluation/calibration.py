"""Scores beside those of unrelated pairs -> the strongest attacker per image, success rates, anchors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from attacker_metrics.evaluation.scoring import RunScores
from attacker_metrics.evaluation.unrelated import SEED, digest_of
from attacker_metrics.reading.strongest import TIE_RULE, NullDistribution, Reading, Selection, Shared, Strongest, reading
from attacker_metrics.reading.strongest.success import TOO_FEW
from attacker_metrics.reading.strongest.surprise import Floats
from attacker_metrics.statistics import success_rate

RATES = (0.01, 0.001)
"""The false-positive rates at which success is counted."""
STRONGEST = ("strongest", "strongest_attacker", "strongest_p_value")
"""The columns of ``scores.parquet``: percentile among unrelated pairs, attacker, chance of so much by an unrelated pair."""


@dataclass(frozen=True)
class NullCalibration:
    """What comparisons with unrelated originals say about the scores of a run.

    Args:
        null: the scores of the compared pictures with unrelated originals.
        pictures: ``(c,)``: the rows of the compared pictures.
        originals: ``(c, k)``: the rows of the originals.
        own: the strongest attacker of every compared picture.
        total: number of rows of the run.
        scores: attacker -> ``(c,)``.
        shared: what the originals of every comparison have in common.
        anchors: number of images of which the anchors were scored.
        ceiling: attacker -> mean score of a clean picture against itself; None where no image has one.
        equal_noise: attacker -> mean score of clean pictures under Gaussian noise of equal PSNR.
        digest: tells which pairs and attackers the null is of.
        seconds: how long the comparisons took, by the clock.
    """

    null: NullDistribution
    pictures: NDArray[np.int64]
    originals: NDArray[np.int64]
    own: Strongest
    total: int
    scores: dict[str, Floats]
    shared: tuple[Shared, ...]
    anchors: int
    ceiling: dict[str, float | None]
    equal_noise: dict[str, float | None]
    digest: str
    seconds: float | None = None

    @classmethod
    def of(
        cls,
        scores: RunScores,
        matched: RunScores,
        selection: Selection,
        names: list[str],
        fit: str | None,
        seconds: float | None = None,
    ) -> NullCalibration:
        """Measure the scores of a run against those of its images with unrelated originals.

        Args:
            scores: of the run.
            matched: of :class:`~attacker_metrics.evaluation.unrelated.UnrelatedPairs`.
            selection: what was compared.
            names: the attackers that compete.
            fit: the digest of the learned attackers' fit, or None.
            seconds: how long the comparisons took.

        Raises:
            ValueError: if no picture has a null.
        """
        pictures, originals = np.array(selection.pictures), np.array(selection.originals)
        table = {name: matched.columns[name].astype(np.float64) for name in names}
        null, (ceiling, noise) = selection.null(table), selection.anchored(table)
        own = {name: scores.columns[name].astype(np.float64)[pictures] for name in names}
        shared = matched.shared.astype(np.float64)
        return cls(
            null,
            pictures,
            originals,
            null.strongest(own),
            len(scores),
            own,
            tuple(Shared(*row) for row in shared[~np.isnan(shared).any(axis=1)].tolist()),
            len(selection.anchors),
            ceiling,
            noise,
            digest_of(selection, scores, names, fit),
            seconds,
        )

    @property
    def strongest(self) -> Strongest:
        """The strongest attacker of every pair of the run; none for those that were not compared."""
        percentile, p_value, level = (np.full(self.total, np.nan) for _ in range(3))
        winner = np.full(self.total, "", dtype=self.own.winner.dtype)
        for column, values in (
            (percentile, self.own.percentile),
            (p_value, self.own.p_value),
            (level, self.own.level),
            (winner, self.own.winner),
        ):
            column[self.pictures] = values
        return Strongest(percentile, winner, p_value, level)

    def reading(self, rate: float, clusters: list[str] | None) -> Reading:
        """How many of the compared pictures are read.

        Args:
            rate: the false-positive rate.
            clusters: group of every row, or None.

        Raises:
            ValueError: if there are too few comparisons for the rate.
        """
        groups = None if clusters is None else [clusters[row] for row in self.pictures]
        return reading(self.null, self.own, rate, groups=groups)

    def columns(self) -> dict[str, pa.Array]:
        """The columns :data:`STRONGEST`; null for pairs without a score."""
        strongest = self.strongest
        percentile, winner, p_value = strongest.percentile, strongest.winner, strongest.p_value
        arrays = (
            pa.array(percentile, pa.float64(), from_pandas=True),
            pa.array([name or None for name in winner.tolist()], pa.string()),
            pa.array(p_value, pa.float64(), from_pandas=True),
        )
        return dict(zip(STRONGEST, arrays, strict=True))


def as_json(calibration: NullCalibration, clusters: list[str] | None) -> dict[str, Any]:
    """What ``summary.json`` holds under ``null``.

    Args:
        calibration: of the run.
        clusters: group of every pair, for the intervals, or None.
    """
    null, own = calibration.null, calibration.own
    winners, counts = np.unique(own.winner[own.winner != ""], return_counts=True)
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
        "comparisons": null.count,
        "pictures": len(null.per_picture),
        "per_picture": float(null.per_picture.mean()),
        "fewest_per_picture": int(null.per_picture.min()),
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
    """What ``summary.json`` holds under ``null`` where no picture could be compared."""
    none = {"pairs": 0, "comparisons": 0, "pictures": 0, "per_picture": None}
    return {**none, "refused": reason, "rates": {}, "winners": {}, "anchor_images": 0, "anchors": {}}


def _at_rate(calibration: NullCalibration, clusters: list[str] | None, rate: float) -> dict[str, Any]:
    null = calibration.null
    try:
        found = calibration.reading(rate, clusters)
    except ValueError as error:
        return {"refused": str(error), "realised": None, "success": None, "read": None}
    scored = calibration.own.scored
    groups = None if clusters is None else np.asarray(clusters)[calibration.pictures][scored]
    alone = {name: null.success(name, calibration.scores[name], rate)[scored] for name in null.names}
    success = {"strongest": found.success, **{name: success_rate(which, groups) for name, which in alone.items()}}
    return {
        "refused": None,
        "realised": found.realised,
        "success": {name: asdict(rate) for name, rate in success.items()},
        "read": as_read(found),
    }


def as_read(found: Reading) -> dict[str, Any]:
    """What ``summary.json`` holds under ``read``, and its ``risk``."""
    return {
        "rate": found.success.rate,
        "low": found.low,
        "high": found.high,
        "n": found.success.n,
        "false_positive_rate": found.false_positive_rate,
        "strongest": found.strongest,
        "risk": found.risk._asdict(),
        "verdict": found.verdict,
        "reason": None,
    }


def unread(reason: str, rate: float) -> dict[str, Any]:
    """The same where it cannot be told."""
    nothing: dict[str, Any] = dict.fromkeys(("rate", "low", "high", "n", "strongest", "risk"))
    return {**nothing, "false_positive_rate": rate, "verdict": TOO_FEW, "reason": reason}
