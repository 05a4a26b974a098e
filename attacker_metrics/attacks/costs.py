"""How far a candidate's gradient is from the shared one: cost functions of one client.

Each takes two dicts, name -> tensor: the candidate's gradients and the shared ones. It returns a scalar, 0 where both agree,
and is differentiable with respect to the first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attacker_metrics.attacks.client_gradient import Gradients

Cost = Callable[[Gradients, Gradients], Tensor]


def squared_distance(candidate: Gradients, shared: Gradients) -> Tensor:
    """``sum (g - g*)^2`` over all values: DLG's cost, in [0, inf).

    Example:
        >>> float(squared_distance({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([1.0, 0.0])}))
        4.0
    """
    return torch.stack([(candidate[name] - shared[name]).square().sum() for name in shared]).sum()


def layer_distances(candidate: Gradients, shared: Gradients) -> Tensor:
    """``sum over tensors of |g - g*|_2``: GradInversion's cost, in [0, inf)."""
    squares = torch.stack([(candidate[name] - shared[name]).square().sum() for name in shared])
    return squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt().sum()


def cosine_distance(candidate: Gradients, shared: Gradients) -> Tensor:
    """``1 - <g, g*> / (|g| |g*|)`` of all tensors as one vector: InvGrad's cost, in [0, 2]. A zero gradient costs 1.

    Example:
        >>> float(cosine_distance({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 3.0])}))
        1.0
    """
    dot = torch.stack([(candidate[name] * shared[name]).sum() for name in shared]).sum()
    squares = [torch.stack([g[name].square().sum() for name in shared]).sum() for g in (candidate, shared)]
    norms = [square.clamp_min(torch.finfo(square.dtype).tiny).sqrt() for square in squares]
    return 1 - dot / norms[0] / norms[1]
