"""A checked sample: scores and the group that each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN bounds where the sample says nothing about its own error.

    That is so of a mean for a single pair or group, and where all values are equal: no resample differs, yet the next pair
    may.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """Finite scores and the group of each.

    Args:
        scores: (n,) float64.
        group: (n,) number of each score's group, from 0; every score is a group of its own if none were given.
        groups: how many groups.
        grouped: whether groups were given.
    """

    scores: NDArray[np.float64]
    group: NDArray[np.intp]
    groups: int
    grouped: bool

    @classmethod
    def of(cls, scores: ArrayLike, groups: ArrayLike | None) -> Sample:
        """Check and number.

        Raises:
            ValueError: for an array that is not (n,) or empty, a score that is NaN or infinite, or groups that do not fit.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(f"scores must have shape (n,) with n >= 1, got {values.shape}; pass one score per pair.")
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise ValueError(f"{bad} of {values.size} scores are NaN or infinite; leave those pairs out and say how many.")
        if groups is None:
            return cls(values, np.arange(values.size), values.size, grouped=False)
        names = np.asarray(groups)
        if names.shape != values.shape:
            raise ValueError(f"groups must have the shape of scores, {values.shape}, got {names.shape}.")
        missing = int(((names == None) | (names != names)).sum())  # noqa: E711 - NaN is unlike itself
        if missing:
            raise ValueError(f"{missing} of {names.size} scores have no group; name one for each, or pass groups=None.")
        found, numbers = np.unique(names, return_inverse=True)
        return cls(values, numbers.reshape(-1), found.size, grouped=True)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(groups,) sum of (n,) values over each group."""
        return np.asarray(np.bincount(self.group, weights=values, minlength=self.groups), dtype=np.float64)

    @property
    def sizes(self) -> NDArray[np.float64]:
        """(groups,) number of scores of each group."""
        return self.sums(np.ones(self.scores.size))

    @property
    def effective_groups(self) -> float:
        """Of how many equal groups a mean over the pairs has the error that it has for groups of these sizes (Kish 1965).

        One of 500 pairs and twenty of one are little more than a single group.
        """
        sizes = self.sizes
        return float(sizes.sum() ** 2 / (sizes**2).sum())


def effective_size(hits: Sample) -> float:
    """Of how many independent pairs a share has the error that it has in groups (Korn and Graubard 1998).

    n over the design effect (the variance that the spread between groups shows, over that of independent pairs), times the
    squared ratio of Student quantiles for n - 1 and groups - 1 degrees of freedom; at most n. A share of 0 or 1 shows no
    spread: then every group counts as one pair. Groups of unequal sizes are as many as :attr:`Sample.effective_groups`.

    Args:
        hits: zeros and ones.
    """
    n, groups = hits.scores.size, hits.groups
    share = float(hits.scores.mean())
    if not hits.grouped:
        return float(n)
    effective = hits.effective_groups
    if share in (0.0, 1.0) or groups < 2:
        return effective
    # The jackknife over groups: a large group has drawn the share towards itself, so it seems to deviate less than it does.
    deviations = hits.sums(hits.scores - share) / (1 - hits.sizes / n)
    variance = (groups - 1) / groups * float((deviations**2).sum()) / n**2
    independent = share * (1 - share) / n
    if variance <= independent:
        return float(n)
    few = float(stats.t.ppf(0.975, n - 1) / stats.t.ppf(0.975, max(effective - 1, 0.05))) ** 2
    return min(float(n), max(1.0, n * independent / variance * few))
