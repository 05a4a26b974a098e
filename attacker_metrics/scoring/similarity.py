"""Two views -> one number per image: :class:`MSSSIM` and :class:`SquaredPearson`.

A similarity is any hashable callable ``(noisy_view, clean_view) -> (B,)``, both views ``(B, C, H, W)``; higher = more alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from attacker_metrics._names import DEFAULT_BETAS as DEFAULT_BETAS
from attacker_metrics._settings import number, positive_numbers
from attacker_metrics.engine.eager.ms_ssim import TAPS
from attacker_metrics.engine.operators import evaluate
from attacker_metrics.engine.program import NORMALIZATIONS, MSSSIMMeasurement, PearsonMeasurement, Program

Similarity = Callable[[Tensor, Tensor], Tensor]
Normalize = Literal["relu", "simple", "fold"] | None

_ACCEPTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def betas_for(side: int) -> tuple[float, ...]:
    """As many of MS-SSIM's five standard exponents as images of that size allow, scaled so that they sum to 1.

    The first few alone sum to less, which lifts every score: unrelated pictures of 32 pixels read about .26 with
    ``(0.0448, 0.2856)`` and .05 with the two scaled.

    Args:
        side: the smaller side in pixels, >= 11.

    Raises:
        ValueError: below 11 pixels.

    Example:
        >>> betas_for(32), len(betas_for(224))
        ((0.1356, 0.8644), 5)
    """
    scales = _scales_of(side)
    if scales == 0:
        raise ValueError(f"images of {side} pixels are too small for MS-SSIM, which needs {TAPS}.")
    return _first_betas(scales)


def _scales_of(side: int) -> int:
    return sum(side >= TAPS * 2**scale for scale in range(len(DEFAULT_BETAS)))


def _first_betas(scales: int) -> tuple[float, ...]:
    if scales == len(DEFAULT_BETAS):
        return DEFAULT_BETAS
    kept = DEFAULT_BETAS[:scales]
    but_last = [round(beta / sum(kept), 4) for beta in kept[:-1]]
    return *but_last, round(1 - sum(but_last), 4)


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

    ``"fold"`` is for training. It replaces a term by its magnitude, rounded to a parabola near 0,

    .. math::
        \phi(v) = |v| \;\text{where}\; |v| \ge f, \quad \frac{v^2 + f^2}{2 f} \;\text{elsewhere}, \quad f = 0.01

    so that a negative counts like a positive, and no term's slope dies but at v = 0, where structure is unrelated. The
    value is that of ``"relu"`` where every term is at least 0.01, and never below 0.005 for betas that sum to 1.

    - Its gradient is bounded: :math:`\phi \ge f / 2` and :math:`|\phi'| \le \min(1, |v| / f)`, so that the product's slope
      in a term is at most :math:`\beta f^{\beta - 1}`: 8 for the default betas, where ``"relu"`` reaches 24,000. The
      windows' weights over a pixel sum to at most 1 and :math:`|c| \le 1`, so that the mean contrast of n windows has a
      gradient of norm :math:`\sqrt{2 / (n C_2)}` at most, the luminance one of :math:`\sqrt{2 / (n C_1)}`; every halving
      halves it, and mirrored borders at most treble it. For 176 pixels that makes less than 33, whatever the pictures.
    - It stays alive along ``(1 - t) clean + t (1 - clean)``: with ``a = 1 - 2 t`` and V the clean variance in a window, the
      contrast there is :math:`(2 a V + C_2) / ((1 + a^2) V + C_2)`, which rises with a while V > 0 and a < 1. So every
      contrast term falls from 1 to near -1, and its magnitude falls to its minimum and rises again, each scale's at its own
      t. At ``noisy = clean``, the maximum of every similarity, the gradient is 0. Beyond, its norm was seen between
      0.002 (t = 0.05) and 0.4, and never below 0.007 for 0.5 <= t <= 0.85, on photographs of 176 pixels.

    Args:
        betas: the exponents, one per scale, > 0. The smaller side of an image must be at least
            ``11 * 2 ** (len(betas) - 1)``: 11, 22, 44, 88, 176 pixels for one to five scales. A sum below 1 lifts every
            score; :func:`betas_for` has exponents that sum to 1.
        data_range: L, the span of the pixel values, > 0.
        normalize: ``"relu"`` cuts negative terms to 0; ``"simple"`` maps terms by ``(v + 1) / 2``; ``"fold"`` takes their
            magnitude, for training; ``None`` leaves them (an image with a negative term is then NaN: a negative number
            has no real power).

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
    normalize: Normalize = "relu"

    def __post_init__(self) -> None:
        betas = positive_numbers("betas", self.betas, "be one or more positive numbers, one per scale")
        object.__setattr__(self, "betas", betas)
        data_range = number("data_range", self.data_range, "be a positive number", above=0)
        object.__setattr__(self, "data_range", data_range)
        if self.normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be 'relu', 'simple', 'fold' or None, got {self.normalize!r}.")

    @property
    def smallest_side(self) -> int:
        """The least height and width in pixels that leaves a full window at the coarsest scale."""
        return int(TAPS * 2 ** (len(self.betas) - 1))

    def check_size(self, height: int, width: int) -> None:
        """Raise a ``ValueError`` if an image of ``height`` x ``width`` pixels is too small for the scales."""
        if min(height, width) < self.smallest_side:
            fits = _scales_of(min(height, width))
            fewer = f"pass {fits} or fewer" if fits else "(for sides of 11 pixels or more) pass fewer"
            raise ValueError(
                f"images of {height} x {width} pixels are too small for MS-SSIM with {len(self.betas)} betas: the smaller"
                f" side must be at least {self.smallest_side} (11, 22, 44, 88, 176 for one to five betas). Resize the"
                f" images, or {fewer} betas, e.g. betas={_first_betas(max(fits, 1))}, which sum to 1 as the five do."
            )

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Compare two views ``(B, C, H, W)`` image by image, ``(B,)``."""
        _check_views(noisy, clean)
        self.check_size(*noisy.shape[-2:])
        if self.data_range != 1.0:
            noisy, clean = noisy / self.data_range, clean / self.data_range
        comparison = MSSSIMMeasurement(0, 1, 0, 1, self.betas, self.normalize)
        return _compare(noisy, clean, Program((), (comparison,), (), 1))


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
        object.__setattr__(self, "eps", number("eps", self.eps, "be a positive number", above=0))

    def __call__(self, noisy: Tensor, clean: Tensor) -> Tensor:
        """Correlate two views ``(B, ...)`` image by image, ``(B,)``."""
        _check_views(noisy, clean)
        noisy, clean = (view.flatten(1)[:, None, None] for view in (noisy, clean))
        return _compare(noisy, clean, Program((), (), (PearsonMeasurement(0, 1, 0, 1, self.eps),), 1))


def _compare(noisy: Tensor, clean: Tensor, program: Program) -> Tensor:
    finite = noisy.detach().isfinite().flatten(1).all(dim=1) & clean.detach().isfinite().flatten(1).all(dim=1)
    return evaluate(noisy, clean, finite, program)[:, 0]


def _check_views(noisy: Tensor, clean: Tensor) -> None:
    check_floating(noisy, clean)
    if noisy.shape != clean.shape:
        raise ValueError(
            f"the noisy and the clean view must have the same shape, got {tuple(noisy.shape)} and {tuple(clean.shape)}."
        )
    if 0 in noisy.shape[1:]:
        raise ValueError(f"the views have no pixels: shape {tuple(noisy.shape)}.")


def check_floating(noisy: Any, clean: Any) -> None:
    """Raise a ``TypeError`` unless both are tensors of float16, bfloat16, float32 or float64."""
    for name, value in (("noisy", noisy), ("clean", clean)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"the {name} images must be a torch.Tensor, got {type(value).__name__}; convert NumPy arrays (B, H, W, C)"
                " by torch.from_numpy(images).permute(0, 3, 1, 2)."
            )
        if value.dtype not in _ACCEPTED:
            raise TypeError(
                f"the {name} images must be float16, bfloat16, float32 or float64, got {value.dtype};"
                " convert uint8 images by images.float() / 255."
            )
