"""The eight orientations of a picture, and where it was moved to."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from attacker_metrics.scoring.oracles.correlation import (
    LEAST_COVER,
    centred,
    detail,
    explained_moved,
    explained_rolled,
    smaller,
)
from attacker_metrics.scoring.oracles.oracle import Sight

ORIENTATIONS = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
"""Quarter turns, after a swap of left and right or none."""
_COARSE = 48
"""Pixels of the longer side that places are searched at; what is found is refined at full size."""


class Place(NamedTuple):
    """How a picture lies over another.

    Args:
        orientation: number of :data:`ORIENTATIONS`.
        down: rows that it is moved down by, after it was turned.
        right: columns that it is moved right by.
        wraps: whether what leaves comes in at the other side.
    """

    orientation: int
    down: int
    right: int
    wraps: bool


def oriented(x: Tensor, orientation: int) -> Tensor:
    """Turn pictures ``(..., H, W)``."""
    turns, mirrored = ORIENTATIONS[orientation]
    return torch.rot90(x.flip(-1) if mirrored else x, turns, (-2, -1))


def laid(x: Tensor, place: Place, height: int, width: int) -> tuple[Tensor, Tensor]:
    """A picture ``(..., H, W)`` in its place: ``(..., height, width)``, and ``(height, width)`` bool where it is there."""
    x = oriented(x, place.orientation)
    there = torch.ones(height, width, dtype=torch.bool, device=x.device)
    if place.wraps:
        return x.roll((place.down, place.right), dims=(-2, -1)), there
    rows, columns = x.shape[-2:]
    down = torch.arange(height, device=x.device) - place.down
    across = torch.arange(width, device=x.device) - place.right
    moved = x[..., down.clamp(0, rows - 1), :][..., across.clamp(0, columns - 1)]
    return moved, ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))


def fitted(noisy: Tensor, there: Tensor, clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give a picture mean, contrast and sign of the clean one where it is there, and its mean elsewhere.

    Args:
        noisy: ``(..., H, W)``.
        there: ``(..., H, W)`` bool, where it counts.
        clean: ``(..., H, W)``.

    Returns:
        The picture, the share of the clean one that it explains ``(...)``, and whether it is not flat there ``(...)``.
    """
    weight = there.to(clean.dtype).expand_as(clean)
    count = weight.sum(dim=(-2, -1), keepdim=True).clamp(min=1.0)

    def mean(x: Tensor) -> Tensor:
        return (x * weight).sum(dim=(-2, -1), keepdim=True) / count

    level = mean(clean)
    x, y = noisy - mean(noisy), clean - level
    x = x - mean(x)
    x, y = x * weight, y * weight
    xx, yy, xy = mean(x * x), mean(y * y), mean(x * y)
    floor = torch.finfo(clean.dtype).tiny
    scale = (yy / xx.clamp(min=floor)).sqrt() * torch.where(xy < 0, -1.0, 1.0)
    scale = torch.where(xx > floor, scale, 0.0)
    whole = (clean - clean.mean(dim=(-2, -1), keepdim=True)).square().mean(dim=(-2, -1), keepdim=True)
    cover = count / (clean.shape[-2] * clean.shape[-1])
    share = torch.where((xx > floor) & (whole > floor), cover * xy / xx.clamp(min=floor) * xy / whole.clamp(min=floor), 0.0)
    seen = (xx > (1e-6 * mean(noisy).abs()).square() + floor) & (yy > (1e-6 * level).square() + floor)
    return x * scale + level, share[..., 0, 0].clamp(0.0, 1.0), seen[..., 0, 0]


def place_of(noisy: Tensor, clean: Tensor) -> list[Place]:
    """Where each noisy picture explains most of its clean one.

    Args:
        noisy: ``(B, H, W)``.
        clean: ``(B, H, W)``.
    """
    factor = max(1, -(-max(clean.shape[-2:]) // _COARSE))
    sent, original = centred(noisy), centred(clean)
    fine_sent, fine_original = centred(detail(sent)), centred(detail(original))
    whole = [centred(smaller(x, factor)) for x in (sent, original)]
    fine = [centred(smaller(x, factor)) for x in (fine_sent, fine_original)]
    rolled: list[list[tuple[float, Place]]] = [[] for _ in range(len(noisy))]
    moved: list[list[tuple[float, Place]]] = [[] for _ in range(len(noisy))]
    for kept in (range(0, 8, 2), range(1, 8, 2)):  # both of one shape each
        turned, target = torch.stack([oriented(fine[0], o) for o in kept], dim=1), fine[1][:, None]
        maps = [(explained_moved(turned, torch.ones_like(turned[:1, :1]), target), moved)]
        if kept[0] == 0 or noisy.shape[-1] == noisy.shape[-2]:
            turned = torch.stack([oriented(whole[0], o) for o in kept], dim=1)
            maps.append((explained_rolled(turned, whole[1][:, None]), rolled))
        for shares, candidates in maps:
            best, where = shares.flatten(2).max(dim=2)
            rows, columns = shares.shape[-2:]
            for found, values, places in zip(candidates, best.tolist(), where.tolist(), strict=True):
                for o, value, at in zip(kept, values, places, strict=True):
                    down, right = at // columns, at % columns
                    down -= rows if down >= target.shape[-2] else 0
                    right -= columns if right >= target.shape[-1] else 0
                    found.append((value, Place(o, factor * down, factor * right, candidates is rolled)))
    places = []
    for b, (in_circle, beside) in enumerate(zip(rolled, moved, strict=True)):
        options = [
            _rolled(sent[b], original[b], max(in_circle)[1]),
            _moved(fine_sent[b], fine_original[b], max(beside)[1], factor),
        ]
        places.append(max(options, key=functools.partial(_evidence, sent[b], original[b])))
    return places


def _evidence(noisy: Tensor, clean: Tensor, place: Place) -> float:
    """How sure a correlation of pictures ``(H, W)`` is: Fisher's z times the root of the share of pixels that overlap."""
    moved, there = laid(noisy, place, *clean.shape)
    x, y = moved[there], clean[there]
    x, y = x - x.mean(), y - y.mean()
    power = float((x * x).sum() * (y * y).sum())
    r = abs(float((x * y).sum())) / math.sqrt(power) if power > 0 else 0.0
    return math.atanh(min(r, 1 - 1e-6)) * math.sqrt(len(x) / clean.numel())


def _rolled(noisy: Tensor, clean: Tensor, start: Place) -> Place:
    """The best roll at full size in an orientation."""
    at = int(explained_rolled(oriented(noisy, start.orientation), clean).argmax())
    return Place(start.orientation, *divmod(at, clean.shape[-1]), True)


def _moved(noisy: Tensor, clean: Tensor, start: Place, factor: int) -> Place:
    """The best place at full size next to one that was found among places ``factor`` pixels apart."""
    turned = oriented(noisy, start.orientation)
    (height, width), (rows, columns) = clean.shape, turned.shape

    def share(place: Place) -> float:
        """See :mod:`~attacker_metrics.scoring.oracles.correlation`, of the pixels that overlap."""
        top, left = max(0, place.down), max(0, place.right)
        bottom, end = min(height, place.down + rows), min(width, place.right + columns)
        n = (bottom - top) * (end - left)
        if bottom <= top or end <= left or n < LEAST_COVER * height * width:
            return 0.0
        x = turned[top - place.down : bottom - place.down, left - place.right : end - place.right]
        y = clean[top:bottom, left:end]
        sums = torch.stack([x.sum(), y.sum(), (x * y).sum(), (x * x).sum()]).tolist()
        variance = sums[3] - sums[0] ** 2 / n
        return (sums[2] - sums[0] * sums[1] / n) ** 2 / variance / (height * width) if variance > 1e-3 * n else 0.0

    place, step = start, factor
    reached = {place: share(place)}
    while step > 1:
        step = (step + 1) // 2
        moves = [(down, right) for down in (-step, 0, step) for right in (-step, 0, step)]
        near = [place._replace(down=place.down + down, right=place.right + right) for down, right in moves]
        reached.update((other, share(other)) for other in near if other not in reached)
        place = max(near, key=reached.__getitem__)
    return max(reached, key=reached.__getitem__)


@dataclass(frozen=True)
class Orientation:
    """Finds how a picture was turned by quarters, mirrored and moved, with or without what left coming in again.

    Chosen among eight orientations and all places of which a quarter of the picture is seen: that which explains most of
    the clean picture by brightness, contrast and sign (see :mod:`attacker_metrics.scoring.oracles.correlation`), of its
    detail where nothing comes in again. What is not covered has the mean, so that it counts as unread. Pictures that are
    not square are turned by 90 degrees, too, and compared where they overlap.

    Source:
        Padfield: Masked object registration in the Fourier domain, IEEE Transactions on Image Processing 21, 2012.

    Example:
        >>> clean = torch.rand(1, 1, 24, 32)
        >>> found = Orientation()(1 - clean.flip(2).roll(5, dims=3), clean)
        >>> bool((found.noisy - clean).abs().max() < 1e-4)
        True
    """

    def __call__(self, noisy: Tensor, clean: Tensor) -> Sight:
        """Move views of one channel, ``(B, 1, H, W)``."""
        places = place_of(noisy[:, 0], clean[:, 0])
        laid_ = [laid(x, place, *clean.shape[-2:]) for x, place in zip(noisy[:, 0], places, strict=True)]
        moved, there = (torch.stack(parts) for parts in zip(*laid_, strict=True))
        picture, _, seen = fitted(moved, there, clean[:, 0])
        return Sight(picture[:, None], clean, seen)


@dataclass(frozen=True)
class Fit:
    """Finds brightness, contrast and sign only, as :class:`Orientation` does of what it has moved.

    Example:
        >>> clean = torch.rand(1, 1, 8, 8)
        >>> bool((Fit()(3 - 0.1 * clean, clean).noisy - clean).abs().max() < 1e-4)
        True
    """

    def __call__(self, noisy: Tensor, clean: Tensor) -> Sight:
        """Fit views of one channel, ``(B, 1, H, W)``."""
        picture, _, seen = fitted(noisy[:, 0], torch.ones_like(noisy[:, 0], dtype=torch.bool), clean[:, 0])
        return Sight(picture[:, None], clean, seen)
