"""What a natural picture looks like, to an attacker: penalties on one client's candidate images.

Each takes the images ``(B, C, H, W)`` and, for every batch norm layer, what went into it and the running mean and variance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LayerInput(NamedTuple):
    """What went into a batch norm layer, ``(B, C, ...)``, and what the layer has seen in training, ``(C,)`` each."""

    features: Tensor
    mean: Tensor
    variance: Tensor


Prior = Callable[[Tensor, Sequence[LayerInput]], Tensor]


def total_variation(images: Tensor, _: Sequence[LayerInput] = ()) -> Tensor:
    """Mean absolute difference of neighbouring pixels, down plus across, in [0, 2].

    Example:
        >>> float(total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])))
        1.0
    """
    return images.diff(dim=-2).abs().mean() + images.diff(dim=-1).abs().mean()


def image_norm(images: Tensor, _: Sequence[LayerInput] = ()) -> Tensor:
    """Euclidean norm of each image, about mid-grey, averaged over the B images."""
    squares = (images - 0.5).square().sum(dim=(-3, -2, -1))
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt().mean()


def batch_norm_statistics(_: Tensor, layers: Sequence[LayerInput]) -> Tensor:
    """``sum over layers of |mean - running mean|_2 + |variance - running variance|_2`` of the features that went in."""
    terms = []
    for features, mean, variance in layers:
        rows = features.transpose(0, 1).flatten(1)
        terms += [rows.mean(dim=1) - mean, rows.var(dim=1, unbiased=False) - variance]
    squares = torch.stack([term.square().sum() for term in terms])
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt().sum()
