"""What the originals of a comparison have in common before anything is hidden: a frame, a logo, or everything."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

_TOLERANCE = 4 / 255
_SIDE = 32
_WINDOW = 3


class Shared(NamedTuple):
    """What two pictures share.

    Args:
        same: the share of pixels around which both are the same.
        likeness: squared correlation of the two pictures, shrunk; 1 for near duplicates.
    """

    same: float
    likeness: float


def shared_content(one: Tensor, other: Tensor) -> Shared:
    """Compare two pictures ``(3, H, W)`` of one size, in [0, 1].

    Example:
        >>> import torch
        >>> picture = torch.rand(3, 64, 64)
        >>> shared_content(picture, picture)
        Shared(same=1.0, likeness=1.0)
    """
    apart = (one - other).abs().amax(dim=0)[None, None].float()
    same = (F.max_pool2d(apart, _WINDOW, stride=1) <= _TOLERANCE).float().mean() if min(apart.shape[-2:]) >= _WINDOW else 0.0
    small = [F.adaptive_avg_pool2d(picture.float().mean(dim=0)[None], _SIDE).double().flatten() for picture in (one, other)]
    first, second = (values - values.mean() for values in small)
    power = float(first.square().sum() * second.square().sum())
    likeness = float((first * second).sum()) ** 2 / power if power > 1e-12 else 0.0
    return Shared(round(float(same), 6), round(min(1.0, likeness), 6))
