"""What an annotator sees in which order: every item, balanced over annotators, with hidden repeats and catch trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from attacker_metrics.annotation.tasks import Item, TaskName

Kind = Literal["main", "repeat", "catch"]
BLOCK = 4
"""So many annotators see each item once in every quarter of the session."""

_SMALLEST_GAP = 2
"""Whoever sees a catch trial may still undo the answer before it, so the item it gives away lies further back."""
_LARGEST_GAP = 20


@dataclass(frozen=True)
class PlannedTrial:
    """One showing.

    Args:
        kind: ``"main"`` goes into the annotation table; ``"repeat"`` shows an item again; ``"catch"`` shows, in a category
            task, the original in the place of the reconstruction, in a pair task, the original of another item.
        item: position in the manifest, from 0.
        partner: of a pair task's catch trial: the item whose original is shown; otherwise None.
    """

    kind: Kind
    item: int
    partner: int | None = None


def main_order(count: int, annotator: int, seed: int = 0) -> list[int]:
    """A permutation of ``range(count)`` for the annotator with this number, from 0.

    Four annotators share one random permutation: as it is, backwards, with its halves swapped, and that backwards. So each
    item comes once in every quarter (up to rounding), its mean place is the same for all items after every second
    annotator, and neighbours change sides. The next four have another permutation.

    Example:
        >>> [main_order(4, annotator) for annotator in range(4)]
        [[2, 0, 1, 3], [3, 1, 0, 2], [1, 3, 2, 0], [0, 2, 3, 1]]
    """
    order: list[int] = np.random.default_rng([seed, annotator // BLOCK]).permutation(count).tolist()
    member = annotator % BLOCK
    if member >= 2:
        order = order[count // 2 :] + order[: count // 2]
    return order[::-1] if member % 2 else order


def plan(
    items: Sequence[Item], task: TaskName, annotator: int, *, repeats: float, catch: float, seed: int = 0
) -> list[PlannedTrial]:
    """All trials of one annotator, in order.

    A repeat lies at least a third of the items (at most 20, at least 2) behind the first showing. A category task's catch
    trial shows an original as far behind the last of its reconstructions, because it gives the answer away. A pair task's
    lies as far from the right pair where it can.

    Args:
        items: of the manifest.
        task: category or pair.
        annotator: number, from 0.
        repeats: as a share of the items; rounded up.
        catch: likewise; fewer where too few originals are free.
        seed: the study's.
    """
    count = len(items)
    order = main_order(count, annotator, seed)
    gap = max(_SMALLEST_GAP, min(_LARGEST_GAP, count // 3))
    rng = np.random.default_rng([seed, annotator, 1])
    repeated = _repeats(order, math.ceil(repeats * count), gap, rng)
    wanted = math.ceil(catch * count)
    if task == "category":
        checks = _originals(items, order, repeated, wanted, gap, rng)
    else:
        checks = _mismatches(items, order, wanted, gap, rng)
    # A slot is the main trial that an inserted one comes before.
    inserted = [(slot, PlannedTrial("repeat", item)) for slot, item in repeated] + checks
    placed = [(float(place), PlannedTrial("main", item)) for place, item in enumerate(order)]
    placed += [(slot - rng.uniform(0.25, 0.75), trial) for slot, trial in inserted]
    return [trial for _, trial in sorted(placed, key=lambda entry: entry[0])]


def _slots(wanted: int, first: int, last: int, rng: np.random.Generator) -> list[int]:
    return sorted(rng.integers(first, last + 1, wanted).tolist()) if first <= last else []


def _repeats(order: list[int], wanted: int, gap: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    repeated: dict[int, int] = {}
    for slot in _slots(wanted, gap, len(order), rng):
        free = [item for item in order[: slot - gap + 1] if item not in repeated]
        if free:
            repeated[free[rng.integers(len(free))]] = slot
    return [(slot, item) for item, slot in repeated.items()]


def _originals(
    items: Sequence[Item],
    order: list[int],
    repeated: list[tuple[int, int]],
    wanted: int,
    gap: int,
    rng: np.random.Generator,
) -> list[tuple[int, PlannedTrial]]:
    seen_last: dict[str, tuple[int, int]] = {}  # original -> where it is in use last, an item of it
    for place, item in sorted([*enumerate(order), *repeated]):
        seen_last[items[item].source] = (place, item)
    chosen = []
    for slot in _slots(wanted, gap, len(order), rng):
        free = [source for source, (place, _) in seen_last.items() if place + gap <= slot]
        if not free:
            slot = min((place + gap for place, _ in seen_last.values()), default=len(order) + 1)
            free = [source for source, (place, _) in seen_last.items() if place + gap <= slot]
            if slot > len(order):
                break
        _, item = seen_last.pop(free[rng.integers(len(free))])
        chosen.append((slot, PlannedTrial("catch", item)))
    return chosen


def _mismatches(
    items: Sequence[Item], order: list[int], wanted: int, gap: int, rng: np.random.Generator
) -> list[tuple[int, PlannedTrial]]:
    place = {item: position for position, item in enumerate(order)}
    sources, datasets, categories = (
        np.unique([getattr(item, name) for item in items], return_inverse=True)[1]
        for name in ("source", "dataset", "category")
    )
    chosen = []
    left = rng.permutation(len(order)).tolist()
    for slot in _slots(min(wanted, len(order)), 0, len(order), rng):
        item = left.pop(next((k for k, item in enumerate(left) if abs(place[item] - slot) >= gap), 0))
        # The partner is of another original: of the same data set and another class if there are any.
        others = sources != sources[item]
        alike = others & (datasets == datasets[item])
        unlike = alike & (categories != categories[item])
        partners = next((np.flatnonzero(which) for which in (unlike, alike, others) if which.any()), None)
        if partners is not None:
            chosen.append((slot, PlannedTrial("catch", item, int(rng.choice(partners)))))
    return chosen
