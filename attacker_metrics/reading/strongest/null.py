"""Scores of unrelated pairs: the scale that they give to attackers, and the chance of their maximum."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attacker_metrics._names import MOST_UNRELATED_PAIRS

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
"""Attacker's name -> the score of every image, float64; NaN for an image that could not be scored."""

MOST_PAIRS = MOST_UNRELATED_PAIRS
TIE_RULE = (
    "equal scores share their mid-rank; beyond every unrelated pair images are ordered by the share of the way from the"
    " largest score of an unrelated pair to 1; an unrelated pair that ties with an image counts against it; of equal"
    " attackers the first wins"
)


def unrelated_pairs(
    groups: Sequence[Hashable], *, kinds: Sequence[Hashable] | None = None, seed: int = 0, limit: int = MOST_PAIRS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match every noisy image with a clean one of another group: a fixed derangement.

    Every image is used at most once on either side. Where a group is larger than all others together, as many of its images
    as have no partner are left out; and where there are more than ``limit`` pairs, a random choice of that many is kept.

    Args:
        groups: the group of every image, such as the person or the source photograph; the ids, if every image is its own.
        kinds: what must agree within a pair, such as the sizes of the images; by default nothing.
        seed: the same seed and groups give the same pairs.
        limit: the largest number of pairs, >= 1.

    Returns:
        The noisy images and the clean images of the pairs, as positions: two arrays of one length.

    Raises:
        ValueError: if no two images have different groups and one kind, a group is missing (NaN), or the lengths differ.

    Example:
        >>> noisy, clean = unrelated_pairs(["a", "a", "b", "c"])
        >>> len(noisy), any((noisy == clean).tolist())
        (4, False)
    """
    if kinds is not None and len(kinds) != len(groups):
        raise ValueError(f"kinds must have one entry per image, got {len(kinds)} for {len(groups)} images.")
    groups, kinds = plain(groups), None if kinds is None else plain(kinds)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit!r}.")
    generator = np.random.default_rng(seed)
    by_kind: dict[Hashable, dict[Hashable, list[int]]] = {}
    for i, group in enumerate(groups):
        by_kind.setdefault(None if kinds is None else kinds[i], {}).setdefault(group, []).append(i)
    noisy: list[int] = []
    clean: list[int] = []
    for members in by_kind.values():
        shuffled = [[members_[i] for i in generator.permutation(len(members_))] for members_ in members.values()]
        shuffled = [shuffled[i] for i in generator.permutation(len(shuffled))]
        largest = max(range(len(shuffled)), key=lambda i: len(shuffled[i]))
        others = sum(map(len, shuffled)) - len(shuffled[largest])
        shuffled[largest] = shuffled[largest][:others]
        # Groups lie in a row, none longer than half of it: a step of the longest one's length leaves every group.
        row = [i for group_ in shuffled for i in group_]
        step = max(map(len, shuffled), default=0)
        noisy += row
        clean += row[step:] + row[:step]
    if not noisy:
        raise ValueError(
            f"no unrelated pairs: {len(groups)} images are of one group (or no two of different groups have one size); add"
            " images of other groups."
        )
    kept = np.sort(generator.permutation(len(noisy))[:limit])
    return np.array(noisy, dtype=np.int64)[kept], np.array(clean, dtype=np.int64)[kept]


def plain(names: Sequence[Hashable]) -> list[Hashable]:
    """Names as Python values: elements of a tensor are never equal, so each would be a group of its own.

    Raises:
        ValueError: if one is missing (NaN or None).
    """
    values: list[Hashable] = names.tolist() if hasattr(names, "tolist") else list(names)
    values = [value.tolist() if hasattr(value, "tolist") else value for value in values]
    missing = [i for i, value in enumerate(values) if value is None or value != value]
    if missing:
        raise ValueError(
            f"{len(missing)} images have no id or group (NaN or None), such as number {missing[0]}: give each one."
        )
    return values


@dataclass(frozen=True)
class Strongest:
    """The strongest attacker of every image.

    Args:
        percentile: ``(n,)``: its percentile among unrelated pairs, cut to what so many can tell: within ``1/m`` of 0 and 1;
            NaN for images without a score.
        winner: ``(n,)``: the attacker's name; empty for images without a score.
        p_value: ``(n,)``: how probable it is that the strongest attacker reads so much out of an unrelated pair, at least
            ``1 / (m + 1)``; NaN for images without a score.
        level: ``(n,)``: the maximum over attackers on the common scale itself, as :attr:`NullDistribution.maxima`; NaN for
            images without a score.
    """

    percentile: Floats
    winner: NDArray[np.str_]
    p_value: Floats
    level: Floats

    @property
    def scored(self) -> NDArray[np.bool_]:
        """``(n,)``: which images have a score of every attacker."""
        return ~np.isnan(self.p_value)

    def success(self, rate: float) -> NDArray[np.bool_]:
        """``(n,)``: who is read at a false-positive rate; False for images without a score, which says nothing about them.

        A success rate is that among :attr:`scored` images. Use :meth:`NullDistribution.check_rate` first: without enough
        unrelated pairs nobody succeeds.
        """
        return self.p_value <= rate * (1 + 1e-12)


class NullDistribution:
    """Scores of unrelated pairs, and the scale on which attackers compare.

    An attacker's score is mapped to its mid-rank percentile among the scores which the same attacker reaches on unrelated
    pairs; the strongest attacker of an image is the one with the largest percentile. How often the maximum over all
    attackers is as large for unrelated pairs is counted on the pairs themselves: each is measured against all others and the
    image, just as the image is measured against all pairs. An unrelated image that is exchangeable with the pairs therefore
    succeeds with at most the false-positive rate, whatever the number of attackers, their correlations and their ties.

    Args:
        scores: attacker -> its score of every unrelated pair. A pair for which any attacker has no score is left out.

    Raises:
        ValueError: for no attackers, different lengths, or fewer than two complete pairs.

    Example:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> null = NullDistribution({"blur": generator.random(999) / 2, "edges": generator.random(999) / 4})
        >>> images = {"blur": np.array([0.2, 0.3]), "edges": np.array([0.9, 0.01])}
        >>> found = null.strongest(images)
        >>> found.winner.tolist(), found.percentile.round(2).tolist()
        (['edges', 'blur'], [1.0, 0.58])
        >>> found.p_value.round(3).tolist()
        [0.001, 0.669]
        >>> found.success(0.01).tolist()
        [True, False]
    """

    def __init__(self, scores: Scores) -> None:
        table = _table(scores)
        complete = ~np.isnan(table).any(axis=0)
        self.names = tuple(scores)
        self.skipped = int((~complete).sum())
        """Number of unrelated pairs that were left out."""
        self._scores = table[:, complete]
        self.count = self._scores.shape[1]
        """Number of unrelated pairs."""
        if self.count < 2:
            raise ValueError(f"at least 2 unrelated pairs with a score of every attacker are needed, got {self.count}.")
        self._sorted = np.sort(self._scores, axis=1)
        pairs = [
            np.searchsorted(*row, side=side)
            for side in ("left", "right")
            for row in zip(self._sorted, self._scores, strict=True)
        ]
        below, up_to = np.array(pairs, dtype=np.float64).reshape(2, *self._scores.shape)
        self._ranks = (below + up_to - 1) / 2  # mid-ranks among the other pairs
        self._largest = self._scores.argmax(axis=1)

    def check_rate(self, rate: float) -> None:
        """Raise a ``ValueError`` unless there are ``1 / rate - 1`` unrelated pairs, as a false-positive rate needs."""
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie between 0 and 1, got {rate!r}.")
        needed = int(np.ceil(1 / rate - 1e-9)) - 1
        if self.count < needed:
            raise ValueError(
                f"a false-positive rate of {rate:g} needs at least {needed} unrelated pairs, got {self.count}: evaluate more"
                " images, or ask for a larger rate."
            )

    def strongest(self, scores: Scores) -> Strongest:
        """The strongest attacker of every image.

        Args:
            scores: attacker -> the score of every image, for the attackers of this distribution. An image for which any of
                them has no score gets none.

        Raises:
            ValueError: if the attackers are not those of the unrelated pairs: the maximum over others has another
                distribution.
        """
        if set(scores) != set(self.names):
            different = sorted(set(scores) ^ set(self.names))
            raise ValueError(
                "the attackers must be those of the unrelated pairs, as the maximum over more of them is larger by chance;"
                f" different: {', '.join(different)}."
            )
        table = _table({name: scores[name] for name in self.names})
        images = table.shape[1]
        largest, p_values = np.full(images, np.nan), np.full(images, np.nan)
        winners = np.full(images, "", dtype=np.array(self.names).dtype)
        for i in np.flatnonzero(~np.isnan(table).any(axis=0)):
            values = self._scale(table[:, i])
            winner = values.argmax()
            largest[i], winners[i] = values[winner], self.names[winner]
            p_values[i] = (1 + np.count_nonzero(self._maxima_beside(table[:, i]) >= values[winner])) / (self.count + 1)
        finest = 1 / self.count
        return Strongest(np.clip(largest, finest, 1 - finest), winners, p_values, largest)

    def realised(self, rate: float) -> float:
        """The share of unrelated pairs that succeed at a false-positive rate, each measured against the others."""
        self.check_rate(rate)
        maxima = np.sort(self.maxima)
        as_large = self.count - np.searchsorted(maxima, maxima, side="left")
        return float(np.mean(as_large / self.count <= rate * (1 + 1e-12)))

    @cached_property
    def maxima(self) -> Floats:
        """``(m,)``: the maximum over attackers of every unrelated pair, measured against the others, on the common scale.

        That is the percentile up to 1; beyond every other pair it is 1 plus the share of the way to a score of 1.
        """
        values = np.empty_like(self._scores)
        for k, (ranks, ordered) in enumerate(zip(self._ranks, self._sorted, strict=True)):
            values[k] = ranks / (self.count - 1)
            if ordered[-1] > ordered[-2]:
                values[k, self._largest[k]] = 1 + _excess(ordered[-1], ordered[-2])
        maxima: Floats = values.max(axis=0)
        return maxima

    def maximum_threshold(self, rate: float) -> float:
        """The level of the strongest attacker above which at most ``rate`` of the unrelated pairs lie.

        For pictures of the distribution: whether an image succeeds is decided by its own chance (:class:`Strongest`), for
        which the unrelated pairs are measured against it too.

        Raises:
            ValueError: if there are too few unrelated pairs for the rate.
        """
        self.check_rate(rate)
        return float(np.sort(self.maxima)[self.count - 1 - int(rate * (1 + 1e-12) * self.count)])

    def threshold(self, name: str, rate: float) -> float:
        """The score above which one attacker alone succeeds at a false-positive rate.

        Raises:
            ValueError: if there are too few unrelated pairs for the rate, or no such attacker.
        """
        self.check_rate(rate)
        allowed = int(rate * (1 + 1e-12) * (self.count + 1))
        return float(self._sorted[self._row(name), self.count - allowed])

    def success(self, name: str, scores: Floats, rate: float) -> NDArray[np.bool_]:
        """``(n,)``: whose picture one attacker alone reads at a false-positive rate; False for images without a score.

        Raises:
            ValueError: if there are too few unrelated pairs for the rate, or no such attacker.
        """
        self.check_rate(rate)
        ordered = self._sorted[self._row(name)]
        as_large = self.count - np.searchsorted(ordered, scores, side="left")
        succeeds: NDArray[np.bool_] = (1 + as_large) / (self.count + 1) <= rate * (1 + 1e-12)
        return succeeds & ~np.isnan(scores)

    def _scale(self, image: Floats) -> Floats:
        """An image's score for every attacker on the common scale: percentile, or 1 plus the share of the way to 1."""
        values = np.empty(len(image))
        for k, (ordered, score) in enumerate(zip(self._sorted, image, strict=True)):
            below, up_to = (np.searchsorted(ordered, score, side=side) for side in ("left", "right"))
            values[k] = 1 + _excess(score, ordered[-1]) if below == self.count else (below + up_to) / (2 * self.count)
        return values

    def _maxima_beside(self, image: Floats) -> Floats:
        """The maximum on the common scale of every unrelated pair, measured against the other pairs and an image."""
        scores = image[:, None]
        values = (self._ranks + (scores < self._scores) + 0.5 * (scores == self._scores)) / self.count
        for k, at in enumerate(self._largest):
            largest, next_to_it = self._sorted[k, -1], max(self._sorted[k, -2], image[k])
            if largest > next_to_it:
                values[k, at] = 1 + _excess(largest, next_to_it)
        maxima: Floats = values.max(axis=0)
        return maxima

    def mean(self, name: str) -> float:
        """The mean score of an attacker on unrelated pairs: what its number is where nothing leaks."""
        return float(self._scores[self._row(name)].mean())

    def _row(self, name: str) -> int:
        if name not in self.names:
            raise ValueError(f"attacker must be one of {', '.join(map(repr, self.names))}, got {name!r}.")
        return self.names.index(name)


def _excess(score: float, largest: float) -> float:
    """The share of the way from the largest other score to 1."""
    return min((score - largest) / (1 - largest), 1.0) if largest < 1 else 0.0


def _table(scores: Scores) -> Floats:
    if not scores:
        raise ValueError("there are no attackers: pass at least one column of scores.")
    table = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    for name, values in table.items():
        if values.ndim != 1:
            raise ValueError(f"scores must have shape (n,), got {values.shape} for {name!r}.")
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"every attacker must have one score per image, got lengths {lengths}.")
    return np.stack(list(table.values()))
