"""Scores of unrelated pairs: the scale that they give to attackers, and thresholds of the maximum on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = Mapping[str, Floats]
"""Attacker's name -> the score of every image, float64; NaN for an image that could not be scored."""

MOST_PAIRS = 10_000
TIE_RULE = (
    "an image counts only strictly above the threshold; equal scores share their mid-rank; beyond every unrelated pair"
    " images are ordered by the share of the way from the largest score of an unrelated pair to 1; of equal attackers the"
    " first wins"
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
        ValueError: if no two images have different groups and one kind, or the lengths differ.

    Example:
        >>> noisy, clean = unrelated_pairs(["a", "a", "b", "c"])
        >>> len(noisy), any((noisy == clean).tolist())
        (4, False)
    """
    if kinds is not None and len(kinds) != len(groups):
        raise ValueError(f"kinds must have one entry per image, got {len(kinds)} for {len(groups)} images.")
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit!r}.")
    generator = np.random.default_rng(seed)
    by_kind: dict[Hashable, dict[Hashable, list[int]]] = {}
    for i, group in enumerate(groups):
        by_kind.setdefault(kinds[i] if kinds else None, {}).setdefault(group, []).append(i)
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


@dataclass(frozen=True)
class Threshold:
    """Where success begins.

    Args:
        rate: the false-positive rate asked for.
        value: an image counts if its value is strictly larger.
        realised: the share of unrelated pairs above the threshold.
        pairs: the number of unrelated pairs.
        tie_rule: what happens to equal scores.
    """

    rate: float
    value: float
    realised: float
    pairs: int
    tie_rule: str = TIE_RULE


@dataclass(frozen=True)
class Strongest:
    """The strongest attacker of every image.

    Args:
        scale: ``(n,)``: its percentile in [0, 1]; beyond every unrelated pair, 1 plus the share of the way from the largest
            score of an unrelated pair to 1, so in (1, 2]. NaN for images without a score.
        percentile: ``(n,)``: the same, cut to what so many unrelated pairs can tell: within ``1/m`` of 0 and 1.
        winner: ``(n,)``: the attacker's name; empty for images without a score.
    """

    scale: Floats
    percentile: Floats
    winner: NDArray[np.str_]

    def success(self, threshold: Threshold) -> NDArray[np.bool_]:
        """``(n,)``: whether an image is above the threshold; False for images without a score."""
        return self.scale > threshold.value


class NullDistribution:
    """Scores of unrelated pairs, and the scale on which attackers compare.

    An attacker's score is mapped to its mid-rank percentile among the scores which the same attacker reaches on unrelated
    pairs; the strongest attacker of an image is the one with the largest percentile. The thresholds for this maximum come
    from the maxima of the unrelated pairs themselves, each measured against the others.

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
        >>> found.success(null.threshold(0.01)).tolist()
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

    @cached_property
    def maxima(self) -> Floats:
        """``(m,)``: the strongest attacker's value on every unrelated pair, measured against the other pairs."""
        others = self.count - 1
        values = np.empty_like(self._scores)
        for row, (ordered, scores) in enumerate(zip(self._sorted, self._scores, strict=True)):
            below, up_to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
            percentile = (below + (up_to - 1)) / (2 * others)
            is_largest_alone = below == others
            values[row] = np.where(is_largest_alone, 1 + _excess(scores, ordered[-2]), percentile)
        largest: Floats = values.max(axis=0)
        return largest

    def scale(self, name: str, scores: Floats) -> Floats:
        """One attacker's scores on the common scale; see :class:`Strongest`."""
        ordered = self._sorted[self.names.index(name)]
        below, up_to = (np.searchsorted(ordered, scores, side=side) for side in ("left", "right"))
        values = np.where(scores > ordered[-1], 1 + _excess(scores, ordered[-1]), (below + up_to) / (2 * self.count))
        return np.where(np.isnan(scores), np.nan, values)

    def strongest(self, scores: Scores) -> Strongest:
        """The strongest attacker of every image.

        Args:
            scores: attacker -> the score of every image, for the attackers of this distribution. An image for which any
                of them has no score gets none.

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
        values = np.stack([self.scale(name, row) for name, row in zip(self.names, table, strict=True)])
        complete = ~np.isnan(values).any(axis=0)
        winners = np.where(complete, np.array(self.names)[np.where(complete, values, 0.0).argmax(axis=0)], "")
        largest = np.where(complete, values.max(axis=0), np.nan)
        finest = 1 / self.count
        return Strongest(largest, np.clip(largest, finest, 1 - finest), winners)

    def threshold(self, rate: float, *, attacker: str | None = None) -> Threshold:
        """Where a false-positive rate begins: for the maximum over attackers, or for one attacker's own score.

        The threshold is the smallest value of an unrelated pair for which ``(pairs above it + 1) / (m + 1)`` is at most
        ``rate``: an unrelated image that is exchangeable with the pairs is above it with at most that probability.

        Args:
            rate: the false-positive rate, in (0, 1).
            attacker: whose score the threshold is for; by default it is for :attr:`Strongest.scale`.

        Raises:
            ValueError: if there are too few unrelated pairs for the rate, fewer than ``1 / rate - 1``.
        """
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie between 0 and 1, got {rate!r}.")
        allowed = int(np.floor(rate * (self.count + 1) + 1e-9)) - 1
        if allowed < 0:
            raise ValueError(
                f"a false-positive rate of {rate:g} needs at least {int(np.ceil(1 / rate - 1e-9)) - 1} unrelated pairs, got"
                f" {self.count}: evaluate more images, or ask for a larger rate."
            )
        values = self.maxima if attacker is None else self._scores[self.names.index(attacker)]
        value = float(np.sort(values)[self.count - 1 - allowed])
        return Threshold(rate, value, float((values > value).mean()), self.count)

    def mean(self, name: str) -> float:
        """The mean score of an attacker on unrelated pairs: what its number is where nothing leaks."""
        return float(self._scores[self.names.index(name)].mean())


def _excess(scores: Floats, largest: float) -> Floats:
    """The share of the way from the largest score of an unrelated pair to 1."""
    if largest >= 1:
        return np.zeros_like(scores)
    return np.clip((scores - largest) / (1 - largest), 0.0, 1.0)


def _table(scores: Scores) -> Floats:
    if not scores:
        raise ValueError("there are no attackers: pass at least one column of scores.")
    lengths = {name: len(values) for name, values in scores.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"every attacker must have one score per image, got lengths {lengths}.")
    return np.stack([np.asarray(values, dtype=np.float64) for values in scores.values()])
