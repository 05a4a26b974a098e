"""What follows a key: values that it leaves open or noisy are restored from their neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from attacker_metrics.attackers import Blur
from attacker_metrics.reading.learned.bases import Fourier
from attacker_metrics.reading.learned.spectrum import PLAIN, Filter, Sums

_OTHERS = 0.25
"""What a value of another channel counts beside one of the same."""
_NOTHING = 1e-2
"""Sum of trust below which the mean picture is guessed."""


class Finish(Protocol):
    """A kind of restoration."""

    def suits(self, height: int, width: int) -> bool:
        """Whether pictures are large enough."""

    def fit(self, views: Tensor, clean: Tensor) -> tuple[Tensor, ...]:
        """What is learned from views and their originals ``(n, 3, H, W)``."""

    def restored(self, views: Tensor, trust: Tensor, *learned: Tensor) -> Tensor:
        """What it makes of views whose values are known by ``trust``, in [0, 1], of the same shape."""


@dataclass(frozen=True)
class Averaged:
    """Every value is an average of its neighbours by their trust; of differences from the mean clean picture.

    Args:
        sigma: width of the Gaussian in pixels.
        keeps: whether known values stay as they are.
    """

    sigma: float
    keeps: bool

    def suits(self, height: int, width: int) -> bool:
        """As far as the border can be mirrored."""
        return min(height, width) > math.ceil(3 * self.sigma)

    def fit(self, views: Tensor, clean: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG002
        """The mean clean picture."""
        return (clean.mean(dim=0),)

    def restored(self, views: Tensor, trust: Tensor, *learned: Tensor) -> Tensor:
        """Average."""
        mean = learned[0].to(views)
        differences = views - mean
        blurred, known = (Blur(self.sigma)(side) for side in (differences * trust, trust))
        blurred, known = (side + _OTHERS * (side.sum(dim=1, keepdim=True) - side) for side in (blurred, known))
        guess = blurred / (known + _NOTHING)
        return mean + (torch.lerp(guess, differences, trust) if self.keeps else guess)


@dataclass(frozen=True)
class Filtered:
    """The best filter of the picture's full size, across colours, as :class:`SpectrumAttacker` fits it."""

    def suits(self, height: int, width: int) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def fit(self, views: Tensor, clean: Tensor) -> tuple[Tensor, ...]:
        """The filter."""
        fit = Sums(views, clean, Fourier()).fit(*PLAIN)
        return torch.view_as_real(fit.weights), fit.level, fit.target

    def restored(self, views: Tensor, trust: Tensor, *learned: Tensor) -> Tensor:  # noqa: ARG002
        """Filter."""
        weights, level, target = learned
        fit = Filter(torch.view_as_complex(weights.float()), level.to(views), target.to(views), views.new_zeros(0))
        return fit.restored(views, Fourier(), "")


FINISHES: dict[str, Finish] = {
    **{f"average over {sigma} pixels where unknown": Averaged(sigma, True) for sigma in (0.6, 0.9, 1.4, 2.2)},
    **{f"average over {sigma} pixels": Averaged(sigma, False) for sigma in (0.6, 0.9, 1.4, 2.2)},
    "filter": Filtered(),
}
"""Name -> kind of restoration."""
