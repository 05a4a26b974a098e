"""How many pictures are read: a rate and what it adds to chance, with the sampling errors of pictures and null."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attacker_metrics.reading.strongest.null import NullDistribution, Strongest
from attacker_metrics.reading.strongest.originals import numbered

if TYPE_CHECKING:
    from attacker_metrics.statistics import Estimate, Rate

LEAKS, NONE_FOUND, TOO_FEW = "Leaks", "no leak found by these attackers at {n} pictures", "not enough pictures"
"""What a reading may be called."""
LEVEL = 0.025
"""Of the verdict."""


@dataclass(frozen=True)
class Reading:
    """The share of pictures that the strongest attacker reads.

    Args:
        false_positive_rate: the share of unrelated originals that may be read too.
        realised: the share of them that is.
        success: how many pictures are read, with the interval of that number of pictures alone; ``success.effective`` is the
            number of independent pictures that they are worth.
        low: lower end of the 95 % interval of the rate, for sampling of the pictures and of the unrelated originals.
        high: its upper end.
        effective_comparisons: the number of independent comparisons that the null is worth at this rate.
        p_value: how probable so many read pictures are if no more than of the unrelated originals are read (Fisher's exact
            test, of independent numbers of either).
        risk: ``max(0, (rate - realised) / (1 - realised))`` with its interval; its lower end is above 0 where pictures leak.
        strongest: attacker -> how many of the read pictures it reads best, most frequent first.
    """

    false_positive_rate: float
    realised: float
    success: Rate
    low: float
    high: float
    effective_comparisons: float
    p_value: float
    risk: Estimate
    strongest: dict[str, int]

    @property
    def verdict(self) -> str:
        """:data:`LEAKS`, :data:`NONE_FOUND` or :data:`TOO_FEW`.

        Pictures leak if the risk's lower end is above 0 and ``p_value`` below 0.025. Where one of the two says so alone, or
        the numbers are so small that ``p_value`` would not do so if every picture were read, there are too few to tell.
        """
        above, rare = self.risk.low > 0, self.p_value < LEVEL
        if above and rare:
            return LEAKS
        pictures = max(1.0, self.success.effective)
        if above or rare or self.chance(round(pictures), pictures) >= LEVEL:
            return TOO_FEW
        return NONE_FOUND.format(n=self.success.n)

    def chance(self, successes: int, n: float) -> float:
        """As ``p_value``, of any number of successes among so many independent pictures."""
        from scipy.stats import fisher_exact

        comparisons, pictures = round(self.effective_comparisons), max(successes, round(n))
        false = math.ceil(self.realised * comparisons)
        table = [[successes, pictures - successes], [false, comparisons - false]]
        return float(fisher_exact(table, alternative="greater").pvalue)


def reading(
    null: NullDistribution,
    strongest: Strongest,
    rate: float,
    *,
    groups: Sequence[Hashable] | None = None,
    originals: NDArray[np.int64] | None = None,
) -> Reading:
    """Count how many pictures are read at a false-positive rate. Needs the extra ``cli``.

    The threshold is a quantile of the unrelated comparisons, so it has an error of its own, beside that of the share of
    pictures beyond it; both are combined as the method of variance estimates recovery does.

    Args:
        null: of the pictures.
        strongest: the attackers of the same pictures.
        rate: the false-positive rate.
        groups: the group of every picture; pictures and comparisons of one group are no independent evidence.
        originals: ``(n, k)`` numbers that tell the null's originals apart, because comparisons with one original are not
            independent either; by default their sources.

    Raises:
        ValueError: if there are too few comparisons for the rate, or no picture is scored.

    Source: Zou and Donner, "Construction of confidence limits about effect measures: a general approach", 2008.
    """
    from attacker_metrics.statistics.proportions import success_rate
    from attacker_metrics.statistics.risk import residual_risk

    null.check_rate(rate)
    scored = strongest.scored
    if not scored.any():
        raise ValueError(f"none of {len(scored)} images has a score of every attacker: there is nothing to judge.")
    names = np.arange(len(scored)) if groups is None else numbered(groups)
    hits, level = strongest.success(rate)[scored], strongest.level[scored]
    success = success_rate(hits, None if groups is None else names[scored])
    comparisons = effective_comparisons(null, rate, names, null.sources if originals is None else originals)
    lenient, strict = _rates_around(rate, comparisons)
    fewer, more = (float(np.mean(level > null.level_at(share))) for share in (strict, lenient))
    low = success.rate - np.hypot(success.rate - success.low, max(0.0, success.rate - fewer))
    high = success.rate + np.hypot(success.high - success.rate, max(0.0, more - success.rate))
    realised = null.realised(rate)
    winners, counts = np.unique(strongest.winner[scored][hits], return_counts=True)
    found = Reading(
        false_positive_rate=rate,
        realised=realised,
        success=success,
        low=float(max(0.0, low)),
        high=float(min(1.0, high)),
        effective_comparisons=comparisons,
        p_value=math.nan,
        risk=residual_risk(success.rate, max(1.0, success.effective), realised, comparisons),
        strongest={str(winners[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")},
    )
    independent = max(1.0, success.effective)
    return replace(found, p_value=found.chance(round(success.rate * independent), independent))


def effective_comparisons(
    null: NullDistribution, rate: float, names: NDArray[np.int64], originals: NDArray[np.int64]
) -> float:
    """Of how many independent comparisons the null's share at a rate has the error that it has.

    Args:
        null: of the pictures.
        rate: the false-positive rate.
        names: ``(n,)`` the group of every picture.
        originals: ``(n, k)`` numbers that tell originals, or groups of them, apart.
    """
    from attacker_metrics.statistics.sample import Sample, effective_size

    above = (null.maxima > null.level_at(rate)).astype(np.float64)
    rows, _ = np.nonzero(null.usable)
    of_pictures, of_originals = (
        1 / effective_size(Sample.of(above, labels)) for labels in (names[rows], originals[null.usable])
    )
    return max(1.0, 1 / (of_pictures + max(0.0, of_originals - 1 / null.count)))


def _rates_around(rate: float, n: float) -> tuple[float, float]:
    """The exact 95 % interval of a share that was seen to be ``rate`` among n: upper end first."""
    from scipy.stats import beta

    k = rate * n
    return float(beta.ppf(0.975, k + 1, n - k)), float(beta.ppf(0.025, k, n - k + 1))
