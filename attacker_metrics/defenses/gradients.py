"""Defences of gradients: noise, pruning, quantisation.

Every defence maps a dict, parameter name -> gradients ``(N, ...)`` of N clients, to one of the same names, shapes and types.
Clients are treated independently; the input is left as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Gradients = dict[str, Tensor]


class Defense(Protocol):
    """What clients do to their gradients before they share them."""

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:
        """Defended gradients, name -> ``(N, ...)``; the generator is for defences that draw."""


@dataclass(frozen=True)
class GaussianNoise:
    """Add normal noise to every value.

    Args:
        std: of the noise; 1e-3 in the SemSim paper.

    Raises:
        ValueError: if std is negative or not finite.

    Example:
        >>> noisy = GaussianNoise(1e-3)({"w": torch.zeros(1, 1000)}, torch.Generator().manual_seed(0))
        >>> round(float(noisy["w"].std()), 4)
        0.001
    """

    std: float

    def __post_init__(self) -> None:
        if not 0 <= self.std < math.inf:
            raise ValueError(f"std is {self.std}; it must be 0 or more, and finite.")

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:
        """Defended gradients, name -> ``(N, ...)``."""
        return {name: gradient + self.std * normal_like(gradient, generator) for name, gradient in gradients.items()}


@dataclass(frozen=True)
class MagnitudePruning:
    """Set the smallest values of every tensor to 0, as gradient compression does.

    Args:
        share: of each tensor's values that goes, in [0, 1); 0.7 in the SemSim paper. At least one value is kept.

    Raises:
        ValueError: if the share is not in [0, 1).

    Example:
        >>> MagnitudePruning(0.5)({"w": torch.tensor([[1.0, -4.0, 3.0, -2.0]])})["w"].tolist()
        [[0.0, -4.0, 3.0, 0.0]]
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share is {self.share}; it is the part that is pruned, from 0 to below 1.")

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:  # noqa: ARG002
        """Defended gradients, name -> ``(N, ...)``."""
        return {name: per_tensor(self._prune, gradient) for name, gradient in gradients.items()}

    def _prune(self, rows: Tensor) -> Tensor:
        kept = max(1, rows.shape[1] - round(self.share * rows.shape[1]))
        largest = rows.abs().topk(kept, dim=1).indices
        return torch.zeros_like(rows).scatter(1, largest, rows.gather(1, largest))


@dataclass(frozen=True)
class SignQuantization:
    """Share one bit per value, its sign, and one number per tensor, the mean magnitude. A 0 stays 0.

    Example:
        >>> SignQuantization()({"w": torch.tensor([[1.0, -4.0, 3.0, -2.0]])})["w"].tolist()
        [[2.5, -2.5, 2.5, -2.5]]

    Source: Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", ICML 2019.
    """

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:  # noqa: ARG002
        """Defended gradients, name -> ``(N, ...)``."""
        return {
            name: per_tensor(lambda rows: rows.sign() * rows.abs().mean(dim=1, keepdim=True), gradient)
            for name, gradient in gradients.items()
        }


@dataclass(frozen=True)
class LowBitQuantization:
    """Round every value to one of ``2**bits - 1`` levels, evenly spaced from minus to plus the tensor's largest magnitude.

    Args:
        bits: 2 to 16; for one bit there is :class:`SignQuantization`.

    Raises:
        ValueError: for other numbers of bits.

    Example:
        >>> LowBitQuantization(2)({"w": torch.tensor([[1.0, -4.0, 3.0, 1.5]])})["w"].tolist()
        [[0.0, -4.0, 4.0, 0.0]]
    """

    bits: int

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits is {self.bits}; it must be from 2 to 16 (one bit: SignQuantization).")

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:  # noqa: ARG002
        """Defended gradients, name -> ``(N, ...)``."""
        return {name: per_tensor(self._round, gradient) for name, gradient in gradients.items()}

    def _round(self, rows: Tensor) -> Tensor:
        largest = rows.abs().amax(dim=1, keepdim=True)
        steps = 2 ** (self.bits - 1) - 1
        unit = largest.clamp_min(torch.finfo(rows.dtype).tiny) / steps
        return torch.where(largest > 0, (rows / unit).round() * unit, rows)


class Compose:
    """Several defences, one after the other.

    Example:
        >>> Compose(MagnitudePruning(0.5), SignQuantization())
        Compose(MagnitudePruning(share=0.5), SignQuantization())
    """

    def __init__(self, *defenses: Defense) -> None:
        self.defenses = defenses

    def __call__(self, gradients: Gradients, generator: torch.Generator | None = None) -> Gradients:
        """Defended gradients, name -> ``(N, ...)``."""
        for defense in self.defenses:
            gradients = defense(gradients, generator)
        return gradients

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.defenses))})"


def normal_like(gradient: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws of a tensor's shape, made where the generator lives: the same on every device."""
    device = gradient.device if generator is None else generator.device
    return torch.randn(gradient.shape, generator=generator, device=device).to(gradient)


def per_tensor(function: Callable[[Tensor], Tensor], gradient: Tensor) -> Tensor:
    """Apply a function of rows ``(N, values)`` to gradients ``(N, ...)``."""
    return function(gradient.reshape(len(gradient), -1)).reshape(gradient.shape)
