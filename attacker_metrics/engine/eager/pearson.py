r"""Squared Pearson correlation of two views and its closed-form slope.

With the deviations from the means :math:`x_c, y_c` over the n values of an image, :math:`\sigma` their root mean squares and
:math:`D = \max(\sigma_x \sigma_y, \sqrt\epsilon)`,

.. math::
    r = \frac{\overline{x_c y_c}}{D}, \quad
    \frac{\partial r^2}{\partial x} = \frac{2 r}{n} \Big( \frac{y_c}{D} - r\,\frac{x_c}{\sigma_x^2} \Big)

where the second term is missing while D is at its floor. Deviations are used instead of the product of variances, which
would overflow for values of 1e15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attacker_metrics.attackers.moments import strips

_IMAGE = (1, 2, 3)
_FLOOR = 1e-36  # of a variance, so that its root can be divided by


@dataclass(frozen=True)
class Correlation:
    """The correlation of two views, image by image; every field but the views ``(B, 1, 1, 1)``."""

    views: tuple[Tensor, Tensor]
    means: tuple[Tensor, Tensor]
    variances: tuple[Tensor, Tensor]
    product: Tensor
    floor: float
    r: Tensor

    @property
    def squared(self) -> Tensor:
        """``r^2`` per image, ``(B,)``, without what rounding adds beyond 1."""
        return (self.r * self.r).clamp(max=1.0).flatten()

    def slopes(self, weight: Tensor, wanted: tuple[bool, bool]) -> list[Tensor | None]:
        """``weight`` times the slope of r^2 in each view, or None where not wanted."""
        factor = 2 * self.r * weight / self.views[0][0].numel()
        of_other = factor / self.product.clamp(min=self.floor)
        found: list[Tensor | None] = [None, None]
        for side in (0, 1):
            if wanted[side]:
                variance = self.variances[side]
                moves = (self.product >= self.floor) & (variance >= _FLOOR)  # the denominator, with this view
                of_own = moves * factor * self.r / variance.clamp(min=_FLOOR)
                slope = torch.empty_like(self.views[side])
                for rows in strips(slope):
                    deviations = [view[:, :, rows] - mean for view, mean in zip(self.views, self.means, strict=True)]
                    part = torch.mul(deviations[1 - side], of_other, out=slope[:, :, rows])
                    part.addcmul_(deviations[side], of_own, value=-1)
                found[side] = slope
        return found


def correlate(noisy: Tensor, clean: Tensor, eps: float) -> Correlation:
    """Correlate views ``(B, C, H, W)`` over C, H and W."""
    means = noisy.mean(dim=_IMAGE, keepdim=True), clean.mean(dim=_IMAGE, keepdim=True)
    sums = []  # of products of deviations, strip by strip
    for rows in strips(noisy):
        x, y = noisy[:, :, rows] - means[0], clean[:, :, rows] - means[1]
        sums.append(torch.stack([(a * b).sum(dim=_IMAGE, keepdim=True) for a, b in ((x, y), (x, x), (y, y))]))
    covariance, *variances = torch.stack(sums).sum(dim=0) / noisy[0].numel()
    product = variances[0].clamp(min=_FLOOR).sqrt() * variances[1].clamp(min=_FLOOR).sqrt()
    floor = math.sqrt(eps)
    r = covariance / product.clamp(min=floor)
    return Correlation((noisy, clean), means, (variances[0], variances[1]), product, floor, r)
