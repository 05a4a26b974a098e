r"""A homography, improved step by step so that the noisy picture explains more of the clean one.

Moving the noisy picture x a little by the generators :math:`v_k` of homographies changes it by
:math:`\nabla x \cdot v_k`, so that the best step, brightness and contrast come out of one linear least-squares fit
:math:`y \approx a x + b + \sum_k a p_k \nabla x \cdot v_k`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attacker_metrics.scoring.oracles.correlation import LEAST_COVER
from attacker_metrics.scoring.oracles.warping import points, warped

_GENERATORS = 8
_DAMPING = 1e-3


def refined(noisy: Tensor, clean: Tensor, matrices: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Improve matrices by Gauss-Newton steps; the best of all steps is kept.

    Args:
        noisy: ``(B, H, W)``.
        clean: ``(B, H, W)``.
        matrices: where to start, ``(B, 3, 3)``.
        steps: how many, >= 0.

    Returns:
        Matrices, and the share of the clean picture that is explained, ``(B,)``; see
        :mod:`attacker_metrics.scoring.oracles.correlation`.

    Source:
        Evangelidis and Psarakis: Parametric image alignment using enhanced correlation coefficient maximization, IEEE
        TPAMI 30, 2008; Baker and Matthews: Lucas-Kanade 20 years on, IJCV 56, 2004.
    """
    best, share = matrices, torch.full((len(noisy),), -1.0, dtype=clean.dtype, device=clean.device)
    whole = (clean - clean.mean(dim=(-2, -1), keepdim=True)).square().sum(dim=(-2, -1))
    for step in range(steps + 1):
        picture, there = warped(noisy, matrices)
        last = step == steps
        columns = [torch.ones_like(picture), picture, clean, *([] if last else _changes(picture))]
        table = torch.stack(columns, dim=1).flatten(2) * there.flatten(1)[:, None]
        products = table @ table.mT  # sums over the pixels that are there
        reached = _explained(products, whole, picture[0].numel())
        better = reached > share
        share, best = torch.where(better, reached, share), torch.where(better[:, None, None], matrices, best)
        if not last:
            matrices = matrices @ _step(products)
    return best, share


def _changes(x: Tensor) -> list[Tensor]:
    """How pictures ``(B, H, W)`` change along each generator."""
    height, width = x.shape[-2:]
    half = max(height, width) / 2
    down, right = torch.gradient(x, dim=(1, 2))
    right, down = right * half, down * half
    across, below = points(height, width, x)
    outward = right * across + down * below
    return [right, right * across, right * below, down, down * across, down * below, -outward * across, -outward * below]


def _step(products: Tensor) -> Tensor:
    """The matrices ``(B, 3, 3)`` of the least squares' step."""
    unknown = [0, 1, *range(3, 3 + _GENERATORS)]
    left, right = products[:, unknown][:, :, unknown], products[:, unknown, 2]
    scale = left.diagonal(dim1=1, dim2=2).clamp(min=1e-12).rsqrt()
    left = left * scale[:, :, None] * scale[:, None]
    damping = torch.full((len(unknown),), _DAMPING, dtype=left.dtype, device=left.device)
    damping[:2] = 1e-6
    solved = torch.linalg.solve_ex(left + torch.diag(damping), scale * right)[0] * scale
    contrast = solved[:, 1]
    contrast = torch.where(contrast.abs() > 1e-6, contrast, 1e-6)
    p = (solved[:, 2:] / contrast[:, None]).nan_to_num(0.0).clamp(-0.2, 0.2)
    one = torch.ones_like(contrast)
    rows = (one + p[:, 1], p[:, 2], p[:, 0], p[:, 4], one + p[:, 5], p[:, 3], p[:, 6], p[:, 7], one)
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def _explained(products: Tensor, whole: Tensor, pixels: int) -> Tensor:
    n = products[:, 0, 0].clamp(min=1.0)
    x, y, xx, xy = products[:, 0, 1], products[:, 0, 2], products[:, 1, 1], products[:, 1, 2]
    variance = xx - x.square() / n
    share = (xy - x * y / n).square() / variance.clamp(min=1e-30) / whole.clamp(min=1e-30)
    counts = (n >= LEAST_COVER * pixels) & (variance > 1e-6 * xx)
    return torch.where(counts, share.clamp(max=1.0), 0.0)
