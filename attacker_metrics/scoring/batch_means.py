"""Per-image scores -> a mean over the batch per component, then per family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attacker_metrics._transforms import transforming


def batch_means(scores: Tensor, usable: Tensor, families: Sequence[slice], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Means over the batch, as separate scalars; all 0, with zero gradients, unless the batch is usable.

    On a GPU the time of such small steps is that of their launches: seven here, five in the backward, however many of the
    scalars are used.

    Args:
        scores: ``(B, components)``; NaN is passed on where the batch is usable.
        usable: bool scalar.
        families: runs of neighbouring components whose equal-weight mean is wanted too.
        dtype: of the results.

    Returns:
        A scalar per component, then one per family.
    """
    if torch.compiler.is_compiling() or transforming():  # a compiler fuses what it can see
        return _means(scores, usable, families, scores.new_zeros(())).to(dtype).unbind()
    found: tuple[Tensor, ...] = _BatchMeans.apply(scores, usable, families, dtype)
    return found


def _means(scores: Tensor, usable: Tensor, families: Sequence[slice], zero: Tensor) -> Tensor:
    means = scores.mean(dim=0)
    means = torch.cat([means, *(means[members].mean(dim=0, keepdim=True) for members in families)])
    return torch.where(usable, means, zero)


class _BatchMeans(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, usable: Tensor, families: Sequence[slice], dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        zero = torch.zeros((), dtype=dtype, device=scores.device)
        means = _means(scores, usable, families, zero).to(dtype)
        ctx.save_for_backward(usable, zero)
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.dtype, ctx.families = scores.shape, scores.dtype, families
        return tuple(mean.data for mean in means.unbind())  # of one memory, but no views: each may be added to in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None, None, None]:
        usable, zero = ctx.saved_tensors
        batch, components = ctx.shape
        of_means = torch.stack([zero if gradient is None else gradient for gradient in gradients])
        of_means = torch.where(usable, of_means, zero).to(ctx.dtype) / batch
        for k, members in enumerate(ctx.families, start=components):
            of_means[members].add_(of_means[k], alpha=1 / (members.stop - members.start))
        return of_means[:components].expand(batch, components), None, None, None
