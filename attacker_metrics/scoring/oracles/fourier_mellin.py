"""Rotation and scale, told from the magnitudes of Fourier coefficients, which do not change when a picture is moved."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ANGLES, _RADII = 96, 48
_LEAST, _GREATEST = 3.0, 30.0
"""Waves per side of the square that magnitudes are taken of, which has 64 pixels."""
_ZOOMS = 12
"""Steps that a zoom may have in either direction: 1.8 times."""
_STEP = math.log(_GREATEST / _LEAST) / (_RADII - 1)
_APART = 2


def turns_and_zooms(noisy: Tensor, clean: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The likeliest rotations and scales of a noisy picture, and whether it is mirrored.

    Angles are known up to half a turn.

    Args:
        noisy: ``(B, H, W)``, about 64 pixels a side.
        clean: the same shape.
        count: how many.

    Returns:
        Angles, zooms and mirrored, ``(B, count)`` each, as :func:`~attacker_metrics.scoring.oracles.warping.similar` takes
        them.

    Source:
        Reddy and Chatterji: An FFT-based technique for translation, rotation, and scale-invariant image registration, IEEE
        Transactions on Image Processing 5, 1996.
    """
    size = (_ANGLES, 2 * _RADII)
    sent, target = _magnitudes(noisy), torch.fft.rfft2(_magnitudes(clean), s=size)
    agreements = []
    for here in (sent, sent.flip(1).roll(1, dims=1)):  # a mirrored picture has mirrored angles
        agreement = torch.fft.irfft2(target * torch.fft.rfft2(here, s=size).conj(), s=size)
        agreements.append(torch.cat([agreement[..., -_ZOOMS:], agreement[..., : _ZOOMS + 1]], dim=-1))
    steps = torch.arange(-_ZOOMS, _ZOOMS + 1, device=noisy.device)
    agreement = torch.stack(agreements, dim=1) / (_RADII - steps.abs()).to(noisy.dtype).sqrt()
    around = torch.cat([agreement[:, :, -_APART:], agreement, agreement[:, :, :_APART]], dim=2)
    around = F.pad(around, (_APART, _APART), value=-math.inf)
    peaks = torch.where(F.max_pool2d(around, 2 * _APART + 1, 1) == agreement, agreement, -math.inf)
    _, at = peaks.flatten(1).topk(count)
    at, zoom = at // len(steps), at % len(steps) - _ZOOMS
    mirrored = at >= _ANGLES
    turn, zoom = at % _ANGLES, zoom.to(noisy.dtype)
    return turn.to(noisy.dtype) * (-math.pi / _ANGLES), torch.exp(zoom * _STEP), mirrored


def _magnitudes(x: Tensor) -> Tensor:
    """Logarithms of magnitudes by angle and logarithm of the frequency, ``(B, angles, radii)``.

    Their means over angles, which fall alike in all pictures, are taken off.
    """
    height, width = x.shape[-2:]
    x = x - x.mean(dim=(-2, -1), keepdim=True)
    down, across = (torch.hann_window(n + 2, False, dtype=x.dtype, device=x.device)[1:-1] for n in (height, width))
    side = 2 * max(height, width)
    magnitudes = torch.fft.fftshift(torch.fft.fft2(x * down[:, None] * across, s=(side, side)).abs(), dim=(-2, -1))
    floor = 5e-4 * magnitudes.amax(dim=(-2, -1), keepdim=True) + torch.finfo(x.dtype).tiny
    angles = torch.arange(_ANGLES, dtype=x.dtype, device=x.device) * (math.pi / _ANGLES)
    radii = 2 * _LEAST / 64 * torch.exp(torch.arange(_RADII, dtype=x.dtype, device=x.device) * _STEP)
    grid = torch.stack([radii * torch.cos(angles)[:, None], radii * torch.sin(angles)[:, None]], dim=-1) + 1 / side
    grid = grid[None].expand(len(x), -1, -1, -1)
    by_angle = F.grid_sample((magnitudes + floor).log()[:, None], grid, align_corners=False)[:, 0]
    by_angle = by_angle - by_angle.mean(dim=1, keepdim=True)
    power = by_angle.square().mean(dim=(-2, -1), keepdim=True)
    return by_angle * power.clamp(min=torch.finfo(x.dtype).tiny).rsqrt()
