"""The best tone curve of a picture, and the best table of values: no matter in which order they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacker_metrics._settings import whole
from attacker_metrics.attackers.filters import Equalize
from attacker_metrics.scoring.oracles.oracle import Sight

_CELLS = 4
_DOUBT = 2.0
"""Pixels of mean value that every level is mixed with."""


@dataclass(frozen=True)
class ToneTable:
    """Replaces every level of every channel by what the clean picture mostly has there, whatever the order of the levels.

    That undoes a tone curve, a posterisation, a negative, a table of bytes, an exclusive or with one byte, a number added
    modulo 1, swapped or reversed bits. So that the table does not learn the clean picture by heart, it is filled in on the
    white squares of a 4 x 4 chessboard and read on the black ones, and the other way round. Channels count by the square of
    their correlation with the clean picture, where that is positive.

    Args:
        levels: number of levels per channel, >= 2, between its least and its greatest value.
        by_rank: whether as many pixels have one level as the other, which outliers do not spoil; bytes are then not kept
            apart.

    Source:
        Roche, Malandain, Pennec and Ayache: The correlation ratio as a new similarity measure for multimodal image
        registration, MICCAI 1998: the score by squared Pearson is theirs, cross-validated.

    Example:
        >>> clean = torch.arange(4096.0).view(1, 1, 64, 64).remainder(61) / 61
        >>> noisy = (clean * 60).remainder(7) / 7 + (clean > 0.5)  # no curve
        >>> found = ToneTable()(noisy, clean)
        >>> bool((found.noisy - clean).abs().mean() < 0.1)
        True
    """

    levels: int = 256
    by_rank: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", whole("levels", self.levels, 2))

    def __call__(self, noisy: Tensor, clean: Tensor) -> Sight:
        """Repaint views ``(B, C, H, W)`` after the clean ones ``(B, 1, H, W)``; one channel comes out."""
        batch, channels, height, width = noisy.shape
        level = self._levels(noisy.reshape(-1, 1, height, width)).view(batch, channels, -1)
        target = clean.flatten(1)
        mean = target.mean(dim=1, keepdim=True)
        target = target - mean
        squares = _chessboard(height, width, noisy.device).flatten()
        # Each entry has a place for either colour of the chessboard, and is read from the place of the other.
        at = (level + self.levels * squares).flatten(0, 1)
        table = target.new_zeros(batch * channels, 2 * self.levels)
        counts = torch.zeros_like(table).scatter_add_(1, at, torch.ones_like(target).repeat_interleave(channels, dim=0))
        table.scatter_add_(1, at, target.repeat_interleave(channels, dim=0)).div_(counts + _DOUBT)
        seen = table.gather(1, (level + self.levels * (1 - squares)).flatten(0, 1)).view(batch, channels, -1)
        agreement = _correlation(seen, target[:, None]).clamp(min=0)
        weights = agreement.square()
        picture = (seen * weights[:, :, None]).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)
        return Sight((picture + mean).view_as(clean), clean, agreement.amax(dim=1) > 0)

    def _levels(self, x: Tensor) -> Tensor:
        if self.by_rank:
            share = Equalize()(x)
        else:
            low, high = x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
            share = (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)
        return (share * self.levels).long().clamp(0, self.levels - 1)


def _chessboard(height: int, width: int, device: torch.device) -> Tensor:
    """0 or 1 for every pixel, ``(H, W)``."""
    down, across = (torch.arange(n, device=device) * _CELLS // n for n in (height, width))
    return (down[:, None] + across) % 2


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    """Over the last dimension; 0 where one of both is flat."""
    x, y = x - x.mean(dim=-1, keepdim=True), y - y.mean(dim=-1, keepdim=True)
    power = (x * x).mean(dim=-1) * (y * y).mean(dim=-1)
    return torch.where(power > 1e-14, (x * y).mean(dim=-1) * power.clamp(min=1e-14).rsqrt(), 0.0)
