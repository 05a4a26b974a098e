"""A blind attacker: noise is estimated from the sent picture alone and smoothed away, edges kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_PIXELS = (2, 3)
_OF_GAUSSIAN = 0.6744897501960817
"""Median absolute value of a standard normal."""
_PACE = 0.25
_TINY = 1e-12


def noise_level(x: Tensor) -> Tensor:
    """Standard deviation of white noise in images, from the median of their finest diagonal details.

    Args:
        x: ``(B, C, H, W)``, H and W at least 2.

    Returns:
        ``(B, 1, 1, 1)``; what an edge or texture adds is small, and all that a picture without noise shows.

    Source:
        Donoho and Johnstone: Ideal spatial adaptation by wavelet shrinkage, 1994.

    Example:
        >>> import torch
        >>> noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> bool((noise_level(0.5 + 0.2 * noise) - 0.2).abs() < 0.02)
        True
    """
    whole = x[..., : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
    diagonal = whole[..., ::2, ::2] - whole[..., 1::2, ::2] - whole[..., ::2, 1::2] + whole[..., 1::2, 1::2]
    return (diagonal / 2).abs().flatten(1).median(dim=1).values.view(-1, 1, 1, 1) / _OF_GAUSSIAN


@dataclass(frozen=True)
class Denoise:
    r"""The picture of least total variation near a noisy one, by an estimate of the noise; needs no pair and no key.

    It minimises :math:`\sum |\nabla v| + (v - x)^2 / (2 w)` by Chambolle's iteration, every channel by itself. The weight
    :math:`w` is the noise's standard deviation where the picture outweighs it, and up to 2.5 times as much where noise is
    nearly all that the picture shows. Without noise the picture stays.

    Args:
        steps: of the iteration, at least 1. More come closer to the minimum, not to the original: of photographs under noise
            25 read more than 100, at every level tried.

    Raises:
        ValueError: for fewer steps, or images below 2 x 2 pixels.

    Example:
        >>> import torch
        >>> clean = torch.zeros(1, 1, 64, 64)
        >>> clean[..., 20:, :] = 1
        >>> noisy = clean + 0.3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        >>> bool((Denoise()(noisy) - clean).square().mean() < 0.05 * (noisy - clean).square().mean())
        True

    Source:
        Rudin, Osher and Fatemi: Nonlinear total variation based noise removal algorithms, 1992; Chambolle: An algorithm for
        total variation minimization and applications, 2004.
    """

    steps: int = 25

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps!r}.")

    def __call__(self, x: Tensor) -> Tensor:
        """Denoise images ``(B, C, H, W)``."""
        if min(x.shape[2:]) < 2:
            raise ValueError(f"noise is estimated from 2 x 2 pixels at least, got images of {tuple(x.shape[2:])}.")
        computed = x.to(torch.promote_types(x.dtype, torch.float32))
        level = noise_level(computed)
        share = level.square() / computed.var(dim=(1, 2, 3), keepdim=True, unbiased=False).clamp(min=_TINY)
        weight = level * (1 + 1.5 * share.clamp(max=1))
        return total_variation(computed, weight, self.steps).to(x.dtype)


def total_variation(x: Tensor, weight: Tensor, steps: int) -> Tensor:
    """Images ``(B, C, H, W)`` of less total variation, by weights ``(B, 1, 1, 1)``; 0 keeps an image."""
    down, across = torch.zeros_like(x), torch.zeros_like(x)
    pace = _PACE / weight.clamp(min=_TINY)
    for _ in range(steps):
        v = x + _divergence(down, across)
        dv_down, dv_across = F.pad(v.diff(dim=2), (0, 0, 0, 1)), F.pad(v.diff(dim=3), (0, 1))
        shrink = 1 + pace * (dv_down.square() + dv_across.square() + _TINY).sqrt()
        down, across = (down + _PACE * dv_down) / shrink, (across + _PACE * dv_across) / shrink
    return x + _divergence(down, across)


def _divergence(down: Tensor, across: Tensor) -> Tensor:
    """Of a field that is 0 beyond the last row and column."""
    return down - F.pad(down[..., :-1, :], (0, 0, 1, 0)) + across - F.pad(across[..., :-1], (1, 0))
