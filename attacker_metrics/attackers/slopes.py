"""Operations that attackers are made of, with the specification's slopes on every version of torch.

torch's own slopes at kinks are not fixed: since 2.14 ``clamp`` passes no gradient at its bounds, before it did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from attacker_metrics._transforms import wants_gradient


def cut(x: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """``clamp(x, low, high)`` whose gradient passes at both bounds, and stops beyond them.

    Args:
        x: any floating tensor; NaN stays NaN.
        low: the least value.
        high: the greatest value.

    Example:
        >>> import torch
        >>> x = torch.tensor([-0.5, 0.0, 1.0, 1.5], requires_grad=True)
        >>> torch.autograd.grad(cut(x, 0.0, 1.0).sum(), x)
        (tensor([0., 1., 1., 0.]),)
    """
    if not wants_gradient(x) and forward_ad._current_level < 0:
        return x.clamp(low, high)
    bounded = x.detach().clamp(low, high)
    return torch.where(x == bounded, x, bounded)


def slide(x: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """Correlate along one dimension, keeping only full windows.

    A sum of slices: exact in float32 on every device, where convolutions may round to TF32.

    Args:
        x: any floating tensor.
        taps: weights of a window.
        dim: the dimension.
    """
    if torch.compiler.is_compiling():  # which fuses them, and need not know how to differentiate a sum by hand
        length = x.shape[dim] - len(taps) + 1
        return torch.stack([x.narrow(dim, i, length) * tap for i, tap in enumerate(taps) if tap]).sum(dim=0)
    result: Tensor = _Slide.apply(x, tuple(taps), dim)
    return result


class _Slide(torch.autograd.Function):
    """The sum of slices accumulated in place, and its transpose."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, taps: tuple[float, ...], dim: int) -> Tensor:
        length = x.shape[dim] - len(taps) + 1
        total = x.narrow(dim, 0, length) * taps[0]
        for i in range(1, len(taps)):
            if taps[i]:
                total.add_(x.narrow(dim, i, length), alpha=taps[i])
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, tuple[float, ...], int], _output: Tensor) -> None:
        _, ctx.taps, ctx.dim = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return slide_back(gradient, ctx.taps, ctx.dim), None, None


def slide_back(gradient: Tensor, taps: Sequence[float], dim: int) -> Tensor:
    """The transpose of :func:`slide`."""
    shape, length = list(gradient.shape), gradient.shape[dim]
    shape[dim] = length + len(taps) - 1
    total = gradient.new_zeros(shape)
    for i in range(len(taps)):
        if taps[i]:
            total.narrow(dim, i, length).add_(gradient, alpha=taps[i])
    return total
