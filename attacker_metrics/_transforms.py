"""What ``torch.func`` does to a call: whether ``grad``, ``vmap`` and their like are at work, and on which tensors.

Inside a transform a tensor is a wrapper that hides some of its facts: under ``vmap`` it has no value that Python could
read, and says that it needs no gradient although what it wraps may.
"""

from __future__ import annotations

import torch
from torch import Tensor


def transforming() -> bool:
    """Whether the call is inside ``torch.func.grad``, ``vjp``, ``vmap``, ``jacrev`` or another transform of theirs."""
    return torch._C._are_functorch_transforms_active()


def wants_gradient(image: Tensor) -> bool:
    """Whether a gradient of the tensor is wanted, here or outside the transforms around it."""
    if not torch.is_grad_enabled():
        return False
    if not torch.compiler.is_compiling():
        while not image.requires_grad and torch._C._functorch.is_functorch_wrapped_tensor(image):
            image = torch._C._functorch.get_unwrapped(image)
    return image.requires_grad
