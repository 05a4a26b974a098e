"""k of n: how often an attacker succeeded, and how often it may succeed although it never did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from attacker_metrics.statistics.sample import Sample, effective_size


@dataclass(frozen=True)
class Rate:
    """A share of successes.

    ``low`` and ``high`` are for judging a rate, ``upper`` is for claiming safety: "0 of 30" has the upper bound 0.095, so
    one image in eleven may still leak. Neither covers images of another kind than those that were evaluated.

    Args:
        successes: k, how many pairs.
        n: of how many.
        rate: k / n.
        low: lower end of the two-sided 95 % interval (Wilson).
        high: its upper end.
        upper: one-sided exact 95 % upper bound (Clopper-Pearson); 1 - 0.05 ** (1 / n) for 0 of n.
        effective: the number of independent pairs that the three are computed for; n without groups. With groups they are
            at least as wide as those of none (or all) of as many pairs as there are groups.
    """

    successes: int
    n: int
    rate: float
    low: float
    high: float
    upper: float
    effective: float

    def __str__(self) -> str:
        bound = f", upper bound {self.upper:.3g}" if self.successes == 0 else f", {self.low:.3g} .. {self.high:.3g}"
        return f"{self.successes} of {self.n} ({self.rate:.3g}{bound})"


def success_rate(hits: ArrayLike, groups: ArrayLike | None = None) -> Rate:
    """The share of pairs on which an attacker succeeded, with its intervals.

    With groups, n is replaced by the number of independent pairs that would have the same error; where all pairs or none are
    hit, that is the number of groups. A few hits show hardly more of the spread between groups than none: a bound is
    never below that of no hit at all.

    Args:
        hits: (n,) whether it did, bool or 0 and 1.
        groups: (n,) group of each pair.

    Raises:
        ValueError: for an empty array, values other than 0 and 1, or groups that do not fit.

    Source: Wilson, "Probable inference", 1927; Clopper and Pearson, 1934; Korn and Graubard, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data", 1998.

    Example:
        >>> print(success_rate([False] * 30))
        0 of 30 (0, upper bound 0.095)
    """
    sample = Sample.of(hits, groups)
    if not np.isin(sample.scores, (0, 1)).all():
        raise ValueError("hits must be 0 or 1; compare the scores with a threshold first.")
    k, n, effective = int(sample.scores.sum()), sample.scores.size, effective_size(sample)
    low, high, upper = _limits(k / n, effective)
    if sample.grouped:
        # One hit has next to no spread between groups, so its effective size is about n. Without a floor 1 hit among 3,000
        # pairs in 30 groups would be bounded by 0.0017, no hit at all by 0.095.
        none, every = _limits(0.0, sample.effective_groups), _limits(1.0, sample.effective_groups)
        low, high, upper = min(low, every[0]), max(high, none[1]), max(upper, none[2])
    return Rate(k, n, k / n, low, high, upper, effective)


def rate_of_counts(successes: int, n: int) -> Rate:
    """The same from counts of independent pairs.

    Args:
        successes: k, 0 to n.
        n: at least 1.

    Raises:
        ValueError: for counts that are none.

    Example:
        >>> print(rate_of_counts(8, 100))
        8 of 100 (0.08, 0.0411 .. 0.15)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"successes must be 0 to n and n at least 1, got {successes} of {n}.")
    return Rate(successes, n, successes / n, *_limits(successes / n, n), effective=float(n))


def _limits(rate: float, n: float) -> tuple[float, float, float]:
    """Both ends of the Wilson interval, and the exact upper bound, of a rate among n independent pairs."""
    # A second to import, so not before it is needed.
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(rate * n, n, alpha=0.05, method="wilson")
    # The upper end of a two-sided 90 % interval is the one-sided 95 % bound.
    upper = proportion_confint(rate * n, n, alpha=0.10, method="beta")[1] if rate < 1 else 1.0
    return float(low), float(high), float(upper)
