"""A curve per channel, learned from pairs of values: what one value means on average for the other."""

from __future__ import annotations

import torch
from torch import Tensor

_KNOTS = 128
_SEEN = 2**16
"""Values by which the knots are placed."""


def fit_curve(x: Tensor, y: Tensor) -> Tensor:
    """The mean of y over neighbouring values of x, by channel.

    Args:
        x: values ``(n, 3, ...)``.
        y: values of the same shape.

    Returns:
        ``(3, 2, 128)``: knots in ascending order, which hold about equally many values each, and what they stand for.
    """
    curves = []
    for a, b in zip(x.transpose(0, 1).flatten(1), y.transpose(0, 1).flatten(1), strict=True):
        step = -(-len(a) // _SEEN)
        edges = torch.quantile(a[::step], torch.linspace(0, 1, _KNOTS + 1, dtype=a.dtype, device=a.device)[1:-1])
        index = torch.bucketize(a.contiguous(), edges)
        counts, levels, means = (a.new_zeros(_KNOTS, dtype=torch.float64) for _ in range(3))
        counts.index_add_(0, index, torch.ones_like(a, dtype=torch.float64))
        levels.index_add_(0, index, a.double())
        means.index_add_(0, index, b.double())
        known = (counts > 0).cumsum(0).sub(1).clamp(min=0)  # bins that hold nothing repeat the one before
        first = counts.nonzero()[:, 0]
        curves.append(torch.stack([(levels / counts)[first][known], (means / counts)[first][known]]))
    return torch.stack(curves).float()


def apply_curve(x: Tensor, curve: Tensor) -> Tensor:
    """Values ``(n, 3, ...)`` on the curve of their channel, straight between knots and constant beyond them."""
    planes = []
    for plane, (knots, values) in zip(x.unbind(1), curve.to(x.device), strict=True):
        right = torch.bucketize(plane.detach().contiguous(), knots.contiguous()).clamp(1, len(knots) - 1)
        left = right - 1
        share = ((plane - knots[left]) / (knots[right] - knots[left]).clamp(min=1e-12)).clamp(0, 1)
        planes.append(values[left] + share * (values[right] - values[left]))
    return torch.stack(planes, dim=1)
