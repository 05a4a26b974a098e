"""Scores of sent pictures with unrelated originals: what is read where nothing leaks, and the strongest attacker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attacker_metrics.reading.strongest.originals import FEWEST
from attacker_metrics.reading.strongest.surprise import Floats, standardized, surprise

ScoresByName = Mapping[str, Floats]
"""Attacker's name -> the score of every image, float64; NaN for an image that could not be scored."""

FOLDS = 5
"""Rarities are read off the comparisons of other pictures, in turns: an unrelated original that is part of its own yardstick
would seem less rare than a picture's own original, which is not."""
TIE_RULE = (
    "a score is measured against those of the same sent picture with unrelated originals; one that ties with the own"
    " original counts against it; of equal attackers the first wins"
)


@dataclass(frozen=True)
class Strongest:
    """The strongest attacker of every picture: the one whose score is rarest among unrelated originals.

    Args:
        percentile: ``(n,)``: the share of unrelated originals of which the strongest attacker reads less (ties count half),
            cut to what so many can tell: within ``1/m`` of 0 and 1; NaN for pictures without a score or a null.
        winner: ``(n,)``: the attacker's name; empty for pictures without one.
        p_value: ``(n,)``: how probable it is that the strongest attacker reads so much of an unrelated original, at least
            ``1 / (m + 1)``; NaN for pictures without a score or a null.
        level: ``(n,)``: how rare the winner's score is, in decades, before the choice of the maximum is counted; NaN for
            pictures without one.
    """

    percentile: Floats
    winner: NDArray[np.str_]
    p_value: Floats
    level: Floats

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``(n,)``: which pictures have a score of every attacker and a null."""
        return ~np.isnan(self.p_value)

    def success(self, rate: float) -> NDArray[np.bool_]:
        """``(n,)``: who is read at a false-positive rate; False for pictures without a score, which says nothing about them.

        A success rate is that among :attr:`scored` pictures. Use :meth:`NullDistribution.check_rate` first: without enough
        comparisons nobody succeeds.
        """
        return self.p_value <= rate * (1 + 1e-12)


class NullDistribution:
    """What every sent picture scores with unrelated originals, and the scale on which attackers compare.

    Each picture has a null of its own: a score is put in units of what the same attacker reads out of the same picture with
    unrelated originals, then made a rarity among all such comparisons of the run. The strongest attacker of a picture is
    the one with the rarest score; how often the rarest of all attackers is as rare for an unrelated original is counted on
    these, which went through the very same steps. If nothing leaks, a picture's own original is one more unrelated one, so
    that it succeeds with the false-positive rate on average over the pictures, whatever the number of attackers, their
    correlations and their ties.

    Args:
        scores: attacker -> ``(n, k)``: of n sent pictures with k unrelated originals each, the same originals for all
            attackers; NaN where there is none. An original for which any attacker has no score is left out, and pictures
            with fewer than three, or all of one source, have no null.
        sources: ``(n, k)`` the number of the group that every original is of; by default no two of a picture are of one.

    Raises:
        ValueError: for no attackers, different shapes, or no picture with a null.

    Example:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> null = NullDistribution({"blur": generator.random((60, 20)) / 2, "edges": generator.random((60, 20)) / 4})
        >>> own = {"blur": np.full(60, 0.2), "edges": np.r_[0.9, np.full(59, 0.1)]}
        >>> found = null.strongest(own)
        >>> found.winner[0], found.p_value[0].round(4), found.success(0.01).sum()
        (np.str_('edges'), np.float64(0.0008), np.int64(1))
    """

    def __init__(self, scores: ScoresByName, sources: NDArray[np.int64] | None = None) -> None:
        self.names = tuple(scores)
        self._scores = _tables(scores)
        shape = self._scores[0].shape
        self.sources: NDArray[np.int64] = (
            np.arange(shape[0] * shape[1]).reshape(shape) if sources is None else np.asarray(sources)
        )
        """``(n, k)``: the number of the group of every original."""
        if self.sources.shape != shape:
            raise ValueError(f"sources must have the shape of scores, {shape}, got {self.sources.shape}.")
        complete = ~np.isnan(self._scores[0])
        for table in self._scores[1:]:
            complete &= ~np.isnan(table)
        counts = complete.sum(axis=1)
        sources_of_one = np.where(complete, self.sources, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
        several = (complete & (self.sources != sources_of_one)).any(axis=1)
        self.pictures: NDArray[np.bool_] = (counts >= FEWEST) & several
        """``(n,)``: which pictures have a null."""
        self.usable: NDArray[np.bool_] = complete & self.pictures[:, None]
        """``(n, k)``: which comparisons count."""
        self.count = int(self.usable.sum())
        """Number of comparisons with unrelated originals."""
        self.skipped = complete.size - self.count
        """Number of comparisons that were asked for and do not count."""
        if not self.count:
            raise ValueError(
                f"not enough pictures: none of {shape[0]} has {FEWEST} unrelated originals, of two groups or more, with a"
                " score of every attacker."
            )
        self.per_picture: NDArray[np.int64] = counts[self.pictures]
        """Comparisons of every picture that has a null."""
        self._weights = np.repeat(1 / self.per_picture / len(self.per_picture), self.per_picture)

    def check_rate(self, rate: float) -> None:
        """Raise a ``ValueError`` unless there are ``1 / rate - 1`` comparisons, as a false-positive rate needs."""
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie between 0 and 1, got {rate!r}.")
        needed = int(np.ceil(1 / rate - 1e-9)) - 1
        if self.count < needed:
            raise ValueError(
                f"not enough pictures: a false-positive rate of {rate:g} needs at least {needed} comparisons with unrelated"
                f" originals, got {self.count}: evaluate more images, or ask for a larger rate."
            )

    def strongest(self, scores: ScoresByName) -> Strongest:
        """The strongest attacker of every picture.

        Args:
            scores: attacker -> ``(n,)``, the scores of the very pictures with their own originals, for the attackers of this
                distribution. A picture for which any of them has no score gets none.

        Raises:
            ValueError: if the attackers or the number of pictures are not those of the null: the maximum over others has
                another distribution.
        """
        if set(scores) != set(self.names):
            different = sorted(set(scores) ^ set(self.names))
            raise ValueError(
                "the attackers must be those of the unrelated originals, as the maximum over more of them is larger by"
                f" chance; different: {', '.join(different)}."
            )
        known = self.pictures.copy()
        for name in self.names:
            known &= ~np.isnan(self._checked(scores[name]))
        level = np.full(len(known), -np.inf)
        winner = np.zeros(len(known), dtype=np.int64)
        for k, name in enumerate(self.names):
            rarity = self._rarity(k, self._checked(scores[name]))[0]
            better = known & (rarity > level)
            level[better], winner[better] = rarity[better], k
        names = np.where(known, np.array(self.names)[winner], "")
        level[~known] = np.nan
        p_value = self._p_values(level, self.maxima)
        finest = 1 / self.count
        percentile = np.clip(1 - _share_above(level, self.maxima, self._weights, ties=0.5), finest, 1 - finest)
        return Strongest(percentile, names, p_value, level)

    @cached_property
    def maxima(self) -> Floats:
        """``(m,)``: the rarity of the rarest attacker of every comparison that counts, in decades."""
        nothing = np.full(len(self.pictures), np.nan)
        maxima = np.full(self.count, -np.inf)
        for k in range(len(self.names)):
            maxima = np.maximum(maxima, self._rarity(k, nothing)[1])
        return maxima

    @property
    def outliers(self) -> int:
        """Comparisons a thousand times rarer than the rarest of so many should be: their originals may be related."""
        return int((self.maxima > np.log10(self.count) + 3).sum())

    def realised(self, rate: float) -> float:
        """The share of unrelated originals that succeed at a false-positive rate."""
        return float(self._weights[self.maxima > self.maximum_threshold(rate)].sum())

    def maximum_threshold(self, rate: float) -> float:
        """The level above which the strongest attacker succeeds at a false-positive rate.

        Raises:
            ValueError: if there are too few comparisons for the rate.
        """
        self.check_rate(rate)
        return self.level_at(rate)

    def level_at(self, share: float) -> float:
        """The lowest level of an unrelated original that too many reach for a picture with it to succeed.

        Below one of all comparisons the levels are continued: they are decades, and a tenth of the share is one more.
        """
        order = np.argsort(-self.maxima, kind="stable")
        above = 1 + self.count * np.cumsum(self._weights[order])
        allowed = share * (1 + 1e-12) * (self.count + 1)
        position = int(np.searchsorted(above, allowed, side="right"))
        if position == 0 and allowed < 1:
            return float(self.maxima[order[0]] - np.log10(allowed))
        return float(self.maxima[order[min(position, self.count - 1)]])

    def success(self, name: str, scores: Floats, rate: float) -> NDArray[np.bool_]:
        """``(n,)``: whose picture one attacker alone reads at a false-positive rate; False for pictures without a score.

        Raises:
            ValueError: if there are too few comparisons for the rate, or no such attacker.
        """
        self.check_rate(rate)
        own, null = self._rarity(self._row(name), self._checked(scores))
        succeeds: NDArray[np.bool_] = self._p_values(own, null) <= rate * (1 + 1e-12)
        return succeeds

    def mean(self, name: str) -> float:
        """The mean score of an attacker with unrelated originals: what its number is where nothing leaks."""
        return float(self._scores[self._row(name)][self.usable].mean())

    def _rarity(self, row: int, own: Floats) -> tuple[Floats, Floats]:
        """Of one attacker the rarity of every picture's own score, ``(n,)``, and of every comparison, ``(m,)``."""
        table = np.where(self.usable, self._scores[row], np.nan)
        own_z, null_z = standardized(np.where(self.pictures, own, np.nan), table, self.sources)
        own_rarity, null_rarity = np.full_like(own_z, np.nan), np.full_like(null_z, np.nan)
        folds = np.zeros(len(own), dtype=np.int64)
        folds[self.pictures] = np.arange(int(self.pictures.sum())) % FOLDS
        for fold in np.unique(folds[self.pictures]):
            inside = (folds == fold) & self.pictures
            pool = null_z[self.usable & ~inside[:, None]]
            if not len(pool):  # a single picture
                pool = null_z[self.usable]
            own_rarity[inside], null_rarity[inside] = surprise(own_z[inside], pool), surprise(null_z[inside], pool)
        return own_rarity, null_rarity[self.usable]

    def _p_values(self, own: Floats, null: Floats) -> Floats:
        reached = _share_above(own, null, self._weights, ties=1.0)
        return (1 + self.count * reached) / (self.count + 1)

    def _checked(self, scores: Floats) -> Floats:
        values = np.asarray(scores, dtype=np.float64)
        if values.shape != self.pictures.shape:
            raise ValueError(
                f"scores must be those of the {len(self.pictures)} pictures whose unrelated originals were scored, shape"
                f" {self.pictures.shape}, got {values.shape}."
            )
        return values

    def _row(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"attacker must be one of {', '.join(map(repr, self.names))}, got {name!r}.")
        return self.names.index(name)


def _share_above(values: Floats, pool: Floats, weights: Floats, *, ties: float) -> Floats:
    """``(n,)``: the weight of the pool above each value, equal ones in part; NaN stays NaN."""
    order = np.argsort(pool, kind="stable")
    ordered, sums = pool[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    slack = 1e-9 * np.maximum(1, np.abs(values))  # what differs by rounding ties
    low = sums[np.searchsorted(ordered, values - slack, side="left")]
    high = sums[np.searchsorted(ordered, values + slack, side="right")]
    above = sums[-1] - high + ties * (high - low)
    return np.where(np.isnan(values), np.nan, above)


def _tables(scores: ScoresByName) -> list[Floats]:
    if not scores:
        raise ValueError("there are no attackers: pass at least one table of scores.")
    tables = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    for name, values in tables.items():
        if values.ndim != 2:
            raise ValueError(
                f"the scores of unrelated originals must have shape (pictures, originals), got {values.shape} for {name!r}."
            )
    shapes = {name: values.shape for name, values in tables.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"every attacker must have one score per comparison, got shapes {shapes}.")
    return list(tables.values())
