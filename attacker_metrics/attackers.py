"""Image -> view: what an attacker makes of a picture before comparing it with the original.

An attacker is any callable that maps a floating tensor ``(B, C, H, W)`` to a view ``(B, C', H', W')``, image by image
(no image may influence another), and that can be hashed (a function, a frozen dataclass, a module). Those below are
differentiable; a chain of attackers, applied left to right, is a plain tuple of them.

Attackers that normalise their own output (:func:`minmax`, :func:`sobel`, :func:`standardize`) expect the raw tensor;
those that need a displayable picture (:class:`Blur`, :class:`Gamma`, :class:`Wavelet`) expect values in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attacker = Callable[[Tensor], Tensor]

DEFAULT_GAMMA_ATTACK_VALUES: tuple[float, ...] = (0.5, 2.0)
DEFAULT_GAUSSIAN_BLUR_SIGMA: float = 2.0
DEFAULT_WAVELET_SOFT_THRESHOLD: float = 0.1


def luma(x: Tensor) -> Tensor:
    """Weigh red, green and blue to one grey channel: ``0.299 R + 0.587 G + 0.114 B`` (ITU-R BT.601).

    Args:
        x: images ``(B, 3, H, W)``, any range.

    Returns:
        ``(B, 1, H, W)`` in the range of ``x``.

    Example:
        >>> import torch
        >>> luma(torch.ones(1, 3, 2, 2)).shape
        torch.Size([1, 1, 2, 2])
    """
    red, green, blue = x.unbind(1)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def clamp(x: Tensor) -> Tensor:
    """Cut values to [0, 1], as any viewer does; the gradient passes at both bounds.

    Example:
        >>> import torch
        >>> clamp(torch.tensor([[[[-0.5, 0.25, 1.5]]]]))
        tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """
    return x.clamp(0.0, 1.0)


def minmax(x: Tensor) -> Tensor:
    """Stretch every image to [0, 1]: ``(x - min) / max(max - min, 1e-8)`` over C, H and W.

    Pixels that tie for the minimum or maximum share its gradient equally.

    Example:
        >>> import torch
        >>> minmax(torch.tensor([[[[2.0, 3.0, 6.0]]]]))
        tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """
    low = x.amin(dim=(1, 2, 3), keepdim=True)
    high = x.amax(dim=(1, 2, 3), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-8)


def sobel(x: Tensor) -> Tensor:
    """Edge strength ``sqrt(gx^2 + gy^2 + 1e-6)``: 3x3 Sobel / 8, border pixels repeated (as kornia's ``sobel``).

    Example:
        >>> import torch
        >>> sobel(torch.ones(1, 1, 3, 3)).amax()  # no edges
        tensor(0.0010)
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    gx = _slide(_slide(padded, (-0.5, 0.0, 0.5), dim=3), (0.25, 0.5, 0.25), dim=2)
    gy = _slide(_slide(padded, (0.25, 0.5, 0.25), dim=3), (-0.5, 0.0, 0.5), dim=2)
    floor = torch.full((), 1e-3, dtype=x.dtype, device=x.device)
    return torch.hypot(torch.hypot(gx, floor), gy)  # a root of squares whose squares and slopes cannot overflow


def standardize(x: Tensor) -> Tensor:
    """Squash the z-scores of every image: ``sigmoid((x - mean) / max(std, 1e-6))``, population moments over C, H, W.

    Example:
        >>> import torch
        >>> standardize(torch.tensor([[[[-3.0, 3.0]]]]))
        tensor([[[[0.2689, 0.7311]]]])
    """
    centred = x - x.mean(dim=(1, 2, 3), keepdim=True)
    variance = (centred * centred).mean(dim=(1, 2, 3), keepdim=True)
    return torch.sigmoid(centred / variance.clamp(min=1e-12).sqrt())


@dataclass(frozen=True)
class Blur:
    """Gaussian low-pass: ``2 ceil(3 sigma) + 1`` taps that sum to 1, separable, border mirrored (torch ``reflect``).

    Args:
        blur_sigma: standard deviation in pixels, > 0. Both sides of an image must exceed ``ceil(3 sigma)``.

    Raises:
        ValueError: if ``blur_sigma`` is not positive, or an image is too small for it.

    Example:
        >>> import torch
        >>> Blur(2.0)(torch.ones(1, 1, 8, 8)).shape
        torch.Size([1, 1, 8, 8])
    """

    blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA

    def __post_init__(self) -> None:
        if not 0 < self.blur_sigma < math.inf:
            raise ValueError(f"blur_sigma must be a positive number of pixels, got {self.blur_sigma!r}.")

    def __call__(self, x: Tensor) -> Tensor:
        """Blur images ``(B, C, H, W)``."""
        radius = math.ceil(3 * self.blur_sigma)
        height, width = x.shape[-2:]
        if min(height, width) <= radius:
            raise ValueError(
                f"images of {height} x {width} pixels are too small for blur_sigma={self.blur_sigma}: both sides must"
                f" exceed ceil(3 * blur_sigma) = {radius}. Resize the images, or pass a smaller blur_sigma."
            )
        taps = gaussian_taps(self.blur_sigma, radius)
        padded = F.pad(x, (radius, radius, radius, radius), mode="reflect")
        return _slide(_slide(padded, taps, dim=2), taps, dim=3)


@dataclass(frozen=True)
class Gamma:
    """Tone curve ``clamp(x, 1e-6, 1) ** gamma``: below 1 it lifts shadows, above 1 it opens highlights.

    Args:
        gamma: exponent, > 0.

    Raises:
        ValueError: if ``gamma`` is not positive.

    Example:
        >>> import torch
        >>> Gamma(0.5)(torch.tensor([[[[0.25, 1.0]]]]))
        tensor([[[[0.5000, 1.0000]]]])
    """

    gamma: float

    def __post_init__(self) -> None:
        if not 0 < self.gamma < math.inf:
            raise ValueError(f"every value of gamma_values must be a positive number, got {self.gamma!r}.")

    def __call__(self, x: Tensor) -> Tensor:
        """Bend the tones of images ``(B, C, H, W)``."""
        return x.clamp(1e-6, 1.0) ** self.gamma


@dataclass(frozen=True)
class Wavelet:
    """One-level orthonormal Haar denoiser: the three detail bands are soft-thresholded, then transformed back.

    Odd sizes are extended by repeating the last row or column and cropped back.

    Args:
        wavelet_threshold: what every detail coefficient loses of its magnitude, >= 0; slope 0 at and below it.

    Raises:
        ValueError: if ``wavelet_threshold`` is negative.

    Example:
        >>> import torch
        >>> Wavelet(0.1)(torch.tensor([[[[0.5, 0.6], [0.5, 0.6]]]]))  # a detail of 0.1 vanishes
        tensor([[[[0.5500, 0.5500],
                  [0.5500, 0.5500]]]])
    """

    wavelet_threshold: float = DEFAULT_WAVELET_SOFT_THRESHOLD

    def __post_init__(self) -> None:
        if not 0 <= self.wavelet_threshold < math.inf:
            raise ValueError(f"wavelet_threshold must be at least 0, got {self.wavelet_threshold!r}.")

    def __call__(self, x: Tensor) -> Tensor:
        """Denoise images ``(B, C, H, W)``."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
        average = (a + b + c + d) / 2
        across, down, diagonal = (
            F.softshrink(band / 2, self.wavelet_threshold) for band in (a - b + c - d, a + b - c - d, a - b - c + d)
        )
        a, b = average + across + down + diagonal, average - across + down - diagonal
        c, d = average + across - down - diagonal, average - across - down + diagonal
        top, bottom = torch.stack((a, b), dim=-1).flatten(-2), torch.stack((c, d), dim=-1).flatten(-2)
        return (torch.stack((top, bottom), dim=-2).flatten(-3, -2) / 2)[..., :height, :width]


def gaussian_taps(sigma: float, radius: int) -> list[float]:
    """The ``2 radius + 1`` weights of a Gaussian window, normalised to 1."""
    distances = [i / sigma for i in range(-radius, radius + 1)]
    weights = [math.exp(-0.5 * distance * distance) for distance in distances]
    total = sum(weights)
    return [weight / total for weight in weights]


def _slide(x: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """Correlate along one dimension, keeping only full windows.

    A sum of slices: exact in float32 on every device, where convolutions may round to TF32.
    """
    result: Tensor = _Slide.apply(x, tuple(taps), dim)  # type: ignore[no-untyped-call]
    return result


class _Slide(torch.autograd.Function):
    """The sum of slices and its transpose, each accumulated in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: tuple[float, ...], dim: int) -> Tensor:
        ctx.taps, ctx.dim = taps, dim
        length = x.shape[dim] - len(taps) + 1
        total = x.narrow(dim, 0, length) * taps[0]
        for i in range(1, len(taps)):
            total.add_(x.narrow(dim, i, length), alpha=taps[i])
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        shape, length = list(gradient.shape), gradient.shape[ctx.dim]
        shape[ctx.dim] = length + len(ctx.taps) - 1
        total = gradient.new_zeros(shape)
        for i in range(len(ctx.taps)):
            total.narrow(ctx.dim, i, length).add_(gradient, alpha=ctx.taps[i])
        return total, None, None
