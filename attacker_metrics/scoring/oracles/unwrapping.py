"""Values that were wrapped, as by a number added modulo 1 or a camera that starts anew at white, made continuous."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.attackers import luma


def unwrap(x: Tensor) -> Tensor:
    """The brightness whose differences between neighbours are those of the picture modulo 1, by least squares.

    Each channel's differences are brought to within half of 1, mixed to those of luma and summed up by solving Poisson's
    equation with free borders. Where neighbours truly differ by less than that, the picture comes back but for its mean,
    which is 0. No oracle: anyone can do it.

    Args:
        x: ``(B, 3, H, W)``.

    Returns:
        ``(B, 1, H, W)``.

    Source:
        Ghiglia and Romero: Robust two-dimensional weighted and unweighted phase unwrapping that uses fast transforms and
        iterative methods, JOSA A 11, 1994.

    Example:
        >>> ramp = torch.linspace(0, 3, 16).expand(1, 3, 16, 16)
        >>> bool((unwrap(ramp % 1) - (ramp - 1.5)[:, :1]).abs().max() < 1e-4)
        True
    """
    down, across = (luma(step - step.round()) for step in (x.diff(dim=2), x.diff(dim=3)))
    divergence = F.pad(down, (0, 0, 0, 1)) - F.pad(down, (0, 0, 1, 0))
    divergence = divergence + F.pad(across, (0, 1)) - F.pad(across, (1, 0))
    height, width = x.shape[2:]
    mirrored = torch.cat([divergence, divergence.flip(2)], dim=2)
    mirrored = torch.cat([mirrored, mirrored.flip(3)], dim=3)
    of_rows, of_columns = (
        2 * torch.cos(math.pi * torch.arange(n, dtype=x.dtype, device=x.device) / half) - 2
        for n, half in ((2 * height, height), (width + 1, width))
    )
    eigenvalues = of_rows[:, None] + of_columns
    eigenvalues[0, 0] = 1.0
    spectrum = torch.fft.rfft2(mirrored) / eigenvalues
    spectrum[..., 0, 0] = 0.0
    found: Tensor = torch.fft.irfft2(spectrum, s=mirrored.shape[-2:])[..., :height, :width]
    return found
