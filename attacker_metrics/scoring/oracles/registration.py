"""Registration: how a picture was turned by any angle, scaled, mirrored and moved, and a little tilted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.scoring.oracles.correlation import centred, detail, explained_moved
from attacker_metrics.scoring.oracles.fourier_mellin import turns_and_zooms
from attacker_metrics.scoring.oracles.oracle import Sight
from attacker_metrics.scoring.oracles.orientation import fitted
from attacker_metrics.scoring.oracles.refinement import refined
from attacker_metrics.scoring.oracles.warping import moved, similar, warped

_SEARCH, _COARSE, _FINE = 40, 48, 96
"""Pixels of the longer side at which places are searched, and at which they are refined."""
_CANDIDATES = 6


def _reduced(x: Tensor, longest: int) -> Tensor:
    """Pictures ``(B, H, W)``, shrunk so that the longer side has so many pixels."""
    height, width = x.shape[-2:]
    factor = longest / max(height, width)
    if factor >= 1:
        return x
    size = (max(2, round(height * factor)), max(2, round(width * factor)))
    return F.adaptive_avg_pool2d(x[:, None], size)[:, 0]


def registered(noisy: Tensor, clean: Tensor) -> Tensor:
    """The homographies ``(B, 3, 3)`` by which noisy pictures explain most of the clean ones, ``(B, H, W)`` each."""
    coarse = _reduced(noisy, _COARSE), _reduced(clean, _COARSE)
    angles, zooms, mirrored = turns_and_zooms(*coarse, _CANDIDATES)
    angles, zooms, mirrored = (
        torch.cat(pair, dim=1) for pair in ((angles, angles + math.pi), (zooms,) * 2, (mirrored,) * 2)
    )
    starts = similar(angles, zooms, mirrored)
    count = starts.shape[1]
    sent, target = (_reduced(x, _SEARCH) for x in (noisy, clean))
    height, width = target.shape[-2:]
    turned, there = warped(sent.repeat_interleave(count, dim=0), starts.flatten(0, 1))
    n = there.sum(dim=(-2, -1), keepdim=True).clamp(min=1.0)
    turned = (turned - (turned * there).sum(dim=(-2, -1), keepdim=True) / n) * there
    turned = centred(turned) * there
    shares = explained_moved(
        turned.view(-1, count, height, width), there.view(-1, count, height, width), centred(target)[:, None]
    )
    best, at = shares.flatten(2).max(dim=2)
    kept = best.topk(2, dim=1).indices
    at, starts = at.gather(1, kept), starts.gather(1, kept[:, :, None, None].expand(-1, -1, 3, 3))
    down, right = at // shares.shape[-1], at % shares.shape[-1]
    half = max(height, width) / 2
    down = torch.where(down >= height, down - shares.shape[-2], down).to(clean.dtype) / half
    right = torch.where(right >= width, right - shares.shape[-1], right).to(clean.dtype) / half
    starts = moved(starts, right, down)
    twice = [x.repeat_interleave(2, dim=0) for x in coarse]
    found, reached = refined(twice[0], twice[1], starts.flatten(0, 1), steps=8)
    better = reached.view(-1, 2).argmax(dim=1)
    chosen = found.view(-1, 2, 3, 3)[torch.arange(len(clean), device=clean.device), better]
    return refined(_reduced(noisy, _FINE), _reduced(clean, _FINE), chosen, steps=3)[0]


@dataclass(frozen=True)
class Registration:
    """Finds how a picture was turned by any angle, scaled up to 1.8 times, mirrored, moved and tilted a little.

    Rotation and scale come from Fourier magnitudes in logarithmic polar coordinates, the place from masked correlation, and
    Gauss-Newton steps refine all eight numbers of a homography. Brightness, contrast and sign are the clean picture's. At
    least a quarter of the clean picture must be seen; the rest has the mean, so that it counts as unread.

    Source:
        See :mod:`~attacker_metrics.scoring.oracles.fourier_mellin`, :mod:`~attacker_metrics.scoring.oracles.refinement` and
        :class:`~attacker_metrics.scoring.oracles.Orientation`.

    Example:
        >>> clean = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> clean = F.interpolate(clean, (64, 64), mode="bicubic")
        >>> zoomed = F.interpolate(clean.rot90(1, (2, 3)), (80, 80), mode="bilinear")[:, :, 8:-8, 8:-8]
        >>> found = Registration()(1 - zoomed, clean)
        >>> bool((found.noisy - clean)[:, :, 12:-12, 12:-12].abs().mean() < 0.05)
        True
    """

    def __call__(self, noisy: Tensor, clean: Tensor) -> Sight:
        """Lay views of one channel, ``(B, 1, H, W)``, over the clean ones."""
        sent = centred(noisy[:, 0])
        matrices = registered(detail(sent), detail(centred(clean[:, 0])))
        picture, there = warped(sent, matrices)
        picture, _, seen = fitted(picture, there > 0.5, clean[:, 0])
        flat = fitted(noisy[:, 0], torch.ones_like(there, dtype=torch.bool), clean[:, 0])[2]
        return Sight(picture[:, None], clean, seen & flat)
