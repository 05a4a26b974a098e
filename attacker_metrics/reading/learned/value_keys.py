"""What was done to the values of every place under a fixed key: each kind of key is found from pairs and undone.

A kind has ``fit``, which returns tensors (the key) from noisy and clean values ``(n, P)`` at some places of known channels,
and ``undo``.
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


@dataclass(frozen=True)
class GainAndOffset:
    """``y = a x + b`` at every place, by least squares, shrunk towards the mean of y where that is no better than chance."""

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:  # noqa: ARG002
        """The gain, and the means of x and y, each ``(P,)``."""
        level, target = x.mean(dim=0), y.mean(dim=0)
        x, y = x - level, y - target
        power = x.square().mean(dim=0)
        product = (x * y).mean(dim=0)
        explained = product.square() / (power * y.square().mean(dim=0)).clamp(min=1e-20)
        chance = largest_by_chance(len(x), places)
        trust = ((explained - chance) / (1 - chance)).clamp(min=0) / explained.clamp(min=1e-12)
        return trust * product / power.clamp(min=1e-14), level, target

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """``gain (x - level) + target``."""
        gain, level, target = key
        return (x - level) * gain + target


@dataclass(frozen=True)
class AddedModulo:
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
class XORed:
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
class OneTable:
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
    """At every place each value was replaced by another one: a table per place, shrunk towards one table for all."""

    def fit(self, x: Tensor, y: Tensor, channel: Tensor, places: int) -> Key:
        """The mean clean value of every noisy one at every place ``(P, 256)``, in bytes, and the range of x."""
        table, low, high = OneTable().fit(x, y, channel, places)
        levels = OneTable()._levels(x, low, high)
        sums = table[channel]  # one observation of what holds everywhere
        counts = torch.ones_like(sums)
        index = torch.arange(x.shape[1], device=x.device) * _LEVELS
        for row, values in zip(levels, y, strict=True):
            sums.view(-1).index_add_(0, index + row, values)
            counts.view(-1).index_add_(0, index + row, torch.ones_like(values))
        return _bytes(sums / counts), low, high

    def undo(self, x: Tensor, channel: Tensor, *key: Tensor) -> Tensor:  # noqa: ARG002
        """Look every value up at its place."""
        table, low, high = key
        index = torch.arange(x.shape[1], device=x.device) * _LEVELS + OneTable()._levels(x, low, high)
        return table.flatten()[index].to(x.dtype) / 255


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
