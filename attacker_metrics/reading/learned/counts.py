"""A substitution table found without knowing where values went: a value is as frequent as the one that it replaced."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attacker_metrics.reading.learned.places import standardised

_LEVELS = 256
_CONVINCING = 0.7
"""Squared correlation of frequencies over pairs, averaged over values, from which a table is worth trying."""


def tables_by_counts(noisy: Tensor, clean: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Tables of bytes that make noisy values as frequent in every picture as clean ones, if there are such.

    Args:
        noisy: ``(n, 3, H, W)``.
        clean: their originals.

    Yields:
        What it is called, and the table ``(3, 256)`` of clean values in [0, 1]: one of each channel, and one for all.
    """
    counts = [[_counted(plane) for plane in side.unbind(1)] for side in (noisy, clean)]
    by_channel = [_matched(a, b) for a, b in zip(*counts, strict=True)]
    whole = _matched(*(torch.stack(side).sum(dim=0) for side in counts))
    for name, found in (("tables of channels, by counts", by_channel), ("a table, by counts", [whole] * 3)):
        if all(explained >= _CONVINCING for _, explained in found):
            yield name, torch.stack([table for table, _ in found])


def looked_up(x: Tensor, table: Tensor) -> Tensor:
    """Pictures ``(n, 3, H, W)`` through a table ``(3, 256)``."""
    levels = _levels(x)
    return torch.stack([part[plane] for part, plane in zip(table.to(x), levels.unbind(1), strict=True)], dim=1)


def _levels(x: Tensor) -> Tensor:
    return (x * 255).round().clamp(0, 255).long()


def _counted(planes: Tensor) -> Tensor:
    """How often every value stands in each of ``(n, H, W)``: ``(n, 256)``."""
    index = torch.arange(len(planes), device=planes.device)[:, None] * _LEVELS + _levels(planes).flatten(1)
    return torch.bincount(index.flatten(), minlength=len(planes) * _LEVELS).view(len(planes), _LEVELS).float()


def _matched(noisy: Tensor, clean: Tensor) -> tuple[Tensor, float]:
    """For every noisy value the clean one whose counts follow it best, and how well they do."""
    x, y = (standardised([side])[0] for side in (noisy, clean))
    best = (x.T @ y).max(dim=1)
    share = noisy.sum(dim=0) / noisy.sum()
    return best.indices / (_LEVELS - 1), float((best.values.clamp(min=0).square() * share).sum())
