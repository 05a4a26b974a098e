"""Image -> view: what an attacker makes of a picture before comparing it with the original.

An attacker is any callable that maps a floating tensor ``(B, C, H, W)`` to a view ``(B, C', H', W')``, image by image
(no image may influence another), and that can be hashed (a function, a frozen dataclass, a module). A chain of attackers,
applied left to right, is a plain tuple of them. Those below are differentiable by autograd; beside each stands its
pull-back, the transpose of its derivative written out, with which the engine differentiates without a graph.

Attackers that normalise their own output (:func:`minmax`, :func:`sobel`, :func:`standardize`) expect the raw tensor;
those that need a displayable picture (:class:`Blur`, :class:`Gamma`, :class:`Wavelet`) expect values in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics._names import DEFAULT_GAMMA_ATTACK_VALUES as DEFAULT_GAMMA_ATTACK_VALUES
from attacker_metrics._names import DEFAULT_GAUSSIAN_BLUR_SIGMA as DEFAULT_GAUSSIAN_BLUR_SIGMA
from attacker_metrics._names import DEFAULT_WAVELET_SOFT_THRESHOLD as DEFAULT_WAVELET_SOFT_THRESHOLD
from attacker_metrics._settings import number
from attacker_metrics.attackers.moments import mean_of_products
from attacker_metrics.attackers.slopes import cut, slide, slide_back

Attacker = Callable[[Tensor], Tensor]

_IMAGE = (1, 2, 3)  # the dimensions of one image


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
    return (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def _pull_back_luma(_x: Tensor, _view: Tensor, gradient: Tensor) -> Tensor:
    return torch.cat((0.299 * gradient, 0.587 * gradient, 0.114 * gradient), dim=1)


def clamp(x: Tensor) -> Tensor:
    """Cut values to [0, 1], as any viewer does; the gradient passes at both bounds.

    Example:
        >>> import torch
        >>> clamp(torch.tensor([[[[-0.5, 0.25, 1.5]]]]))
        tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """
    return cut(x, 0.0, 1.0)


def _pull_back_clamp(x: Tensor, view: Tensor, gradient: Tensor) -> Tensor:
    return torch.where(x == view, gradient, 0.0)


def minmax(x: Tensor) -> Tensor:
    """Stretch every image to [0, 1]: ``(x - min) / max(max - min, 1e-8)`` over C, H and W.

    Pixels that tie for the minimum or maximum share its gradient equally.

    Example:
        >>> import torch
        >>> minmax(torch.tensor([[[[2.0, 3.0, 6.0]]]]))
        tensor([[[[0.0000, 0.2500, 1.0000]]]])
    """
    low, high = x.amin(dim=_IMAGE, keepdim=True), x.amax(dim=_IMAGE, keepdim=True)
    return (x - low).div_(cut(high - low, low=1e-8))


def _pull_back_minmax(x: Tensor, view: Tensor, gradient: Tensor) -> Tensor:
    low, high = x.amin(dim=_IMAGE, keepdim=True), x.amax(dim=_IMAGE, keepdim=True)
    span = (high - low).clamp(min=1e-8)
    moves = (high - low >= 1e-8) * gradient[0].numel()
    of_span = mean_of_products(gradient, view) * moves  # minus span * d view / d span
    of_low = of_span - gradient.sum(dim=_IMAGE, keepdim=True)
    total = gradient.clone()
    for bound, slope in ((low, of_low), (high, -of_span)):
        ties = x == bound
        total.add_(ties * (slope / ties.sum(dim=_IMAGE, keepdim=True)))
    return total.div_(span)


def sobel(x: Tensor) -> Tensor:
    """Edge strength ``sqrt(gx^2 + gy^2 + 1e-6)``: 3x3 Sobel / 8, border pixels repeated (as kornia's ``sobel``).

    Example:
        >>> import torch
        >>> sobel(torch.ones(1, 1, 3, 3)).amax()  # no edges
        tensor(0.0010)
    """
    gx, gy = _edges(x)
    floor = torch.full((), 1e-3, dtype=x.dtype, device=x.device)
    return torch.hypot(torch.hypot(gx, floor), gy)  # a root of squares whose squares and slopes cannot overflow


_RISE, _ACROSS = (-0.5, 0.0, 0.5), (0.25, 0.5, 0.25)


def _edges(x: Tensor) -> tuple[Tensor, Tensor]:
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return slide(slide(padded, _RISE, dim=3), _ACROSS, dim=2), slide(slide(padded, _ACROSS, dim=3), _RISE, dim=2)


def _pull_back_sobel(x: Tensor, view: Tensor, gradient: Tensor) -> Tensor:
    weight = gradient / view
    gx, gy = (edge.mul_(weight) for edge in _edges(x))
    padded = slide_back(slide_back(gx, _ACROSS, dim=2), _RISE, dim=3)
    padded += slide_back(slide_back(gy, _RISE, dim=2), _ACROSS, dim=3)
    folded: Tensor = torch.ops.aten.replication_pad2d_backward(padded, x, (1, 1, 1, 1))
    return folded


def standardize(x: Tensor) -> Tensor:
    """Squash the z-scores of every image: ``sigmoid((x - mean) / max(std, 1e-6))``, population moments over C, H, W.

    Example:
        >>> import torch
        >>> standardize(torch.tensor([[[[-3.0, 3.0]]]]))
        tensor([[[[0.2689, 0.7311]]]])
    """
    centred = x - x.mean(dim=_IMAGE, keepdim=True)
    variance = mean_of_products(centred, centred)
    return (centred / cut(variance, low=1e-12).sqrt()).sigmoid_()


def _pull_back_standardize(x: Tensor, view: Tensor, gradient: Tensor) -> Tensor:
    z = x - x.mean(dim=_IMAGE, keepdim=True)
    variance = mean_of_products(z, z)
    deviation = variance.clamp(min=1e-12).sqrt()
    z /= deviation
    slope = (1 - view).mul_(view).mul_(gradient)  # through the sigmoid
    of_deviation = mean_of_products(slope, z).mul_(variance >= 1e-12)
    return slope.sub_(slope.mean(dim=_IMAGE, keepdim=True)).sub_(z.mul_(of_deviation)).div_(deviation)


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
        sigma = number("blur_sigma", self.blur_sigma, "be a positive number of pixels", above=0)
        object.__setattr__(self, "blur_sigma", sigma)

    def check_size(self, height: int, width: int) -> None:
        """Raise a ``ValueError`` if an image of ``height`` x ``width`` pixels is too small to mirror at its border."""
        radius = math.ceil(3 * self.blur_sigma)
        if min(height, width) <= radius:
            raise ValueError(
                f"images of {height} x {width} pixels are too small for blur_sigma={self.blur_sigma}: both sides must"
                f" exceed ceil(3 * blur_sigma) = {radius}. Resize the images, or pass a smaller blur_sigma."
            )

    def __call__(self, x: Tensor) -> Tensor:
        """Blur images ``(B, C, H, W)``."""
        self.check_size(*x.shape[-2:])
        radius = math.ceil(3 * self.blur_sigma)
        taps = gaussian_taps(self.blur_sigma, radius)
        padded = F.pad(x, (radius, radius, radius, radius), mode="reflect")
        return slide(slide(padded, taps, dim=2), taps, dim=3)

    def pull_back(self, x: Tensor, _view: Tensor, gradient: Tensor) -> Tensor:
        """The transposed filter, its border folded back."""
        radius = math.ceil(3 * self.blur_sigma)
        taps = gaussian_taps(self.blur_sigma, radius)
        padded = slide_back(slide_back(gradient, taps, dim=3), taps, dim=2)
        folded: Tensor = torch.ops.aten.reflection_pad2d_backward(padded, x, (radius,) * 4)
        return folded


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
        gamma = number("every value of gamma_values", self.gamma, "be a positive number", above=0)
        object.__setattr__(self, "gamma", gamma)

    def __call__(self, x: Tensor) -> Tensor:
        """Bend the tones of images ``(B, C, H, W)``."""
        return cut(x, 1e-6, 1.0) ** self.gamma

    def pull_back(self, x: Tensor, view: Tensor, gradient: Tensor) -> Tensor:
        """``gamma x ** (gamma - 1)`` inside [1e-6, 1], 0 outside."""
        inside = x.clamp(1e-6, 1.0)
        return torch.where(x == inside, gradient * view / inside * self.gamma, 0.0)


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
        threshold = number("wavelet_threshold", self.wavelet_threshold, "be at least 0", least=0)
        object.__setattr__(self, "wavelet_threshold", threshold)

    def __call__(self, x: Tensor) -> Tensor:
        """Denoise images ``(B, C, H, W)``."""
        height, width = x.shape[-2:]
        average, *details = _haar(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"))
        shrunk = [F.softshrink(band, self.wavelet_threshold) for band in details]
        return _unhaar(average, *shrunk)[..., :height, :width]

    def pull_back(self, x: Tensor, _view: Tensor, gradient: Tensor) -> Tensor:
        """The transform is its own transpose; a coefficient at or below the threshold passes nothing."""
        height, width = x.shape[-2:]
        odd = (0, width % 2, 0, height % 2)
        _, *details = _haar(F.pad(x, odd, mode="replicate"))
        average, *slopes = _haar(F.pad(gradient, odd))
        for band, slope in zip(details, slopes, strict=True):
            slope.mul_(band.abs_() > self.wavelet_threshold)
        padded = _unhaar(average, *slopes)
        return torch.ops.aten.replication_pad2d_backward(padded, x, odd) if any(odd) else padded


def pull_back(attacker: Attacker, x: Tensor, view: Tensor, gradient: Tensor) -> Tensor:
    """The gradient in ``x`` of a number whose gradient in ``view = attacker(x)`` is given, for an attacker of this module.

    Args:
        attacker: one of those above.
        x: what it was applied to.
        view: what it returned.
        gradient: the gradient in the view.
    """
    if isinstance(attacker, (Blur, Gamma, Wavelet)):
        return attacker.pull_back(x, view, gradient)
    return _PULL_BACKS[attacker](x, view, gradient)


def gaussian_taps(sigma: float, radius: int) -> list[float]:
    """The ``2 radius + 1`` weights of a Gaussian window, normalised to 1."""
    distances = [i / sigma for i in range(-radius, radius + 1)]
    weights = [math.exp(-0.5 * distance * distance) for distance in distances]
    total = sum(weights)
    return [weight / total for weight in weights]


def _haar(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The orthonormal transform of even-sized images: averages, and details across, down and diagonal."""
    a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    above, below, above_rise, below_rise = a + b, c + d, a - b, c - d
    return (above + below) / 2, (above_rise + below_rise) / 2, (above - below) / 2, (above_rise - below_rise) / 2


def _unhaar(average: Tensor, across: Tensor, down: Tensor, diagonal: Tensor) -> Tensor:
    """The inverse of :func:`_haar`, and its transpose."""
    x = average.new_empty(*average.shape[:-2], 2 * average.shape[-2], 2 * average.shape[-1])
    above, below, above_rise, below_rise = average + down, average - down, across + diagonal, across - diagonal
    x[..., 0::2, 0::2], x[..., 0::2, 1::2] = (above + above_rise) / 2, (above - above_rise) / 2
    x[..., 1::2, 0::2], x[..., 1::2, 1::2] = (below + below_rise) / 2, (below - below_rise) / 2
    return x


_PULL_BACKS: dict[Attacker, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    luma: _pull_back_luma,
    clamp: _pull_back_clamp,
    minmax: _pull_back_minmax,
    sobel: _pull_back_sobel,
    standardize: _pull_back_standardize,
}
