"""What was done to the values of every place under a fixed key: each kind of key is found from pairs and undone.

A kind has ``fit``, which returns tensors (the key) from noisy and clean values ``(n, P)`` at some places of known channels,
``undo``, and ``trust``, which says which of the values that it makes can be relied on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacker_metrics.reading.learned.places import largest_by_chance

_LEVELS = 256
_CHANNELS = 3
_PLACES = 2**14
"""Places whose tables are made at once."""
Key = tuple[Tensor, ...]


class ValueKey(Protocol):
    """A kind of key."""

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:
        """The key that fits best.

        Args:
            x: noisy values ``(n, P)``, float32.
            y: clean values ``(n, P)``.
            channel: ``(P,)``, the channel of every clean value.
            places: among how many places each noisy one was chosen.
        """

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:
        """What the key makes of noisy values ``(B, P)``."""

    def trust(self, x: Tensor, *key: Tensor) -> Tensor:
        """How much of what :meth:`undo` returns is known rather than guessed, in [0, 1], ``(B, P)``."""


class _AllKnown:
    def trust(self, x: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """Everywhere alike."""
        return x.new_ones(()).expand_as(x)


@dataclass(frozen=True)
class GainAndOffset:
    """``y = a x + b`` at every place, by least squares, shrunk towards the mean of y where that is no better than chance."""

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:  # noqa: ARG002
        """The gain, the means of x and y, and the share of the variance of y that x explains, each ``(P,)``."""
        level, target = x.mean(dim=0), y.mean(dim=0)
        x, y = x - level, y - target
        power = x.square().mean(dim=0)
        product = (x * y).mean(dim=0)
        explained = product.square() / (power * y.square().mean(dim=0)).clamp(min=1e-20)
        chance = largest_by_chance(len(x), places)
        trust = ((explained - chance) / (1 - chance)).clamp(min=0) / explained.clamp(min=1e-12)
        return trust * product / power.clamp(min=1e-14), level, target, trust * explained

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """``gain (x - level) + target``."""
        gain, level, target = key[:3]
        return (x - level) * gain + target

    def trust(self, x: Tensor, *key: Tensor) -> Tensor:
        """Where the place explains much."""
        return key[3].to(x).expand_as(x) if len(key) > 3 else x.new_ones(()).expand_as(x)


@dataclass(frozen=True)
class AddedModulo(_AllKnown):
    """``x = p + y`` or ``x = p - y`` at every place, modulo a period: a pad that was added and wrapped.

    Args:
        period: 1 for values in [0, 1), 256/255 for bytes.
        sign: 1 or -1, of y.
    """

    period: float
    sign: int

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:  # noqa: ARG002
        """The pad ``(P,)``: the mean direction on the circle."""
        angle = (2 * math.pi / self.period) * (x - self.sign * y)
        return (torch.atan2(angle.sin().mean(dim=0), angle.cos().mean(dim=0)) * (self.period / (2 * math.pi)),)

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """Subtract the pad and wrap; what rounding pushed across the seam comes back."""
        slack = max((self.period - 1) / 2, 1e-4)
        return torch.remainder(self.sign * (x - key[0]) + slack, self.period) - slack


@dataclass(frozen=True)
class XORed(_AllKnown):
    """``x = p xor y`` at every place, in bytes."""

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:  # noqa: ARG002
        """The pad ``(P,)``, uint8: of every bit what most pairs say."""
        differing = _bytes(x) ^ _bytes(y)
        pad = torch.zeros(x.shape[1], dtype=torch.uint8, device=x.device)
        for bit in range(8):
            flipped = ((differing >> bit) & 1).sum(dim=0, dtype=torch.int64) * 2 > len(x)
            pad |= flipped.to(torch.uint8) << bit
        return (pad,)

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """XOR again."""
        return (_bytes(x) ^ key[0]).to(x.dtype) / 255


@dataclass(frozen=True)
class OneTable(_AllKnown):
    """Every value was replaced by another one, everywhere alike: a substitution table per channel, or what low bits say.

    Args:
        bits: how many of the lowest bits of a byte are looked at; 8 for all.
    """

    bits: int = 8

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:  # noqa: ARG002
        """The mean clean value of every noisy one ``(channels, 256)``, and the range of x."""
        low, high = x.amin().clamp(max=0), x.amax().clamp(min=1)
        levels = self._levels(x, low, high)
        sums, counts = (torch.zeros(_CHANNELS * _LEVELS, dtype=torch.float64, device=x.device) for _ in range(2))
        index = (channel * _LEVELS + levels).flatten()
        sums.index_add_(0, index, y.flatten().double())
        counts.index_add_(0, index, torch.ones_like(index, dtype=torch.float64))
        table = (sums + y.mean().double() * 1e-3) / (counts + 1e-3)
        return table.view(_CHANNELS, _LEVELS).float(), low, high

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:
        """Look every value up."""
        table, low, high = key
        return table.flatten()[channel * _LEVELS + self._levels(x, low, high)].to(x.dtype)

    def _levels(self, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        levels = ((x - low) / (high - low) * 255).round().clamp(0, 255).long()
        return levels & ((1 << self.bits) - 1)


@dataclass(frozen=True)
class TableOfPlace:
    """At every place each value was replaced by another one: a table per place.

    A value that was seen k times at a place counts ``k / (k + doubt)`` against what is guessed without the place's table: by
    one table for all places, or the mean of the place, whichever is closer. ``doubt`` is the variance among pairs that agree
    in place and value, over the variance of the others.
    """

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:
        """What every noisy value stands for ``(P, 256)`` in bytes, the range of x, how often it was seen, the doubt."""
        common, low, high = OneTable().fit(x, y, channel, places)
        levels = OneTable()._levels(x, low, high)
        cells = levels.T.contiguous()  # (P, n)
        by_table = (common[channel[None], levels] - y).square().sum()
        means = y.mean(dim=0)
        varied = (y - means).square().sum()
        table = torch.empty(x.shape[1], _LEVELS, dtype=torch.uint8, device=x.device)
        seen = torch.empty_like(table)
        within = freedom = 0.0
        parts = range(0, x.shape[1], _PLACES)
        for start in parts:
            counts, sums = self._counted(cells, y, start)
            known = counts > 0
            within += float(
                y[:, start : start + _PLACES].square().sum() - (sums.square() / counts.clamp(min=1))[known].sum()
            )
            freedom += y.shape[0] * len(counts) - int(known.sum())
        doubt = within / max(freedom, 1.0) / max(float(varied) / y.numel(), 1e-12)
        doubt = min(max(doubt, 1e-3), 1e3) if freedom else 1.0
        for start in parts:
            some = slice(start, start + _PLACES)
            counts, sums = self._counted(cells, y, start)
            guess = common[channel[some]] if by_table < varied else means[some, None]
            table[some] = _bytes((sums + doubt * guess) / (counts + doubt))
            seen[some] = counts.clamp(max=255).to(torch.uint8)
        return table, low, high, seen, y.new_tensor(doubt)

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """Look every value up at its place."""
        return self._looked_up(key[0], x, key).to(x.dtype) / 255

    def trust(self, x: Tensor, *key: Tensor) -> Tensor:
        """Where the value was seen."""
        if len(key) < 5:
            return x.new_ones(()).expand_as(x)
        seen = self._looked_up(key[3], x, key).to(x.dtype)
        return seen / (seen + key[4].to(x))

    @staticmethod
    def _looked_up(table: Tensor, x: Tensor, key: Key) -> Tensor:
        index = torch.arange(x.shape[1], device=x.device) * _LEVELS + OneTable()._levels(x, key[1], key[2])
        return table.flatten()[index]

    @staticmethod
    def _counted(cells: Tensor, y: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """How often every value was seen at some places, and the sums of what it stood for, ``(places, 256)`` each."""
        cells, values = cells[start : start + _PLACES], y[:, start : start + _PLACES].T
        counts, sums = (torch.zeros(len(cells), _LEVELS, device=y.device) for _ in range(2))
        return counts.scatter_add_(1, cells, torch.ones_like(values)), sums.scatter_add_(1, cells, values)


VALUE_KEYS: dict[str, ValueKey] = {
    "gain and offset": GainAndOffset(),
    "pad added modulo 1": AddedModulo(1.0, 1),
    "pad minus value, modulo 1": AddedModulo(1.0, -1),
    "pad added modulo 256": AddedModulo(256 / 255, 1),
    "pad minus value, modulo 256": AddedModulo(256 / 255, -1),
    "pad XORed": XORed(),
    "one table": OneTable(),
    "table of place": TableOfPlace(),
    **{f"lowest bits ({bits})": OneTable(bits) for bits in (1, 2, 3, 4)},
}
"""Name -> kind of key."""


def _bytes(values: Tensor) -> Tensor:
    return (values * 255).round().clamp(0, 255).to(torch.uint8)
