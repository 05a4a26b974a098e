r"""How well a picture, laid at every place over another, explains it; by fast Fourier transforms.

Laid over the clean picture y, the noisy picture x covers n of its N pixels. There :math:`a x + b` with the best a and b
leaves the least squares; what they take away, as a share of the whole picture's, is

.. math::
    e = \frac{\big(\sum x y - \sum x \sum y / n\big)^2}{\sum x^2 - (\sum x)^2 / n} \Big/ \sum (y - \bar y)^2

with sums over the n pixels and y centred. What is not covered counts as unexplained, so that small overlaps win nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_PIXELS = (-2, -1)
LEAST_COVER = 0.25
"""Share of the clean picture that must be seen."""
_FLAT = 1e-7
"""Share of its mean square below which a picture's variance is rounding."""


def centred(x: Tensor) -> Tensor:
    """Pictures ``(..., H, W)`` less their means, scaled to a mean square of 1; flat ones are 0."""
    x = x - x.mean(dim=_PIXELS, keepdim=True)
    x = x - x.mean(dim=_PIXELS, keepdim=True)  # what rounding left of the mean matters where the contrast is tiny
    power = x.square().mean(dim=_PIXELS, keepdim=True)
    return torch.where(power > 0, x * power.clamp(min=torch.finfo(x.dtype).tiny).rsqrt(), 0.0)


def explained_rolled(noisy: Tensor, clean: Tensor) -> Tensor:
    """The share that the noisy picture explains when it is rolled, for every roll: ``(..., H, W)``.

    Args:
        noisy: ``(..., H, W)``, :func:`centred`.
        clean: ``(..., H, W)``, :func:`centred`.
    """
    size = clean.shape[-2:]
    product = torch.fft.rfft2(clean) * torch.fft.rfft2(noisy).conj()
    correlation: Tensor = torch.fft.irfft2(product, s=size) / (size[0] * size[1])
    return correlation.square()


def explained_moved(noisy: Tensor, covers: Tensor, clean: Tensor) -> Tensor:
    """The share that the noisy picture explains when it is moved, for every place; nothing comes in at the other side.

    Args:
        noisy: ``(..., h, w)``, :func:`centred`, 0 where ``covers`` is.
        covers: ``(..., h, w)``, 1 where the noisy picture is.
        clean: ``(..., H, W)``, :func:`centred`.

    Returns:
        ``(..., at least H + h, at least W + w)``: moved down by i rows and right by j columns, modulo this size; 0 where it
        covers less than a quarter.
    """
    size = [-(-(a + b) // 16) * 16 for a, b in zip(noisy.shape[-2:], clean.shape[-2:], strict=True)]  # fast to transform

    def spectrum(x: Tensor) -> Tensor:
        found: Tensor = torch.fft.rfft2(x, s=size)
        return found

    of_clean, of_whole = spectrum(clean), spectrum(clean.new_ones(clean.shape[-2:]))

    def sums(a: Tensor, b: Tensor) -> Tensor:
        found: Tensor = torch.fft.irfft2(a * b, s=size)
        return found

    of_noisy, of_square, of_cover = (spectrum(x).conj() for x in (noisy, noisy.square(), covers))
    xy, x, xx = sums(of_clean, of_noisy), sums(of_whole, of_noisy), sums(of_whole, of_square)
    y, n = sums(of_clean, of_cover), sums(of_whole, of_cover).round().clamp(min=1.0)
    total = clean.shape[-2] * clean.shape[-1]
    variance = xx - x.square() / n
    share = (xy - x * y / n).square() / variance.clamp(min=1e-6 * total) / total
    counts = (n >= LEAST_COVER * total) & (variance > 1e-3 * n)
    return torch.where(counts, share.clamp(max=1.0), 0.0)


def detail(x: Tensor) -> Tensor:
    """Pictures ``(B, H, W)`` without their coarsest shades, which any two pictures share: less 4 x 4 means, interpolated."""
    shades = F.adaptive_avg_pool2d(x[:, None], 4)
    return x - F.interpolate(shades, x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def smaller(x: Tensor, factor: int) -> Tensor:
    """Means of squares of pixels ``(..., H // factor, W // factor)``; what is left over is cut off."""
    if factor == 1:
        return x
    return F.avg_pool2d(x, factor)
