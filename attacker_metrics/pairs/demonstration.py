"""Six ways to hide a picture, from useless to strong, for the built-in demonstration."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from attacker_metrics.attackers.standard import Blur

_BLOCK = 16


def inversion(image: Tensor, _generator: Generator) -> Tensor:
    """Turn the picture into its negative."""
    return 1 - image


def weak_noise(image: Tensor, generator: Generator) -> Tensor:
    """Add Gaussian noise of standard deviation 0.1, not clipped."""
    return image + 0.1 * torch.randn(image.shape, generator=generator)


def blur(image: Tensor, _generator: Generator) -> Tensor:
    """Blur by a Gaussian of 4 pixels."""
    return Blur(4.0)(image[None])[0]


def pixelation(image: Tensor, _generator: Generator) -> Tensor:
    """Replace every block of 16 x 16 pixels by its mean."""
    means = F.avg_pool2d(image[None], _BLOCK, ceil_mode=True)
    return F.interpolate(means, scale_factor=_BLOCK)[0, :, : image.shape[1], : image.shape[2]]


def strong_noise(image: Tensor, generator: Generator) -> Tensor:
    """Add Gaussian noise of standard deviation 1, not clipped."""
    return image + torch.randn(image.shape, generator=generator)


def block_permutation(image: Tensor, generator: Generator) -> Tensor:
    """Shuffle the blocks of 16 x 16 pixels; sides must be multiples of 16."""
    blocks = F.unfold(image[None], _BLOCK, stride=_BLOCK)
    order = torch.randperm(blocks.shape[-1], generator=generator)
    return F.fold(blocks[..., order], image.shape[1:], _BLOCK, stride=_BLOCK)[0]


OBFUSCATIONS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    function.__name__: function for function in (inversion, weak_noise, blur, pixelation, strong_noise, block_permutation)
}
"""Name -> function ``(image (3, H, W) in [0, 1], generator) -> image``, in the order of the demonstration's table."""
