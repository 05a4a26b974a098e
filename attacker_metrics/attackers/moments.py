"""Moments of views over each image, in strips: no product is held whole, so that it stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

STRIP = 2**17
"""Values of one map that an operation works on at once on a CPU."""

_IMAGE = (1, 2, 3)


def strips(x: Tensor) -> Iterator[slice]:
    """Runs of rows of images ``(B, C, H, W)`` that are worked on at once: all rows, but on a CPU :data:`STRIP` values."""
    height = x.shape[2]
    rows = max(1, STRIP * height // x.numel()) if x.device.type == "cpu" else height
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def mean_of_products(a: Tensor, b: Tensor) -> Tensor:
    """``mean(a * b)`` over C, H and W of each image.

    Args:
        a: ``(B, C, H, W)``.
        b: ``(B, C, H, W)``.

    Returns:
        ``(B, 1, 1, 1)``.

    Example:
        >>> import torch
        >>> mean_of_products(torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), 3.0)).flatten()
        tensor([6.])
    """
    sums = [(a[:, :, rows] * b[:, :, rows]).sum(dim=_IMAGE, keepdim=True) for rows in strips(a)]
    return torch.stack(sums).sum(dim=0) / a[0].numel()
