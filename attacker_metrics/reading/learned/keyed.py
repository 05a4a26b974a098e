"""An attacker that learns a fixed key from pairs: where values went, and what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from attacker_metrics.reading.learned.blocks import Grid, likely_grids, matched_blocks
from attacker_metrics.reading.learned.chains import CHAINS
from attacker_metrics.reading.learned.counts import looked_up, tables_by_counts
from attacker_metrics.reading.learned.finishes import FINISHES
from attacker_metrics.reading.learned.places import FEATURES, matched
from attacker_metrics.reading.learned.sample import SampledAttacker, numbered
from attacker_metrics.reading.learned.value_keys import VALUE_KEYS, Key

_TRIED = 4096
"""Places at which the combinations are compared; the best is then fitted at all."""
_GRIDS = 3
"""Sizes of blocks that are tried, of those that are likely."""
_JUDGED = 24
"""Held-out pictures by which smoothing is judged."""
_STAYED, _PIXELS, _PLAIN = "stayed", "pixels", "gain and offset"
_OF_CHAINS = tuple(kind for kind in VALUE_KEYS if kind.startswith("pad"))
_UNDONE = 0.05
"""Share of the clean pictures' variance that may be left for a key to count as found, so that no other is looked for."""
_UNFINISHED = 1e-3
"""Share that has to be left for a finish to be looked for."""
_WORTH_MATCHING, _SIMPLER = 0.01, 1e-3
"""What share of the variance a key has to explain at all, and by how much to beat one that is named before it."""


class KeyedAttacker(SampledAttacker):
    """Undo what one fixed key does to every picture: values moved about, and changed at each place.

    Two things are learned from pairs. Where values went: they stayed, or each pixel or each value of the clean pictures is
    matched with that of the noisy ones that follows it best over the pairs
    (:mod:`~attacker_metrics.reading.learned.places`); this undoes shuffled pixels, shuffled, turned, mirrored and negated
    blocks, channel orders, rotations and cat maps; or blocks, rows or columns are matched as wholes
    (:mod:`~attacker_metrics.reading.learned.blocks`), which noise disturbs less. What was done to them
    (:mod:`~attacker_metrics.reading.learned.value_keys`): a gain and offset of the place (fixed covers, weights, negation),
    a pad added modulo 1 or 256, a pad XORed, a table of values, common or of the place, the picture in the lowest bits; each
    value may have been combined with those before it (:mod:`~attacker_metrics.reading.learned.chains`). The combination that
    restores one half of the pairs best when learned from the other half wins, and is fitted on all. What it leaves open at a
    place is filled from the neighbours (:mod:`~attacker_metrics.reading.learned.finishes`) where that restores held-out
    pairs better.

    Pictures have one size. At most 256 pairs are kept, those whose hashed names come first; an unfinished fit holds them,
    pixels and all. A low score proves nothing where pairs were few, or the key is another one for each picture.

    Raises:
        ValueError: for pictures of several sizes, in ``fit_compute`` for fewer than 8 pairs, in the attack for another size.

    Example:
        >>> import torch
        >>> clean = torch.rand(40, 3, 8, 8)
        >>> order = torch.randperm(3 * 8 * 8)
        >>> noisy = 1 - clean.flatten(1)[:, order].view_as(clean)  # shuffled by one key, and negated
        >>> attacker = KeyedAttacker()
        >>> attacker.fit_update(noisy[:30], clean[:30])
        >>> attacker.fit_compute()
        >>> attacker.found
        ('values', 'gain and offset')
        >>> bool((attacker(noisy[30:]) - clean[30:]).abs().max() < 1e-3)
        True
    """

    source: Tensor
    _stored: ClassVar[tuple[str, ...]] = (
        "source",
        "table",
        *(f"{name}_{k}" for name in ("key", "finish") for k in range(8)),
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[str, ...] | None = None
        """By what places were matched ("stayed" if they were not), the kind of key, of
        :data:`~attacker_metrics.reading.learned.value_keys.VALUE_KEYS`, and the chain or table that is undone before, if
        any."""
        self.finish = ""
        """How what the key leaves open is restored, of :data:`~attacker_metrics.reading.learned.finishes.FINISHES`; "" if
        not."""

    def get_extra_state(self) -> dict[str, Any]:
        """Also what was found."""
        return {**super().get_extra_state(), "found": self.found, "finish": self.finish}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`get_extra_state` returned."""
        super().set_extra_state(state)
        self.found = None if state["found"] is None else tuple(state["found"])
        self.finish = state.get("finish", "")  # earlier releases had none

    def _learn(self, noisy: Tensor, clean: Tensor) -> dict[str, Tensor]:
        best, left = _best(noisy, clean)
        source = best.source(noisy, clean, slice(None))
        key = best.key(noisy, clean, source)
        self.finish, learned = _best_finish(noisy, clean, best, source) if _UNFINISHED < left < 1 else ("", ())
        self.found = (best.placement, best.kind, *([best.before] if best.before else []))
        table = {} if best.table is None else {"table": best.table}
        return {"source": source, **table, **numbered("key", key), **numbered("finish", learned)}

    def _restored(self, x: Tensor) -> Tensor:
        assert self.found is not None
        placement, kind, *before = self.found
        hypothesis = _Hypothesis(placement, kind, "".join(before), self._buffers.get("table"))
        view, trust = hypothesis.undone(x, self.source, self._numbered("key"))
        return FINISHES[self.finish].restored(view, trust, *self._numbered("finish")) if self.finish else view


@dataclass(frozen=True)
class _Hypothesis:
    """What may have been done.

    Args:
        placement: "stayed", "pixels" if the colours of one moved together, one of the features by which values are matched,
            or a grid of blocks in words.
        kind: of key.
        before: what has to be undone first: one of :data:`CHAINS`, or a table in words; empty if there is nothing.
        table: the table.
        grid: the blocks.
    """

    placement: str = _STAYED
    kind: str = _PLAIN
    before: str = ""
    table: Tensor | None = None
    grid: Grid | None = None

    def source(self, x: Tensor, y: Tensor, places: Tensor | slice) -> Tensor:
        """Where the values of some clean places are found in noisy pictures."""
        if self.grid is None and self.placement == _STAYED:
            return torch.arange(y[0].numel(), device=y.device)[places]
        x = self.prepared(x)
        if self.grid is not None:
            return matched_blocks(x, y, self.grid)[places]
        if self.placement == _PIXELS:
            pixels = matched(x.flatten(2).flatten(0, 1), y.flatten(2).flatten(0, 1), "values")
            count = len(pixels)
            return (torch.arange(3, device=y.device)[:, None] * count + pixels).flatten()[places]
        return matched(x.flatten(1), y.flatten(1)[:, places], self.placement)

    def prepared(self, x: Tensor) -> Tensor:
        """Noisy pictures of which what has to be undone first is undone."""
        if self.table is not None:
            return looked_up(x, self.table)
        return CHAINS[self.before](x) if self.before else x

    def moved(self, x: Tensor, source: Tensor) -> Tensor:
        """Noisy values at the places of the clean ones ``(n, P)``."""
        return self.prepared(x).flatten(1)[:, source]

    def key(self, x: Tensor, y: Tensor, source: Tensor) -> Key:
        """What was done to the values of all places."""
        channels = _channels(y[0].numel()).to(y.device)
        return VALUE_KEYS[self.kind].fit(self.moved(x, source), y.flatten(1), channels, self.chosen_among(x))

    def undone(self, x: Tensor, source: Tensor, key: Key) -> tuple[Tensor, Tensor]:
        """The view of noisy pictures ``(n, 3, H, W)``, and how far it is to be trusted."""
        moved, kind = self.moved(x, source), VALUE_KEYS[self.kind]
        view = kind.undo(moved, _channels(moved.shape[1]).to(x.device), *key)
        return view.view_as(x), kind.trust(moved, *key).reshape(x.shape)

    def chosen_among(self, x: Tensor) -> int:
        """Among how many places each was found."""
        return {_PIXELS: x[0, 0].numel(), _STAYED: 1}.get(self.placement, x[0].numel() if self.grid is None else 1)


def _best(x: Tensor, y: Tensor) -> tuple[_Hypothesis, float]:
    """What restores either half of the pairs best when learned from the other, at some places; and what that leaves."""
    places = torch.randperm(y[0].numel(), generator=torch.Generator().manual_seed(0))[:_TRIED].sort().values.to(y.device)
    best, least = _Hypothesis(), 1 - _WORTH_MATCHING
    for stage in _STAGES:
        for hypothesis, kinds in stage(x, y):
            for kind, left in _left(x, y, places, hypothesis, kinds):
                if left < least - _SIMPLER:
                    best, least = replace(hypothesis, kind=kind), left
        if least <= _UNDONE:
            break
    return best, 1.0 if least == 1 - _WORTH_MATCHING else least


def _left(
    x: Tensor, y: Tensor, places: Tensor, hypothesis: _Hypothesis, kinds: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """What share of the variance of held-out pictures each kind of key leaves, at some places."""
    prepared = hypothesis.prepared(x)
    channels, chosen_among = _channels(y[0].numel()).to(y.device)[places], hypothesis.chosen_among(x)
    folds = []
    for fitted, held_out in zip(_HALVES, _HALVES[::-1], strict=True):
        source = hypothesis.source(x[fitted], y[fitted], places)
        folds.append(
            [
                side.flatten(1)[:, where]
                for half in (fitted, held_out)
                for side, where in ((prepared[half], source), (y[half], places))
            ]
        )
    variance = min(  # of few pairs the mean of a place says less than the mean of its channel
        sum(float((guess(b) - d).double().square().sum()) for _, b, _, d in folds)
        for guess in (lambda b: b.mean(dim=0), lambda b: _means_of_channels(b, channels))
    )
    for kind in kinds:
        key_kind, error = VALUE_KEYS[kind], 0.0
        for a, b, c, d in folds:
            restored = key_kind.undo(c, channels, *key_kind.fit(a, b, channels, chosen_among)).clamp(0, 1)
            error += float((restored - d).double().square().sum())
        yield kind, error / max(variance, 1e-12)


def _best_finish(x: Tensor, y: Tensor, hypothesis: _Hypothesis, source: Tensor) -> tuple[str, tuple[Tensor, ...]]:
    """The finish that restores pictures best whose key was learned from others, and what it learns; "" if none does."""
    folds, error, variance = [], dict.fromkeys(("", *FINISHES), 0.0), 0.0
    for fitted, held_out in zip(_HALVES, _HALVES[::-1], strict=True):
        key = hypothesis.key(x[fitted], y[fitted], source)
        folds.append((*hypothesis.undone(x[held_out], source, key), y[held_out]))
    for (views, _, clean), (others, trust, theirs) in zip(folds, folds[::-1], strict=True):
        others, trust, theirs = others[:_JUDGED], trust[:_JUDGED], theirs[:_JUDGED]
        variance += float((theirs - clean.mean(dim=0)).square().sum(dtype=torch.float64))
        for name in list(error):
            view = others
            if name:
                finish = FINISHES[name]
                if not finish.suits(*y.shape[2:]):
                    del error[name]
                    continue
                view = finish.restored(others, trust, *finish.fit(views, clean))
            error[name] += float((view.clamp(0, 1) - theirs).square().sum(dtype=torch.float64))
    best = min(error, key=lambda name: error[name])
    if not best or error[best] >= error[""] - _SIMPLER * variance:
        return "", ()
    views, clean = (torch.cat([fold[part] for fold in folds]) for part in (0, 2))
    return best, FINISHES[best].fit(views, clean)


Stage = Callable[[Tensor, Tensor], Iterator[tuple[_Hypothesis, Sequence[str]]]]


def _stayed(_x: Tensor, _y: Tensor) -> Iterator[tuple[_Hypothesis, Sequence[str]]]:
    yield _Hypothesis(), tuple(VALUE_KEYS)


def _chained(_x: Tensor, _y: Tensor) -> Iterator[tuple[_Hypothesis, Sequence[str]]]:
    for chain in CHAINS:
        yield _Hypothesis(before=chain), _OF_CHAINS


def _placed(feature: str) -> Stage:
    def stage(_x: Tensor, _y: Tensor) -> Iterator[tuple[_Hypothesis, Sequence[str]]]:
        yield _Hypothesis(placement=feature), tuple(VALUE_KEYS)

    return stage


def _in_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[_Hypothesis, Sequence[str]]]:
    for grid in likely_grids(x, y, _GRIDS):
        yield _Hypothesis(placement=str(grid), grid=grid), tuple(VALUE_KEYS)


def _tabled(x: Tensor, y: Tensor) -> Iterator[tuple[_Hypothesis, Sequence[str]]]:
    for name, table in tables_by_counts(x, y):
        first = _Hypothesis(before=name, table=table)
        for placement in (_STAYED, _PIXELS, "values"):
            yield replace(first, placement=placement), (_PLAIN, "one table")
        for grid in likely_grids(first.prepared(x), y, _GRIDS):
            yield replace(first, placement=str(grid), grid=grid), (_PLAIN, "one table")


_STAGES: tuple[Stage, ...] = (_stayed, _chained, *map(_placed, (_PIXELS, *FEATURES)), _in_blocks, _tabled)
_HALVES = slice(0, None, 2), slice(1, None, 2)


def _means_of_channels(y: Tensor, channels: Tensor) -> Tensor:
    """``(P,)``, from values ``(n, P)`` at places of known channels."""
    sums = y.new_zeros(3).index_add(0, channels, y.mean(dim=0))
    return (sums / channels.bincount(minlength=3).clamp(min=1))[channels]


def _channels(values: int) -> Tensor:
    return torch.arange(3).repeat_interleave(values // 3)
