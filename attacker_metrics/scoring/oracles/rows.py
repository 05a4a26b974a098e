"""Rows or columns that were each rolled by another amount."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacker_metrics.scoring.oracles.oracle import Sight


@dataclass(frozen=True)
class RolledRows:
    """Rolls every row of the noisy picture back to where it fits the clean one's best.

    The fit is that of phases (all waves count alike), so that a row of another picture fits by chance only where it has the
    very same detail. What is found is compared by detail, too: rows whose waves all have one amplitude.

    Args:
        columns: whether columns were rolled.

    Source:
        Kuglin and Hines: The phase correlation image alignment method, IEEE Conference on Cybernetics and Society, 1975.

    Example:
        >>> from attacker_metrics.scoring.similarity import SquaredPearson
        >>> clean = torch.rand(1, 1, 16, 32)
        >>> noisy = torch.stack([row.roll(5 * i) for i, row in enumerate(clean[0, 0])])[None, None]
        >>> found = RolledRows()(noisy, clean)
        >>> SquaredPearson()(found.noisy, found.clean).round(decimals=4)
        tensor([1.])
    """

    columns: bool = False

    def __call__(self, noisy: Tensor, clean: Tensor) -> Sight:
        """Roll the rows of views of one shape, ``(B, 1, H, W)``."""
        if self.columns:
            noisy, clean = noisy.mT, clean.mT
        width = clean.shape[-1]
        sent, target = (_phases(view) for view in (noisy, clean))
        fit = torch.fft.irfft(target * sent.conj(), n=width)
        places = (torch.arange(width, device=clean.device) - fit.abs().argmax(dim=-1, keepdim=True)) % width
        sent, target = torch.fft.irfft(sent, n=width).gather(-1, places), torch.fft.irfft(target, n=width)
        seen = (sent != 0).flatten(1).any(dim=1) & (target != 0).flatten(1).any(dim=1)
        return Sight(sent.mT, target.mT, seen) if self.columns else Sight(sent, target, seen)


def _phases(view: Tensor) -> Tensor:
    """The waves of every row with equal amplitudes, those that are rounding left out, ``(..., W // 2 + 1)``."""
    spectrum = torch.fft.rfft(view - view.mean(dim=-1, keepdim=True))
    amplitude = spectrum.abs()
    floor = 1e-5 * amplitude.amax(dim=(-2, -1), keepdim=True) + 1e-9 * view.shape[-1]
    return torch.where(amplitude > floor, spectrum / amplitude.clamp(min=torch.finfo(amplitude.dtype).tiny), 0.0)
