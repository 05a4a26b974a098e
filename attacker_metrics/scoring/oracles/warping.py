"""Pictures seen through a homography.

Points are columns ``(right, down, 1)`` from a picture's centre, in halves of the clean picture's longer side; a matrix maps
where a pixel of the clean picture is to where it is in the noisy one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def points(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """How far right and down every pixel's centre is, ``(H, W)`` each."""
    half = max(height, width) / 2
    down, across = ((torch.arange(n, dtype=like.dtype, device=like.device) - (n - 1) / 2) / half for n in (height, width))
    return across[None].expand(height, width), down[:, None].expand(height, width)


def warped(noisy: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy pictures laid over the clean ones.

    Args:
        noisy: ``(B, H, W)``.
        matrices: ``(B, 3, 3)``.

    Returns:
        The pictures ``(B, H, W)``, between pixels bilinear, and 1 where they are and 0 where they are not, likewise.
    """
    height, width = noisy.shape[-2:]
    half = max(height, width) / 2
    across, down = points(height, width, noisy)
    right, below, depth = (
        m[:, 0, None, None] * across + m[:, 1, None, None] * down + m[:, 2, None, None] for m in matrices.unbind(1)
    )
    depth = depth.clamp(min=1e-3)
    grid = torch.stack([right / depth * (2 * half / width), below / depth * (2 * half / height)], dim=-1)
    there = (grid.abs() <= 1 + 1e-4).all(dim=-1)
    seen = F.grid_sample(noisy[:, None], grid, padding_mode="border", align_corners=False)
    return seen[:, 0], there.to(noisy.dtype)


def similar(angle: Tensor, zoom: Tensor, mirrored: Tensor) -> Tensor:
    """Matrices ``(..., 3, 3)`` that turn by an angle, enlarge, then swap left and right where wished."""
    across, down = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    side = torch.where(mirrored, -1.0, 1.0).to(angle.dtype)
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (side * across, -side * down, zero, down, across, zero, zero, zero, one)
    return torch.stack(rows, dim=-1).reshape(*angle.shape, 3, 3)


def moved(matrices: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Matrices ``(..., 3, 3)`` for pictures that are then moved over the clean ones."""
    move = torch.eye(3, dtype=matrices.dtype, device=matrices.device).repeat(*matrices.shape[:-2], 1, 1)
    move[..., 0, 2], move[..., 1, 2] = -right, -down
    return matrices @ move
