"""Two views -> one number per image: :class:`MSSSIM` and :class:`SquaredPearson`.

A similarity is any hashable callable ``(noisy_view, clean_view) -> (B,)``, both views ``(B, C, H, W)``; higher = more alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attacker_metrics.attackers import gaussian_taps

Similarity = Callable[[Tensor, Tensor], Tensor]

DEFAULT_BETAS: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)

_TAPS, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2  # the constants for a data range of 1
_SLOPE_FLOOR = 1e-6


@dataclass(frozen=True)
class MSSSIM:
    r"""Multi-scale structural similarity, in [0, 1] with ``normalize="relu"``; 1 = identical, higher = leaks more.

    With :math:`\mu, \sigma` the moments under an 11-tap Gaussian window (sigma 1.5), :math:`C_i = (K_i L)^2`,
    :math:`K = (0.01, 0.03)` and scales made by 2 x 2 averages,

    .. math::
        \prod_{j=1}^{M-1} \Big[\overline{\tfrac{2\sigma_{xy} + C_2}{\sigma_x^2 + \sigma_y^2 + C_2}}\Big]^{\beta_j}
        \cdot \Big[\overline{\tfrac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
        {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}}\Big]^{\beta_M}

    The contrast terms average the windows that lie inside the image, the last factor every pixel with mirrored borders;
    channels share one average before the powers. These are the numbers of
    ``torchmetrics.functional.image.multiscale_structural_similarity_index_measure``.

    A term ``v <= 0`` makes the product exactly 0 with slope 0 under ``"relu"``: the views then look unlike to this
    measure, which an inverting attacker undoes. The slope of ``v ** beta`` is taken at ``max(v, 1e-6)``.

    Args:
        betas: the exponents, one per scale, > 0. The smaller side of an image must be at least
            ``11 * 2 ** (len(betas) - 1)``: 11, 22, 44, 88, 176 pixels for one to five scales.
        data_range: L, the span of the pixel values, > 0.
        normalize: ``"relu"`` cuts negative terms to 0; ``"simple"`` maps terms by ``(v + 1) / 2``; ``None`` leaves them
            (an image with a negative term is then NaN: a negative number has no real power).

    Raises:
        ValueError: for unusable arguments, views of different shapes, or an image that is too small.

    Example:
        >>> import torch
        >>> views = torch.rand(2, 1, 22, 22)
        >>> MSSSIM(betas=(0.5, 0.5))(views, views).round(decimals=4)
        tensor([1., 1.])

    Source:
        Wang, Simoncelli, Bovik: Multi-scale structural similarity for image quality assessment, 2003.
    """

    betas: tuple[float, ...] = DEFAULT_BETAS
    data_range: float = 1.0
    normalize: Literal["relu", "simple"] | None = "relu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        if not self.betas or not all(0 < beta < math.inf for beta in self.betas):
            raise ValueError(f"betas must be one or more positive numbers, one per scale, got {self.betas!r}.")
        if not 0 < self.data_range < math.inf:
            raise ValueError(f"data_range must be a positive number, got {self.data_range!r}.")
        if self.normalize not in ("relu", "simple", None):
            raise ValueError(f"normalize must be 'relu', 'simple' or None, got {self.normalize!r}.")

    @property
    def smallest_side(self) -> int:
        """The least height and width in pixels that leaves a full window at the coarsest scale."""
        return int(_TAPS * 2 ** (len(self.betas) - 1))

    def check_size(self, height: int, width: int) -> None:
        """Raise a ``ValueError`` if an image of ``height`` x ``width`` pixels is too small for the scales."""
        if min(height, width) < self.smallest_side:
            fits = int(math.log2(min(height, width) / _TAPS)) + 1 if min(height, width) >= _TAPS else 0
            fewer = f"pass {fits} or fewer" if fits else "(for sides of 11 pixels or more) pass fewer"
            raise ValueError(
                f"images of {height} x {width} pixels are too small for MS-SSIM with {len(self.betas)} betas: the smaller"
                f" side must be at least {self.smallest_side} (11, 22, 44, 88, 176 for one to five betas). Resize the"
                f" images, or {fewer} betas, e.g. betas={DEFAULT_BETAS[: max(fits, 1)]}."
            )

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two views ``(B, C, H, W)`` image by image, ``(B,)``."""
        _check_same_shape(noisy, clean)
        self.check_size(*noisy.shape[-2:])
        terms = self._terms(noisy / self.data_range, clean / self.data_range)
        if self.normalize == "simple":
            terms = [(term + 1) / 2 for term in terms]
        score = _power(terms[0], self.betas[0])
        for term, beta in zip(terms[1:], self.betas[1:], strict=True):
            score = score * _power(term, beta)
        if self.normalize is None:
            negative = torch.stack(terms).detach().amin(dim=0) < 0
            score = torch.where(negative, torch.nan, score)
        return score.clamp(max=1.0)  # rounding

    def _terms(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """The mean contrast of every scale but the last, then the mean SSIM of the last: M tensors ``(B,)``."""
        # E(x^2) - mu^2 cancels: moments are taken of centred planes, whose variances and covariances are the same.
        x_offset, y_offset = (v.detach().mean(dim=(2, 3), keepdim=True) for v in (x, y))
        x, y = x - x_offset, y - y_offset
        terms = []
        for _ in self.betas[:-1]:
            _, _, contrast = _moments(x, y)
            terms.append(contrast.mean(dim=(1, 2, 3)))
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        border = (_TAPS // 2,) * 4
        mu_x, mu_y, contrast = _moments(F.pad(x, border, mode="reflect"), F.pad(y, border, mode="reflect"))
        mu_x, mu_y = mu_x + x_offset, mu_y + y_offset
        luminance = (2 * mu_x * mu_y + _C1) / (mu_x * mu_x + mu_y * mu_y + _C1)
        return [*terms, (luminance * contrast).mean(dim=(1, 2, 3))]


@dataclass(frozen=True)
class SquaredPearson:
    r"""Squared correlation :math:`r^2 = \mathrm{cov}^2 / \max(\sigma_x^2 \sigma_y^2, \epsilon)`, in [0, 1].

    Population moments over everything but the first dimension. 1 = one view is an affine function of the other (also a
    falling one), 0 = no linear relation; higher = leaks more. Where the product of the variances is below ``eps`` the
    value is deflated: a picture whose contrast was shrunk to 1e-5 reads .01, though min-max would recover it.

    Args:
        eps: floor of the product of the variances, > 0.

    Raises:
        ValueError: if ``eps`` is not positive or the views' shapes differ.

    Example:
        >>> import torch
        >>> views = torch.rand(2, 1, 8, 8)
        >>> SquaredPearson()(1 - views, views).round(decimals=4)
        tensor([1., 1.])
    """

    eps: float = 1e-12

    def __post_init__(self) -> None:
        if not 0 < self.eps < math.inf:
            raise ValueError(f"eps must be a positive number, got {self.eps!r}.")

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Correlate two views ``(B, ...)`` image by image, ``(B,)``."""
        _check_same_shape(noisy, clean)
        x, y = noisy.flatten(1), clean.flatten(1)
        x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
        covariance = (x * y).mean(dim=1)
        # Deviations instead of the product of variances: of values up to 1e15 that would overflow.
        deviations = [(v * v).mean(dim=1).clamp(min=1e-36).sqrt() for v in (x, y)]
        r = covariance / (deviations[0] * deviations[1]).clamp(min=math.sqrt(self.eps))
        return (r * r).clamp(max=1.0)


def _check_same_shape(noisy: Tensor, clean: Tensor) -> None:
    if noisy.shape != clean.shape:
        raise ValueError(
            f"the noisy and the clean view must have the same shape, got {tuple(noisy.shape)} and {tuple(clean.shape)}."
        )


def _moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Local means of both planes and their contrast-structure map, for windows inside the given planes."""
    mu_x, mu_y, xx, yy, xy = _window_mean(torch.cat((x, y, x * x, y * y, x * y), dim=1)).chunk(5, dim=1)
    variance_x, variance_y = (xx - mu_x * mu_x).clamp(min=0.0), (yy - mu_y * mu_y).clamp(min=0.0)
    covariance = xy - mu_x * mu_y
    return mu_x, mu_y, (2 * covariance + _C2) / (variance_x + variance_y + _C2)


def _window_mean(planes: Tensor) -> Tensor:
    """Gaussian means of ``(B, P, H, W)`` over full windows only: two depth-wise passes, channels last for speed.

    There are always five planes or more, so that on a GPU the depth-wise kernels run, which do not round to TF32.
    """
    count = planes.shape[1]
    window = torch.tensor(gaussian_taps(_SIGMA, _TAPS // 2), dtype=planes.dtype, device=planes.device)
    planes = planes.contiguous(memory_format=torch.channels_last)
    planes = F.conv2d(planes, window.view(1, 1, -1, 1).expand(count, 1, -1, 1).contiguous(), groups=count)
    return F.conv2d(planes, window.view(1, 1, 1, -1).expand(count, 1, 1, -1).contiguous(), groups=count)


def _power(v: Tensor, beta: float) -> Tensor:
    """``max(v, 0) ** beta``: exact values, slope taken at ``max(v, 1e-6)`` and 0 for ``v <= 0``."""
    slope = beta * _SLOPE_FLOOR ** (beta - 1)
    below = v.detach().clamp(min=0.0) ** beta + (v - v.detach()) * slope
    regular = v.clamp(min=_SLOPE_FLOOR) ** beta
    return torch.where(v >= _SLOPE_FLOOR, regular, torch.where(v > 0, below, torch.zeros_like(v)))
