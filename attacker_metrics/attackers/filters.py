"""Further attackers, image -> view: those that the versioned suites add to the attackers of the specification.

Contracts are those of :mod:`attacker_metrics.attackers`: floating tensors ``(B, C, H, W)``, image by image, hashable. They
are differentiated by autograd where they have a slope; rounding (:class:`JPEG`) passes the gradient straight through.
:class:`AffineFit` looks at the clean image too, which makes it an oracle and a similarity, not an attacker.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics._settings import number, whole
from attacker_metrics.attackers.slopes import cut
from attacker_metrics.attackers.standard import DEFAULT_GAUSSIAN_BLUR_SIGMA, Blur, gaussian_taps, luma

_PIXELS = (2, 3)


def invert(x: Tensor) -> Tensor:
    """Turn a negative into a positive: ``1 - x``.

    Example:
        >>> import torch
        >>> invert(torch.tensor([[[[0.0, 0.25]]]]))
        tensor([[[[1.0000, 0.7500]]]])
    """
    return 1 - x


@dataclass(frozen=True)
class Equalize:
    """Histogram equalisation: every value becomes the share of the image's pixels below it, over C, H and W.

    The histogram spans the image's own range, as that of ``skimage.exposure.equalize_hist``; between the centres of its bins
    the share is interpolated, and that slope is the gradient.

    Args:
        bins: number of bins, >= 2.

    Raises:
        ValueError: if there are fewer than two bins.

    Example:
        >>> import torch
        >>> Equalize()(torch.tensor([[[[3.0, 5.0, 6.0, 90.0]]]])).round(decimals=2)
        tensor([[[[0.2500, 0.5000, 0.7500, 1.0000]]]])
    """

    bins: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "bins", whole("bins", self.bins, 2))

    def __call__(self, x: Tensor) -> Tensor:
        """Equalise images ``(B, C, H, W)``."""
        flat = x.flatten(1).to(torch.promote_types(x.dtype, torch.float32))
        low, high = flat.detach().amin(dim=1, keepdim=True), flat.detach().amax(dim=1, keepdim=True)
        position = (flat - low) * (self.bins / (high - low).clamp(min=1e-8))
        here = position.detach()
        bins = here.long().clamp(0, self.bins - 1)  # NaN has any index; it stays NaN by its position
        counts = bins.new_zeros(len(x), self.bins, dtype=torch.int32)  # float32 ends counting at 2^24
        counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=counts.dtype))
        shares = counts.cumsum(dim=1).to(flat.dtype) / flat.shape[1]
        below = (here - 0.5).floor_().long().clamp(0, self.bins - 2)
        share_below, share_above = shares.gather(1, below), shares.gather(1, below + 1)
        step = cut(position - 0.5 - below, 0.0, 1.0)
        return (share_below + step * (share_above - share_below)).view_as(x).to(x.dtype)


def median(x: Tensor) -> Tensor:
    """Median of the 3 x 3 neighbourhood, border pixels repeated.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 1, 5, 5)
        >>> x[0, 0, 2, 2] = 1.0  # a lone pixel vanishes
        >>> median(x).amax()
        tensor(0.)
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    # The median of nine is that of three: the largest of the columns' minima, the median of their medians, the least of
    # their maxima.
    low, middle, high = _sort3(*(padded.narrow(2, i, x.shape[2]) for i in range(3)))
    lows, middles, highs = ([column.narrow(3, i, x.shape[3]) for i in range(3)] for column in (low, middle, high))
    greatest_low = torch.maximum(torch.maximum(lows[0], lows[1]), lows[2])
    least_high = torch.minimum(torch.minimum(highs[0], highs[1]), highs[2])
    return _middle(greatest_low, _middle(*middles), least_high)


def _sort3(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    a, b = torch.minimum(a, b), torch.maximum(a, b)
    b, c = torch.minimum(b, c), torch.maximum(b, c)
    return torch.minimum(a, b), torch.maximum(a, b), c


def _middle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


@dataclass(frozen=True)
class Unsharp:
    """Unsharp mask ``clamp(x + amount (x - blur(x)), 0, 1)``, with the blur of :class:`~attacker_metrics.attackers.Blur`.

    Args:
        blur_sigma: standard deviation of the blur in pixels, > 0.
        amount: how much of the lost detail is added, > 0.

    Raises:
        ValueError: if a setting is not positive, or an image is too small for the blur.

    Example:
        >>> import torch
        >>> Unsharp()(torch.full((1, 1, 8, 8), 0.5)).amax().round(decimals=4)
        tensor(0.5000)
    """

    blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA
    amount: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "blur_sigma", Blur(self.blur_sigma).blur_sigma)
        object.__setattr__(self, "amount", number("amount", self.amount, "be a positive number", above=0))

    def __call__(self, x: Tensor) -> Tensor:
        """Sharpen images ``(B, C, H, W)``."""
        return cut(x.add(x - Blur(self.blur_sigma)(x), alpha=self.amount), 0.0, 1.0)


@dataclass(frozen=True)
class Wiener:
    r"""Wiener deconvolution of a known Gaussian blur: in frequency :math:`H / (H^2 + \epsilon)`; the mean is kept.

    H is the response of :class:`~attacker_metrics.attackers.Blur`, mirrored border included: without noise and for
    :math:`\epsilon \to 0` the filter undoes it exactly (in large images but for the border, by 1e-5 at the defaults).

    Args:
        blur_sigma: standard deviation in pixels of the blur that is undone, > 0.
        noise_to_signal: :math:`\epsilon`, the power of the noise relative to that of the picture, > 0.

    Raises:
        ValueError: if a setting is not positive, or an image is too small for the blur.

    Example:
        >>> import torch
        >>> from attacker_metrics.attackers import Blur
        >>> x = torch.rand(1, 1, 40, 40)
        >>> blurred = Blur(1.0)(x)
        >>> bool((Wiener(1.0, 1e-6)(blurred) - x).abs().mean() < 0.5 * (blurred - x).abs().mean())
        True

    Source:
        Wiener: Extrapolation, interpolation, and smoothing of stationary time series, 1949.
    """

    blur_sigma: float = DEFAULT_GAUSSIAN_BLUR_SIGMA
    noise_to_signal: float = 1e-2

    def __post_init__(self) -> None:
        object.__setattr__(self, "blur_sigma", Blur(self.blur_sigma).blur_sigma)
        power = number("noise_to_signal", self.noise_to_signal, "be a positive number", above=0)
        object.__setattr__(self, "noise_to_signal", power)

    def __call__(self, x: Tensor) -> Tensor:
        """Deconvolve images ``(B, C, H, W)``."""
        height, width = x.shape[-2:]
        Blur(self.blur_sigma).check_size(height, width)
        level = x.mean(dim=_PIXELS, keepdim=True)  # no noise hides it: the filter must not dim it
        (above, below), (left, right) = self._margins(height), self._margins(width)
        mirrored = F.pad(x - level, (left, right, above, below), mode="reflect")
        down = self._response(torch.fft.fftfreq(mirrored.shape[2], dtype=x.dtype, device=x.device))
        across = self._response(torch.fft.rfftfreq(mirrored.shape[3], dtype=x.dtype, device=x.device))
        response = down[:, None] * across
        inverse = response / (response.square() + self.noise_to_signal)
        spectrum = torch.fft.rfft2(mirrored) * inverse
        rows = torch.fft.ifft(spectrum, dim=2).narrow(2, above, height)
        restored: Tensor = torch.fft.irfft(rows, n=mirrored.shape[3], dim=3).narrow(3, left, width)
        return cut(restored + level, 0.0, 1.0)

    def _margins(self, length: int) -> tuple[int, int]:
        """How far to mirror a side at its start and at its end, so that a circular border is a mirrored one.

        The whole mirror image is exact; of large images a margin as wide as the filter reaches is enough, and faster.
        """
        margin = 8 * math.ceil(3 * self.blur_sigma)
        whole = length - 2
        added = min(whole, -(-(length + 2 * margin) // 32) * 32 - length)  # multiples of 32 transform fast
        end = (added + 1) // 2 if added < whole else whole
        return added - end, end

    def _response(self, frequencies: Tensor) -> Tensor:
        radius = math.ceil(3 * self.blur_sigma)
        taps = gaussian_taps(self.blur_sigma, radius)[radius:]
        half = torch.tensor(taps, dtype=frequencies.dtype, device=frequencies.device)
        waves = torch.cos(2 * math.pi * frequencies[:, None] * torch.arange(radius + 1, device=frequencies.device))
        return 2 * (waves * half).sum(dim=1) - half[0]


@dataclass(frozen=True)
class JPEG:
    """What JPEG compression leaves of every channel: 8-bit values, 8 x 8 cosine transforms, the quantised coefficients.

    Compression is lossless behind the quantisation, so none takes place. Channels are treated as luma. Sides that are no
    multiple of 8 are extended by their last row or column and cropped back. The gradient passes through every rounding.

    Args:
        quality: 1 (coarse) to 100, on the scale of the Independent JPEG Group.

    Raises:
        ValueError: if the quality is not in 1..100.

    Example:
        >>> import torch
        >>> JPEG(50)(torch.full((1, 1, 8, 8), 0.5)).unique()
        tensor([0.5020])

    Source:
        ITU-T T.81, tables K.1; the scale is that of the Independent JPEG Group's library.
    """

    quality: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "quality", whole("quality", self.quality, 1, 100))

    def __call__(self, x: Tensor) -> Tensor:
        """Compress and decompress images ``(B, C, H, W)`` in [0, 1]."""
        height, width = x.shape[-2:]
        levels = _round(cut(x, 0.0, 1.0) * 255 + _UPWARD) - 128
        levels = F.pad(levels, (0, -width % 8, 0, -height % 8), mode="replicate")
        rows, columns = levels.shape[2] // 8, levels.shape[3] // 8
        blocks = levels.reshape(*x.shape[:2], rows, 8, columns, 8).transpose(3, 4)
        cosines = torch.tensor(_cosines(), dtype=x.dtype, device=x.device)
        table = torch.tensor(_quantisation(self.quality), dtype=x.dtype, device=x.device)
        coefficients = _round(cosines @ blocks @ cosines.T / table + _UPWARD) * table
        levels = (cosines.T @ coefficients @ cosines).transpose(3, 4).flatten(4, 5).flatten(2, 3)[..., :height, :width]
        return cut(_round(levels + 128 + _UPWARD), 0.0, 255.0) / 255


_UPWARD = 1e-4
"""Steps. Lumas and means of 8-bit values often lie halfway between two steps, where rounding errors would decide."""


def _round(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


@functools.cache
def _cosines() -> list[list[float]]:
    """The orthonormal cosine transform of 8 values."""
    return [[math.sqrt((2 if k else 1) / 8) * math.cos(math.pi * k * (2 * i + 1) / 16) for i in range(8)] for k in range(8)]


_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


@functools.cache
def _quantisation(quality: int) -> list[list[float]]:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [[float(min(max((step * scale + 50) // 100, 1), 255)) for step in row] for row in _LUMINANCE]


@dataclass(frozen=True)
class AffineFit:
    r"""An oracle's comparison: the noisy picture is first brought, channel by channel, as close to the clean one as it gets.

    Every channel of the noisy picture is replaced by :math:`a x + b`, clamped to [0, 1], with the a and b of least squares
    *against the clean picture*, which no real attacker has: an upper bound for everyone who guesses brightness, contrast and
    sign of each channel. Then both are compared as luma. The gradient takes a and b as constants.

    Args:
        similarity: compares the two luma views ``(B, 1, H, W)``, ``(noisy, clean) -> (B,)``.

    Example:
        >>> import torch
        >>> from attacker_metrics.scoring.similarity import SquaredPearson
        >>> clean = torch.rand(2, 3, 8, 8)
        >>> noisy = clean * torch.tensor([-1e-4, 0.5, -2.0]).view(3, 1, 1)  # each channel with another contrast
        >>> AffineFit(SquaredPearson())(noisy, clean).round(decimals=4)
        tensor([1., 1.])
    """

    similarity: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two colour views ``(B, 3, H, W)``, the noisy one raw."""
        return self.similarity(luma(self.fitted(noisy, clean)), luma(clean))

    @staticmethod
    def fitted(noisy: Tensor, clean: Tensor) -> Tensor:
        """The noisy picture at its best, ``(B, 3, H, W)`` in [0, 1]."""
        x, y = noisy.detach(), clean.detach()
        offset, target = x.mean(dim=_PIXELS, keepdim=True), y.mean(dim=_PIXELS, keepdim=True)
        x = x - offset
        rest = x.mean(dim=_PIXELS, keepdim=True)  # what rounding left of the mean matters where the contrast is tiny
        x = x - rest
        variance = x.square().mean(dim=_PIXELS, keepdim=True)
        slope = (x * (y - target)).mean(dim=_PIXELS, keepdim=True) / variance.clamp(min=1e-30)
        return cut((noisy - offset - rest) * slope + target, 0.0, 1.0)


def mean_of_draws(draws: Tensor) -> Tensor:
    """Average several draws of a random obfuscation of the same images: independent noise shrinks by ``sqrt(K)``.

    Args:
        draws: ``(K, B, C, H, W)``.

    Returns:
        ``(B, C, H, W)``, what an attacker sees who collects K of them.

    Raises:
        ValueError: for another shape, or no draw.

    Example:
        >>> import torch
        >>> mean_of_draws(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 4, 3, 8, 8)).unique()
        tensor([0.5000])
    """
    if not isinstance(draws, Tensor):
        raise TypeError(f"draws must be a torch.Tensor (K, B, C, H, W), got {type(draws).__name__}; see torch.stack.")
    if draws.ndim != 5 or len(draws) == 0:
        raise ValueError(f"draws must have shape (K, B, C, H, W) with K >= 1, got {tuple(draws.shape)}.")
    return draws.mean(dim=0)


def draw(obfuscation: Callable[[Tensor], Tensor], clean: Tensor, count: int) -> Tensor:
    """Obfuscate the same images ``count`` times, ``(K, B, C, H, W)``, for :func:`mean_of_draws`.

    Args:
        obfuscation: maps images ``(B, C, H, W)`` to noisy ones; draws from its own generator.
        clean: images ``(B, C, H, W)``.
        count: K, the number of draws, >= 1.

    Raises:
        ValueError: if ``count`` is less than 1.

    Example:
        >>> import torch
        >>> clean = torch.zeros(1, 3, 8, 8)
        >>> draws = draw(lambda images: images + torch.randn_like(images), clean, 100)
        >>> bool(mean_of_draws(draws).std() < 0.2)
        True
    """
    return torch.stack([obfuscation(clean) for _ in range(whole("the number of draws", count, 1))])
