"""Which unrelated originals every sent picture is compared with."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from attacker_metrics._names import COMPARISONS_OF_SUITE, ORIGINALS_PER_PICTURE

PER_PICTURE = ORIGINALS_PER_PICTURE
"""Unrelated originals of every sent picture."""
FEWEST = 3
"""With fewer a picture has no null of its own."""
_DRAWN = 2048
"""Originals among which those of different groups are looked for."""
MOST_COMPARISONS = COMPARISONS_OF_SUITE
"""By default: enough for a thousand pictures."""


def unrelated_originals(
    groups: Sequence[Hashable],
    *,
    kinds: Sequence[Hashable] | None = None,
    seed: int = 0,
    per_picture: int = PER_PICTURE,
    originals: Sequence[Hashable] | None = None,
    limit: int = MOST_COMPARISONS,
) -> NDArray[np.int64]:
    """Choose for every picture some originals of other groups, at random, the same for all attackers.

    They are of as many different groups as there are: a picture's own original is the only one of its group, too.

    Args:
        groups: the group of every picture, such as the person or the source photograph; the ids, if each is its own.
        kinds: what must agree with the original, such as the size; by default nothing.
        seed: the same seed and groups give the same originals.
        per_picture: how many for each picture, as far as there are so many.
        originals: what tells the original of a picture from others, such as its file; an original is no other picture's
            unrelated one where both have it, whatever their groups, and none is chosen twice for one picture. By default
            every picture has an original of its own.
        limit: the largest number of comparisons; if there are more pictures than ``limit / per_picture``, a random choice of
            that many has originals, the last of them what is left, and the others none.

    Returns:
        ``(n, per_picture)`` positions of pictures whose originals are taken; -1 where there are too few.

    Raises:
        ValueError: if a group is missing (NaN), or the lengths differ.

    Example:
        >>> chosen = unrelated_originals(["a", "a", "b", "c"], per_picture=2)
        >>> sorted(chosen[0].tolist()), sorted(chosen[2].tolist())[0] in (0, 1)
        ([2, 3], True)
    """
    for name, given in (("kinds", kinds), ("originals", originals)):
        if given is not None and len(given) != len(groups):
            raise ValueError(f"{name} must have one entry per picture, got {len(given)} for {len(groups)} pictures.")
    for name, number in (("per_picture", per_picture), ("limit", limit)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}.")
    names = plain(groups)
    kind_of = [None] * len(names) if kinds is None else plain(kinds)
    related = names if originals is None else _joined(names, plain(originals))
    first: dict[tuple[Hashable, Hashable], int] = {}
    keys: list[Hashable] = list(range(len(names))) if originals is None else plain(originals)
    by_kind: dict[Hashable, dict[Hashable, list[int]]] = {}
    for i, (kind, group) in enumerate(zip(kind_of, related, strict=True)):
        members = by_kind.setdefault(kind, {}).setdefault(group, [])
        if first.setdefault((kind, keys[i]), i) == i:  # an original counts once
            members.append(i)
    chosen = np.full((len(names), per_picture), -1, dtype=np.int64)
    rows = {kind: np.array([i for members in found.values() for i in members]) for kind, found in by_kind.items()}
    ends: dict[tuple[Hashable, Hashable], int] = {}
    for kind, found in by_kind.items():
        for group, end in zip(found, np.cumsum([len(members) for members in found.values()]).tolist(), strict=True):
            ends[kind, group] = end
    labels = numbered(related)
    left = limit
    for i in chosen_pictures(len(names), -(-limit // per_picture), seed):
        kind, group = kind_of[i], related[i]
        # Originals of a group lie side by side in a ring: those behind them are the others.
        row = rows[kind]
        others = len(row) - len(by_kind[kind][group])
        count = min(per_picture, others, left)
        left -= count
        if count:
            steps = np.random.default_rng([seed, i]).choice(others, size=min(others, _DRAWN), replace=False)
            drawn = row[(ends[kind, group] + steps) % len(row)]
            chosen[i, :count] = drawn[np.argsort(_occurrence(labels[drawn]), kind="stable")[:count]]
    return chosen


def _occurrence(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each value has come before."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    before = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    found = np.empty_like(before)
    found[order] = before
    return found


def chosen_pictures(total: int, most: int, seed: int) -> list[int]:
    """Positions, in ascending order, of at most so many of all pictures, at random."""
    return sorted(np.random.default_rng(seed).permutation(total)[:most].tolist())


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


def numbered(groups: Sequence[Hashable]) -> NDArray[np.int64]:
    """The number of every picture's group, from 0 in the order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)


def _joined(groups: Sequence[Hashable], originals: Sequence[Hashable]) -> list[Hashable]:
    """Groups that share an original are one: the smallest position of a picture of it, per picture."""
    parent = list(range(len(groups)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for names in (groups, originals):
        seen: dict[Hashable, int] = {}
        for i, name in enumerate(names):
            one, other = root(seen.setdefault(name, i)), root(i)
            parent[max(one, other)] = min(one, other)
    return [root(i) for i in range(len(groups))]
