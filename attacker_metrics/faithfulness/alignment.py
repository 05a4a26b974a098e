"""Find the view of the original that was attacked: mirrored or not, shifted by a few pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Alignment(NamedTuple):
    """Outcome of :func:`align`, all per image.

    Args:
        original: ``(B, C, H, W)`` the original, mirrored and shifted to fit; what came in from outside is black.
        flipped: ``(B,)`` bool, whether it was mirrored left to right.
        shift_y: ``(B,)`` int64, pixels downwards.
        shift_x: ``(B,)`` int64, pixels to the right, after mirroring.
        correlation: ``(B,)`` Pearson correlation of reconstruction and aligned original where they overlap.
    """

    original: Tensor
    flipped: Tensor
    shift_y: Tensor
    shift_x: Tensor
    correlation: Tensor

    @property
    def aligned(self) -> Tensor:
        """``(B,)`` bool, the flag for reports: whether the original was changed at all."""
        return self.flipped | (self.shift_y != 0) | (self.shift_x != 0)


def align(reconstruction: Tensor, original: Tensor, *, max_shift: int = 4, flip: bool = True) -> Alignment:
    """Register originals with their reconstructions, for attacks on augmented (flipped, cropped with padding) images.

    Every candidate is tried, both mirrorings and all shifts up to ``max_shift``; the one with the highest Pearson
    correlation over the overlap wins, and the untouched original wins a tie. A reconstruction that shows nothing fits
    somewhere by chance: report the flag, and do not align what was attacked as it was.

    Args:
        reconstruction: ``(B, C, H, W)`` floating.
        original: of the same shape, in [0, 1].
        max_shift: largest shift in pixels, at least 0 and below half the smaller side. CIFAR's usual crop pads by 4.
        flip: whether mirroring is tried.

    Raises:
        ValueError: if the shapes differ or are not of rank 4, or ``max_shift`` is out of its range.

    Example:
        >>> original = torch.rand(1, 3, 32, 32)
        >>> view = F.pad(original.flip(-1), (4, 4, 4, 4))[..., 1:33, 6:38]  # mirrored, cropped at (1, 6) of the padded one
        >>> found = align(view + 0.2 * torch.randn_like(view), original)
        >>> found.flipped.item(), found.shift_y.item(), found.shift_x.item(), torch.equal(found.original, view)
        (True, 3, -2, True)
    """
    if reconstruction.shape != original.shape or original.ndim != 4:
        raise ValueError(
            f"reconstruction and original must both be (B, C, H, W), got {tuple(reconstruction.shape)} and"
            f" {tuple(original.shape)}."
        )
    height, width = original.shape[-2:]
    if not 0 <= max_shift < min(height, width) / 2:
        raise ValueError(
            f"max_shift is {max_shift}; for {height} x {width} pixels it is 0 to {(min(height, width) - 1) // 2}."
        )
    shifts = sorted(range(-max_shift, max_shift + 1), key=abs)
    candidates = sorted(
        ((mirrored, dy, dx) for mirrored in (False, True)[: 1 + flip] for dy in shifts for dx in shifts),
        key=lambda candidate: candidate != (False, 0, 0),
    )
    correlations = torch.stack([_overlap_correlation(reconstruction, original, *candidate) for candidate in candidates])
    best = correlations.argmax(dim=0)  # the first of equals
    chosen = [candidates[index] for index in best.tolist()]
    moved = torch.stack([_moved(image, *candidate) for image, candidate in zip(original, chosen, strict=True)])
    flipped, shift_y, shift_x = (torch.tensor(column, device=original.device) for column in zip(*chosen, strict=True))
    return Alignment(moved, flipped, shift_y, shift_x, correlations.gather(0, best[None])[0])


def _moved(image: Tensor, mirrored: bool, dy: int, dx: int) -> Tensor:
    image = image.flip(-1) if mirrored else image
    return F.pad(image, (dx, -dx, dy, -dy))  # a negative pad crops


def _overlap_correlation(reconstruction: Tensor, original: Tensor, mirrored: bool, dy: int, dx: int) -> Tensor:
    height, width = original.shape[-2:]
    rows, columns = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    a = reconstruction[..., rows, columns].flatten(1).double()
    b = _moved(original, mirrored, dy, dx)[..., rows, columns].flatten(1).double()
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norms = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(norms > 0, (a * b).sum(1) / norms.clamp(min=torch.finfo(torch.float64).tiny), -1.0)
