"""How much one picture tells of the other, whatever the colours stand for: correlation ratio and mutual information."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attacker_metrics._settings import whole
from attacker_metrics.attackers.filters import Equalize
from attacker_metrics.scoring.oracles.oracle import without_slope


@dataclass(frozen=True)
class CorrelationRatio:
    r"""The share of the clean picture's variance that the noisy one's level explains, in [0, 1]; higher = leaks more.

    With the pixels sorted into levels by the noisy picture, :math:`\eta^2 = 1 - \sum_l n_l \sigma_l^2 / (n \sigma^2)`: 1 if
    the clean picture is a function of the noisy one's level, whatever function; 0 if the levels have one mean, or a picture
    is flat. Unrelated pictures score more than 0, since levels are places. No gradient passes.

    Args:
        levels: how many, each with about as many pixels, >= 2.

    Source:
        Roche, Malandain, Pennec and Ayache: The correlation ratio as a new similarity measure for multimodal image
        registration, MICCAI 1998.

    Example:
        >>> clean = torch.rand(1, 1, 32, 32)
        >>> bool(CorrelationRatio()((clean - 0.5).abs(), (clean - 0.5).square()) > 0.99)
        True
    """

    levels: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", whole("levels", self.levels, 2))

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two views of one shape, ``(B, C, H, W)``, image by image, ``(B,)``."""
        with torch.no_grad():
            level = _levels(noisy, self.levels)
            y = clean.flatten(1).to(torch.promote_types(clean.dtype, torch.float32))
            y = y - y.mean(dim=1, keepdim=True)
            sums = y.new_zeros(len(y), self.levels)
            counts = torch.zeros_like(sums).scatter_add_(1, level, torch.ones_like(y))
            sums.scatter_add_(1, level, y)
            total = y.square().sum(dim=1)
            ratio = (sums.square() / counts.clamp(min=1.0)).sum(dim=1) / total.clamp(min=1e-12)
            several = (counts > 0).sum(dim=1) > 1
            ratio = torch.where(several & (total > 1e-12 * y.shape[1]), ratio.clamp(0.0, 1.0), 0.0)
        return ratio + without_slope(noisy, clean)


@dataclass(frozen=True)
class MutualInformation:
    r"""Normalised mutual information :math:`2 I(x; y) / (H(x) + H(y))` of the levels of two pictures, in [0, 1].

    1 = the level of either tells that of the other, 0 = nothing, or a picture is flat; higher = leaks more. Unrelated
    pictures score more than 0. No gradient passes.

    Args:
        levels: how many per picture, each with about as many pixels, >= 2.

    Source:
        Studholme, Hill and Hawkes: An overlap invariant entropy measure of 3D medical image alignment, Pattern Recognition
        32, 1999; Viola and Wells: Alignment by maximization of mutual information, IJCV 24, 1997. This normalisation is
        Theil's symmetric uncertainty coefficient.

    Example:
        >>> clean = torch.randint(4, (1, 1, 32, 32)) / 3
        >>> MutualInformation()((2 * clean - 1.2).square(), clean).round(decimals=4)
        tensor([1.])
    """

    levels: int = 16

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", whole("levels", self.levels, 2))

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two views of one shape, ``(B, C, H, W)``, image by image, ``(B,)``."""
        with torch.no_grad():
            x, y = (_levels(view, self.levels) for view in (noisy, clean))
            joint = torch.zeros(len(x), self.levels**2, dtype=torch.float64 if noisy.device.type != "mps" else torch.float32)
            joint = joint.to(noisy.device).scatter_add_(1, x * self.levels + y, torch.ones_like(x, dtype=joint.dtype))
            joint = joint.view(-1, self.levels, self.levels) / x.shape[1]
            of_x, of_y, of_both = (_entropy(p) for p in (joint.sum(dim=2), joint.sum(dim=1), joint.flatten(1)))
            value = 2 * (of_x + of_y - of_both) / (of_x + of_y).clamp(min=1e-12)
            value = value.clamp(0.0, 1.0).to(
                torch.promote_types(torch.promote_types(noisy.dtype, clean.dtype), torch.float32)
            )
        return value + without_slope(noisy, clean)


def _levels(view: Tensor, levels: int) -> Tensor:
    """The level of every value, ``(B, n)``; equal values have one level."""
    share = Equalize()(view.to(torch.promote_types(view.dtype, torch.float32)))
    return (share.flatten(1) * levels).long().clamp(0, levels - 1)


def _entropy(p: Tensor) -> Tensor:
    entropy: Tensor = -torch.special.xlogy(p, p).sum(dim=1)
    return entropy
